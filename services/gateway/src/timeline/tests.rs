//! Flows as a server tells them.

mod outages;
mod takeovers;
mod viewers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::{Args, FromArgMatches};
use flows::{Flow, Options};
use resonate_otel::attributes::{
    HEADER_BEGUN, HEADER_FAILURES, HEADER_INSTANCE, HEADER_SETTLER, HEADER_VERSION,
};
use serde_json::{Value, json};
use wire::{
    call,
    scripted::{Reply, Scripted},
};

use super::*;
use crate::{Settings, client::Client, stats::Stats};

/// When all flows start, in Unix milliseconds.
const START: i64 = 1_000_000;

/// What the server knows.
#[derive(Default)]
struct World {
    promises: HashMap<String, Value>,
    tasks: HashMap<String, Value>,
    /// It answers nothing.
    down: bool,
}

/// A server, and a flow on it that is looked at.
struct Rig {
    world: Arc<Mutex<World>>,
    server: Scripted,
    known: Option<known::Known>,
    crashes: Vec<record::Crash>,
}

fn settings() -> Settings {
    let command = Settings::augment_args(clap::Command::new("gateway"));
    Settings::from_arg_matches(&command.get_matches_from(["gateway"])).unwrap()
}

impl Rig {
    /// A flow that was created and not taken yet.
    fn new(flow: &str, options: Options) -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let shared = world.clone();
        let server = Scripted::new(move |kind, data| {
            let world = shared.lock().unwrap();
            if world.down {
                return Reply::Lost;
            }
            let id = data["id"].as_str().unwrap();
            let (member, found) = match kind {
                "promise.get" => ("promise", world.promises.get(id)),
                _ => ("task", world.tasks.get(id)),
            };
            match found {
                Some(found) => Reply::Answer(200, json!({member: found})),
                None => Reply::Answer(404, json!("not found")),
            }
        });
        let rig = Self { world, server, known: None, crashes: Vec::new() };
        let flow = Flow::by_name(flow).unwrap();
        rig.promise("f", 0, json!({}));
        rig.change("f", |promise| {
            let data = call::encode(flow.first().name, &flow.arguments(&options));
            promise["param"] = json!({"data": data});
        });
        rig
    }

    /// A promise that was created so many milliseconds after the start.
    fn promise(&self, id: &str, at: i64, headers: Value) {
        let promise = json!({"id": id, "state": "pending", "timeoutAt": START + 100_000,
            "createdAt": START + at, "param": {"headers": headers}});
        self.world.lock().unwrap().promises.insert(id.to_owned(), promise);
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        change(self.world.lock().unwrap().promises.get_mut(id).unwrap());
    }

    /// A promise that the run `by` created: its instance and version.
    fn created(&self, id: &str, at: i64, by: (&str, i64)) {
        self.promise(id, at, json!({HEADER_INSTANCE: by.0, HEADER_VERSION: by.1.to_string()}));
    }

    fn settled(&self, id: &str, at: i64, by: (&str, i64), value: Value) {
        self.change(id, |promise| {
            promise["state"] = "resolved".into();
            promise["settledAt"] = (START + at).into();
            let settler = format!("{} {}", by.0, by.1);
            let data = call::encode_value(&value);
            promise["value"] = json!({"headers": {HEADER_SETTLER: settler}, "data": data});
        });
    }

    fn header(&self, id: &str, name: &str, value: i64) {
        self.change(id, |it| it["value"]["headers"][name] = value.to_string().into());
    }

    fn task(&self, id: &str, state: &str, version: i64, pid: Option<&str>) {
        let mut task = json!({"id": id, "state": state, "version": version, "resumes": 0});
        if let Some(pid) = pid {
            (task["pid"], task["ttl"]) = (pid.into(), 3_000.into());
        }
        self.world.lock().unwrap().tasks.insert(id.to_owned(), task);
    }

    /// Looks at the flow so many milliseconds after its start. Returns what is drawn.
    async fn look(&mut self, at: i64) -> Value {
        let client = Client::new(Arc::new(self.server.clone()));
        if self.known.is_none() {
            let first = client.get("f").await.unwrap().unwrap();
            self.known = known::Known::new(&first, None);
        }
        let known = self.known.as_mut().unwrap();
        known.refresh(&client, || START + at).await.unwrap();
        serde_json::to_value(view::view(known, &self.crashes, &settings())).unwrap()
    }

    fn requests(&self) -> usize {
        self.server.seen().len()
    }
}

/// A step that works as long as that.
fn work(seconds: u64) -> Options {
    Options { work: Some(Duration::from_secs(seconds)), ..Options::default() }
}

/// The crash button has killed a process of service-b so many milliseconds after the start.
fn crash(instance: &str, at: i64) -> record::Crash {
    let (group, start) = ("service-b".to_owned(), Some(format!("start {instance}")));
    record::Crash { group, instance: instance.to_owned(), start, at: START + at }
}

/// The row of a promise, in one line: its note, and its segments.
fn row(view: &Value, id: &str) -> String {
    let row = view["rows"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
    let segments = row["segments"].as_array().unwrap().iter().map(|segment| {
        let part = |name: &str| segment[name].as_str().unwrap_or("-").to_owned();
        let to = segment["to"].as_i64().map(|to| to.to_string()).unwrap_or_default();
        format!("{} {} {}..{to}", part("kind"), part("who"), segment["from"])
    });
    let segments: Vec<_> = segments.collect();
    format!("{}: {}", row["note"].as_str().unwrap(), segments.join(", "))
}

fn story(view: &Value) -> Vec<String> {
    let lines = view["story"].as_array().unwrap().iter();
    lines.map(|line| format!("{} {}", line["at"], line["text"].as_str().unwrap())).collect()
}

/// `foo` has called `bar`, which works in its second step of three.
fn in_step_2(rig: &Rig) {
    rig.task("f", "suspended", 1, None);
    rig.created("f.0", 10, ("a", 1));
    rig.task("f.0", "acquired", 1, Some("b#1-x@host"));
    rig.created("f.0.0", 20, ("b", 1));
    rig.settled("f.0.0", 1_020, ("b", 1), json!(null));
    rig.created("f.0.1", 1_030, ("b", 1));
}

/// The other process has ended the second step, and everything after it.
fn ended(rig: &Rig, version: i64) {
    rig.settled("f.0.1", 5_100, ("b2", version), json!(null));
    rig.header("f.0.1", HEADER_BEGUN, START + 4_090);
    rig.created("f.0.2", 5_110, ("b2", version));
    rig.settled("f.0.2", 6_110, ("b2", version), json!(null));
    rig.created("f.0.3", 6_120, ("b2", version));
    rig.settled("f.0.3", 6_130, ("c", 1), json!(1));
    rig.settled("f.0", 6_140, ("b2", version), json!(2));
    rig.settled("f", 6_150, ("a2", 2), json!(3));
    rig.task("f.0", "fulfilled", version, None);
    rig.task("f", "fulfilled", 2, None);
}

#[tokio::test]
async fn a_flow_that_has_ended_is_told_from_its_promises_and_never_asked_for_again() {
    let mut rig = Rig::new("await-chain", Options::default());
    rig.created("f.0", 10, ("a", 1));
    rig.created("f.0.0", 20, ("b", 1));
    rig.settled("f.0.0", 30, ("c", 1), json!(1));
    rig.settled("f.0", 40, ("b", 1), json!(2));
    rig.settled("f", 50, ("a2", 2), json!(3));
    let view = rig.look(60).await;
    assert_eq!(row(&view, "f"), "✓ returned 3: run a 0..10, wait - 10..40, run a2 40..50");
    assert_eq!(row(&view, "f.0"), "✓ returned 2: run b 10..20, wait - 20..30, run b 30..40");
    assert_eq!(row(&view, "f.0.0"), "✓ returned 1: run c 20..30");
    assert_eq!((&view["complete"], &view["result"]), (&json!(true), &json!(3)));
    assert_eq!(view["holders"], json!([]));
    let requests = rig.requests();
    rig.look(70).await;
    assert_eq!(rig.requests(), requests);
}

/// The clock of a server that was started again can be behind.
#[tokio::test]
async fn a_flow_that_was_settled_before_it_was_created_is_drawn() {
    let mut rig = Rig::new("await-chain", work(1));
    rig.task("f", "pending", 0, None);
    rig.look(10).await;
    rig.task("f", "suspended", 1, None);
    rig.created("f.0", 1_000, ("a", 1));
    rig.created("f.0.0", 1_010, ("b", 1));
    rig.settled("f.0.0", 500, ("b", 2), json!(null));
    rig.header("f.0.0", HEADER_BEGUN, START + 1_020);
    rig.settled("f.0", 400, ("b", 2), json!(2));
    rig.settled("f", -100, ("a", 1), json!(3));
    rig.task("f", "fulfilled", 1, None);
    rig.task("f.0", "fulfilled", 2, None);
    let view = rig.look(1_100).await;
    assert_eq!((&view["state"], &view["result"]), (&json!("resolved"), &json!(3)));
}

#[tokio::test]
async fn a_look_at_600_steps_costs_as_little_as_one_at_three() {
    let mut costs = Vec::new();
    for seconds in [3, 600] {
        let mut rig = Rig::new("await-chain", work(seconds));
        in_step_2(&rig);
        rig.look(1_500).await;
        let before = rig.requests();
        for at in 0..10 {
            rig.look(1_600 + at).await;
        }
        costs.push(rig.requests() - before);
        // One step is over, and the next one has begun.
        rig.settled("f.0.1", 2_030, ("b", 1), json!(null));
        rig.created("f.0.2", 2_040, ("b", 1));
        let before = rig.requests();
        let view = rig.look(2_100).await;
        assert!(rig.requests() - before <= 4, "{}", rig.requests() - before);
        assert_eq!(row(&view, "f.0.2"), "runs: run b 2040..");
    }
    // The task of `bar`, and its step. `foo` waits.
    assert_eq!(costs, [20, 20]);
}

#[tokio::test]
async fn a_call_waits_for_a_process_only_if_it_was_seen_to() {
    for (waited, expected) in
        [(false, "runs: run a 0.."), (true, "runs: queue - 0..900, run a 900..")]
    {
        let mut rig = Rig::new("await-chain", Options::default());
        if waited {
            rig.task("f", "pending", 0, None);
            assert_eq!(row(&rig.look(100).await, "f"), "waits for a process: queue - 0..");
        }
        rig.task("f", "acquired", 1, Some("a#1"));
        assert_eq!(row(&rig.look(900).await, "f"), expected);
    }
}

#[tokio::test]
async fn many_steps_are_few_rows() {
    let mut rig = Rig::new("await-chain", work(600));
    in_step_2(&rig);
    for n in 1..300 {
        rig.created(&format!("f.0.{n}"), n * 1_000 + 20, ("b", 1));
        rig.settled(&format!("f.0.{n}"), n * 1_000 + 1_020, ("b", 1), json!(null));
    }
    rig.created("f.0.300", 300_030, ("b", 1));
    let view = rig.look(300_100).await;
    let names: Vec<_> =
        view["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    let steps = ["work 1–297", "work 298/600", "work 299/600", "work 300/600", "work 301/600"];
    assert_eq!(names[2..7], steps);
    assert_eq!(names[7..], ["work 302/600", "work 303–600", "baz"]);
    assert!(view.to_string().len() < 4_000, "{}", view.to_string().len());
}

#[tokio::test]
async fn timers_and_retries_have_segments_of_their_own() {
    let options = Options { sleep: Some(Duration::from_secs(4)), fail: Some(2), work: None };
    let mut rig = Rig::new("await-chain", options);
    rig.created("f.0", 10, ("a", 1));
    rig.created("f.0.0", 20, ("b", 1));
    rig.created("f.0.0.0", 30, ("c", 1));
    rig.change("f.0.0.0", |timer| timer["timeoutAt"] = (START + 4_030).into());
    for id in ["f", "f.0", "f.0.0"] {
        rig.task(id, "suspended", 1, None);
    }
    let view = rig.look(1_000).await;
    assert_eq!(row(&view, "f.0.0"), "sleeps: run c 20..30, sleep - 30..");
    assert_eq!(view["rows"][3]["due"], 4_030);
    assert_eq!(view["holders"], json!([]), "no process holds it");

    rig.settled("f.0.0.0", 4_030, ("", 0), json!(null));
    rig.created("f.0.0.1", 4_040, ("c2", 2));
    rig.task("f.0.0", "acquired", 2, Some("c2#1"));
    let view = rig.look(4_100).await;
    assert_eq!(row(&view, "f.0.0.1"), "fails, is retried: retry c2 4040..");
    rig.settled("f.0.0.1", 5_000, ("c2", 2), json!(null));
    rig.header("f.0.0.1", HEADER_FAILURES, 2);
    let view = rig.look(5_100).await;
    assert_eq!(row(&view, "f.0.0.1"), "✓ attempt 3: retry c2 4040..5000");
    assert!(story(&view).contains(&"5000 baz failed 2 times; attempt 3 worked".to_owned()));
}

#[tokio::test]
async fn a_flow_that_failed_says_what_to_do_and_asks_for_nothing_that_was_never_called() {
    let mut rig = Rig::new("fan-out-workflow", work(1));
    rig.created("f.0", 10, ("g", 1));
    for id in ["f.0", "f"] {
        rig.settled(id, 20, ("g", 1), json!(null));
        rig.change(id, |promise| {
            promise["state"] = "rejected".into();
            promise["value"]["data"] = call::encode_error("no luck").into();
        });
    }
    let view = rig.look(100).await;
    assert_eq!(view["state"], "rejected");
    let error = view["error"].as_str().unwrap();
    assert!(error.starts_with("The flow failed: “no luck”. This result is final"), "{error}");
    assert_eq!(row(&view, "f.1"), "not called: ");
    rig.look(200).await;
    assert!(rig.known.as_ref().unwrap().is_complete());
}

#[tokio::test]
async fn a_detached_flow_ends_with_its_last_function() {
    let mut rig = Rig::new("detached-chain", Options::default());
    let flow = Flow::by_name("detached-chain").unwrap();
    let ids: Vec<_> =
        flow.invocations("f", &Options::default()).into_iter().map(|it| it.id).collect();
    rig.created(&ids[1], 10, ("d", 1));
    rig.settled(&ids[0], 20, ("d", 1), json!(null));
    let view = rig.look(30).await;
    assert_eq!((&view["state"], &view["complete"]), (&json!("pending"), &json!(false)));
    rig.created(&ids[2], 40, ("e", 1));
    rig.settled(&ids[1], 50, ("e", 1), json!(null));
    rig.settled(&ids[2], 60, ("f", 1), json!(null));
    let view = rig.look(70).await;
    assert_eq!((&view["state"], &view["complete"]), (&json!("resolved"), &json!(true)));
    assert_eq!(view["ended"], 60);
    let text = "10 qux started quz and does not wait; it runs on e";
    assert!(story(&view).contains(&text.to_owned()), "{view}");
}
