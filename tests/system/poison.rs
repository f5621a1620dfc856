//! Promises that no process can run: each is rejected soon, with a clear error, and disturbs no
//! other flow.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::{Process, Resonate, Server, Stopped, System, until};

use crate::service_p;

testkit::on_each_server!(
    each_poison_ends_with_its_error_and_other_flows_do_not_notice,
    a_function_that_panics_is_rejected_with_its_message,
);

/// A promise that cannot be run.
struct Poison {
    name: &'static str,
    param: Value,
    error: &'static str,
    /// How often its task may be acquired.
    acquisitions: i64,
}

pub fn encoded(text: &str) -> Value {
    json!({"data": BASE64_STANDARD.encode(text)})
}

pub fn call(function: &str, arguments: Value) -> Value {
    encoded(&json!({"func": function, "args": arguments}).to_string())
}

/// Waits until the promise `id` is rejected. Returns its error and how often its task was acquired.
pub async fn rejected(system: &System, resonate: &Resonate, id: &str) -> (String, i64) {
    let promise = until(&system.log, &format!("the end of {id}"), async || {
        let promise = resonate.promise(id).await;
        (promise["state"] != "pending").then_some(promise)
    })
    .await;
    assert_eq!(promise["state"], "rejected", "{promise:#}");
    let value = BASE64_STANDARD.decode(promise["value"]["data"].as_str().unwrap()).unwrap();
    let value: Value = serde_json::from_slice(&value).unwrap();
    assert_eq!(value["__type"], "error", "an error as the SDKs encode it: {value}");
    let task = resonate.task(id).await;
    (value["message"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
}

fn poisons() -> Vec<Poison> {
    const NO_CALL: &str = "the parameter of this promise is not a function call: ";
    const ARGUMENTS: &str = "invalid arguments for bar: ";
    const UNKNOWN: &str = "no function \"nope\" in group service-b; check the caller's target, or whether the group runs an older version";
    let poison = |name, param, error| Poison { name, param, error, acquisitions: 1 };
    vec![
        // A group may be in the middle of an update: each of the two processes tries five times.
        Poison { acquisitions: 10, ..poison("unknown", call("nope", Value::Null), UNKNOWN) },
        poison("nothing", json!({}), NO_CALL),
        poison("no-base64", json!({"data": "%%%"}), NO_CALL),
        poison("no-json", encoded("bar()"), NO_CALL),
        poison("no-call", encoded("[1, 2]"), NO_CALL),
        poison("two-calls", encoded("{\"func\": \"bar\"} {}"), NO_CALL),
        poison("no-utf8", json!({"data": BASE64_STANDARD.encode([0xff, 0xfe])}), NO_CALL),
        poison("a-text", call("bar", json!("soon")), ARGUMENTS),
        poison("typo", call("bar", json!({"wrok": "6s"})), ARGUMENTS),
        poison("bad-time", call("bar", json!({"work": "6"})), ARGUMENTS),
    ]
}

async fn each_poison_ends_with_its_error_and_other_flows_do_not_notice(server: Server) -> Stopped {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let (http, resonate) = (system.http(), system.resonate());
    http.post("/await-chain?id=before").await.expect_message(3);

    let poisons = poisons();
    let poisoned = join_all(poisons.iter().map(async |poison| {
        resonate.create(poison.name, "poll://any@service-b", poison.param.clone()).await;
        let (error, acquisitions) = rejected(&system, &resonate, poison.name).await;
        assert!(error.contains(poison.error), "{}: {error}", poison.name);
        assert!(acquisitions <= poison.acquisitions, "{}: {acquisitions} runs", poison.name);
        println!("{server:?}: {} ended after {acquisitions} runs: {error}", poison.name);
    }));
    // Meanwhile flows run through the same two processes, one after the other.
    let mut took: Vec<Duration> = Vec::new();
    let others = async {
        loop {
            let start = Instant::now();
            let path = format!("/await-chain?id=meanwhile-{}", took.len());
            http.post(&path).await.expect_message(3);
            took.push(start.elapsed());
        }
    };
    tokio::select! {
        _ = poisoned => {}
        () = others => {}
    }
    took.sort();
    let median = took[took.len() / 2];
    println!("{server:?}: {} flows meanwhile, median {median:.3?}", took.len());
    // A flow that waited for a poisoned promise would take as long as its pauses or its lease.
    assert!(median < Duration::from_millis(500), "{took:?}");
    system.stop().await
}

async fn a_function_that_panics_is_rejected_with_its_message(server: Server) -> Stopped {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let (http, resonate) = (system.http(), system.resonate());
    let mut service_p = Process::start(&mut service_p::command(&system.server_url), &system.log);
    for (function, error) in [
        ("panics", "application error: panics panicked: as asked"),
        (
            "panics_after_a_step",
            "application error: panics_after_a_step panicked: after a step, as asked",
        ),
    ] {
        let id = function.replace('_', "-");
        resonate.create(&id, "poll://any@service-p", call(function, json!("as asked"))).await;
        assert_eq!(rejected(&system, &resonate, &id).await, (error.to_owned(), 1));
    }
    // The process has survived both panics and still runs what can be run.
    resonate.create("greeted", "poll://any@service-p", call("greets", json!("you"))).await;
    let promise = until(&system.log, "an answer of service-p", async || {
        let promise = resonate.promise("greeted").await;
        (promise["state"] == "resolved").then_some(promise)
    })
    .await;
    assert_eq!(promise["value"]["data"], BASE64_STANDARD.encode("\"hello you\""));
    http.post("/await-chain").await.expect_message(3);
    assert_eq!(service_p.stop().await.code(), Some(0));
    system.stop().await
}
