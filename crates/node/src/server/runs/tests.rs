//! The layer above a scripted server.

mod acquire;
mod faults;
mod hand_over;
mod in_place;

use std::sync::atomic::Ordering;

use serde_json::Value;
use wire::{
    operation::{RegisterCallback, TaskAcquire, TaskHeartbeat, TaskRef, TaskSuspend},
    scripted::{Reply, Scripted},
};

use super::*;

const LEASE: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(8);
const MAX_RUNS: usize = 10;

/// The layer of the instance `me` of group `g`, which knows the function `foo`.
fn rig(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> (Arc<Runs>, Scripted) {
    slow_rig(Duration::ZERO, script)
}

/// The same, on a server whose answers take this long.
fn slow_rig(
    delay: Duration,
    script: impl FnMut(&str, &Value) -> Reply + Send + 'static,
) -> (Arc<Runs>, Scripted) {
    let server = Scripted::new(script);
    let runs = Runs {
        metrics: Metrics::default(),
        next: Arc::new(Slow(server.clone(), delay)),
        leases: Arc::default(),
        group: "g".to_owned(),
        instance: "me".to_owned(),
        pid: "me#1".to_owned(),
        twin_reported: AtomicBool::new(false),
        functions: vec!["foo"],
        drain: DRAIN,
        draining: watch::Sender::new(false),
        max_runs: MAX_RUNS,
        full: AtomicBool::new(false),
        failures: Failures::new(LEASE / 2),
        lost_acquires: Failures::new(LEASE / 2),
        unanswered: AtomicU32::new(0),
        mixes_flows: AtomicBool::new(true),
        suspend_after: Duration::ZERO,
        settlements: Settlements::default(),
        hand_over: None,
        lost: Mutex::default(),
    };
    (Arc::new(runs), server)
}

/// A server whose answers take a while.
struct Slow(Scripted, Duration);

#[async_trait::async_trait]
impl Exchange for Slow {
    async fn exchange(&self, request: Request) -> Answered {
        let answer = self.0.exchange(request).await;
        sleep(self.1).await;
        answer
    }
}

fn ok() -> Reply {
    Reply::Answer(200, json!({}))
}

fn promise(state: PromiseState, data: &str) -> Value {
    json!({"id": "x.0", "state": state, "param": {"data": data}, "value": {},
        "timeoutAt": 9_000, "createdAt": 1_000})
}

fn acquired(data: &str) -> Reply {
    let task = json!({"id": "x.0", "state": "acquired", "version": 1, "resumes": 0});
    let promise = promise(PromiseState::Pending, data);
    Reply::Answer(200, json!({"task": task, "promise": promise, "preload": []}))
}

fn call_of_foo() -> String {
    call::encode("foo", &())
}

async fn acquire(runs: &Runs, id: &str) -> Answered {
    let ttl = LEASE.as_millis() as i64;
    let data = TaskAcquire { id: id.into(), version: 0, pid: "me".into(), ttl };
    runs.exchange(Request::new("task.acquire", &data)).await
}

async fn create(runs: &Runs, origin: &str) -> Answered {
    let tags = json!({"resonate:origin": origin});
    let create = json!({"id": "x.0.0", "timeoutAt": 9_000, "param": {}, "tags": tags});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    let fence = json!({"id": "x.0", "version": 1, "action": action});
    runs.exchange(Request::new("task.fence", &fence)).await
}

async fn settle(runs: &Runs) -> Answered {
    let settle = json!({"id": "x.0.0", "state": "resolved", "value": {}});
    let action = json!({"kind": "promise.settle", "head": {}, "data": settle});
    let fence = json!({"id": "x.0", "version": 1, "action": action});
    runs.exchange(Request::new("task.fence", &fence)).await
}

async fn suspend(runs: &Runs) -> Answered {
    let data = RegisterCallback { awaited: "x.0.0".into(), awaiter: "x.0".into() };
    let action = Action { kind: "promise.register_callback".into(), head: None, data };
    let suspend = TaskSuspend { id: "x.0".into(), version: 1, actions: vec![action] };
    runs.exchange(Request::new("task.suspend", &suspend)).await
}

async fn fulfill(runs: &Runs) -> Answered {
    let data = PromiseSettle {
        id: "x.0".into(),
        state: SettleState::Resolved,
        value: PromiseValue::default(),
    };
    let action = Action { kind: "promise.settle".into(), head: None, data };
    let fulfill = TaskFulfill { id: "x.0".into(), version: 1, action };
    runs.exchange(Request::new("task.fulfill", &fulfill)).await
}

async fn release(runs: &Runs) -> Answered {
    let release = TaskRef { id: "x.0".into(), version: 1 };
    runs.exchange(Request::new("task.release", &release)).await
}

async fn heartbeat(runs: &Runs, tasks: &[&str]) -> Answered {
    let tasks = tasks.iter().map(|id| TaskRef { id: (*id).into(), version: 1 }).collect();
    let heartbeat = TaskHeartbeat { pid: "me".into(), tasks };
    runs.exchange(Request::new("task.heartbeat", &heartbeat)).await
}

/// Holds `x.0`, without the server's help.
fn hold(runs: &Runs) {
    runs.leases.begin("x.0", 1, Instant::now(), LEASE);
}

fn withheld(answered: Answered) -> String {
    match answered {
        Err(ExchangeError::Withheld(reason)) => reason,
        other => panic!("not withheld: {other:?}"),
    }
}

fn fenced(data: &Value) -> Reply {
    let mut promise = data["action"]["data"].clone();
    promise["state"] = "pending".into();
    promise["createdAt"] = 1.into();
    promise["timeoutAt"] = 9_000.into();
    let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
    Reply::Answer(200, json!({"action": action, "preload": []}))
}

#[tokio::test(start_paused = true)]
async fn a_run_is_held_from_acquire_to_suspend_or_fulfill() {
    for fulfills in [true, false] {
        let (runs, server) = rig(|kind, data| match kind {
            "task.acquire" => acquired(&call_of_foo()),
            "task.fence" => fenced(data),
            "task.fulfill" => {
                Reply::Answer(200, json!({"promise": promise(PromiseState::Resolved, "")}))
            }
            _ => ok(),
        });
        acquire(&runs, "x.0").await.unwrap();
        assert_eq!(runs.leases.all(), [("x.0".to_owned(), 1)]);
        create(&runs, "x.0").await.unwrap();
        assert_eq!(server.seen()[1].1["action"]["data"]["tags"]["resonate:origin"], "x");
        match fulfills {
            true => fulfill(&runs).await.unwrap(),
            false => suspend(&runs).await.unwrap(),
        };
        assert_eq!(runs.leases.all(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspend_that_comes_too_late_keeps_the_run() {
    let (runs, _) = rig(|_, _| Reply::Answer(300, json!({"preload": []})));
    hold(&runs);
    assert_eq!(suspend(&runs).await.unwrap().status(), 300);
    assert_eq!(runs.leases.version("x.0"), Some(1));
}

/// The first attempt took effect, and its answer was lost: the repeat is refused.
#[tokio::test(start_paused = true)]
async fn a_refused_repeat_ends_the_run_with_what_is_stored() {
    let (runs, server) = rig(|kind, _| match kind {
        "promise.get" => {
            Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")}))
        }
        _ => Reply::Repeated(409, json!("stale")),
    });
    hold(&runs);
    let answer = fulfill(&runs).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.promise().unwrap().state, PromiseState::Rejected);
    hold(&runs);
    assert_eq!(suspend(&runs).await.unwrap().status(), 200);
    assert_eq!(server.kinds(), ["task.fulfill", "promise.get", "task.suspend"]);
    assert_eq!(runs.leases.all(), []);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_run_changes_nothing_more() {
    let (runs, server) = rig(|_, _| Reply::Answer(409, json!("stale")));
    hold(&runs);
    assert_eq!(settle(&runs).await.unwrap().status(), 409);
    for answered in [create(&runs, "x").await, suspend(&runs).await, fulfill(&runs).await] {
        assert_eq!(withheld(answered), Abandoned::Fenced.to_string());
    }
    assert_eq!(server.kinds(), ["task.fence", "promise.get"], "the others were not sent");
    // The layers below learn that the run has ended.
    assert_eq!(release(&runs).await.unwrap().status(), 409);
    assert_eq!(server.kinds(), ["task.fence", "promise.get", "task.get", "task.release"]);
    assert_eq!(runs.leases.all(), []);
    assert_eq!(runs.take_lost(), [], "another process has it");
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_server_is_abandoned_and_asked_for_later() {
    let (runs, _) = rig(|_, _| Reply::Lost);
    hold(&runs);
    assert!(matches!(settle(&runs).await, Err(ExchangeError::Unreachable { .. })));
    assert_eq!(withheld(fulfill(&runs).await), Abandoned::Unreachable.to_string());
    assert_eq!(release(&runs).await.unwrap().status(), 409);
    assert_eq!(runs.take_lost(), [("x.0".to_owned(), 1)]);
    assert_eq!(runs.take_lost(), []);
}

#[test]
fn a_run_whose_token_was_refused_says_so() {
    let (server, reason) = ("http://s".to_owned(), "the token expired".to_owned());
    let error = ExchangeError::Unauthorized { server, reason };
    assert_eq!(lost_by(&error), Abandoned::Unauthorized);
    assert_eq!(lost_by(&ExchangeError::Unanswered), Abandoned::Unreachable);
}

/// An acquire is refused although its first attempt took the task: `task.get` tells whose it is.
#[tokio::test(start_paused = true)]
async fn a_draining_process_finishes_its_step_and_begins_no_other() {
    let (runs, server) = rig(|kind, data| match kind {
        "task.fence" => fenced(data),
        _ => ok(),
    });
    hold(&runs);
    let drain = {
        let runs = runs.clone();
        tokio::spawn(async move { runs.drain().await })
    };
    tokio::task::yield_now().await;
    settle(&runs).await.unwrap();
    assert_eq!(withheld(create(&runs, "x").await), Abandoned::Draining.to_string());
    assert_eq!(release(&runs).await.unwrap().status(), 200);
    drain.await.unwrap();
    assert_eq!(server.kinds(), ["task.fence", "task.release"]);
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_at_the_drain_deadline_is_released() {
    let (runs, server) = rig(|_, _| ok());
    hold(&runs);
    let start = Instant::now();
    runs.drain().await;
    assert_eq!(start.elapsed(), DRAIN);
    assert_eq!(server.kinds(), ["task.release"]);
    assert_eq!(withheld(fulfill(&runs).await), Abandoned::Released.to_string());
    // The SDK releases it too. That is done.
    assert_eq!(release(&runs).await.unwrap().status(), 200);
    assert_eq!(server.kinds(), ["task.release"]);
}

/// The ids of the tasks in each request that came.
fn renewed(server: &Scripted) -> Vec<Vec<String>> {
    let ids = |(_, data): (String, Value)| {
        let tasks = data["tasks"].as_array().unwrap().clone();
        tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    server.seen().into_iter().map(ids).collect()
}

#[tokio::test(start_paused = true)]
async fn one_heartbeat_renews_all_runs_when_it_is_due() {
    let (runs, server) = rig(|_, _| ok());
    let start = Instant::now();
    let all = ["x.0", "x.1", "y"];
    all.iter().for_each(|id| runs.leases.begin(id, 1, start, LEASE));
    heartbeat(&runs, &all).await.unwrap();
    assert_eq!(server.kinds().len(), 0, "the leases are fresh");
    tokio::time::advance(LEASE / 2).await;
    assert_eq!(heartbeat(&runs, &all).await.unwrap().status(), 200);
    assert_eq!(renewed(&server), [all]);
    for id in all {
        assert_eq!(*runs.leases.check(id, 1).unwrap().borrow() - start, LEASE / 2 + LEASE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_mix_flows_gets_a_heartbeat_for_each() {
    let (runs, server) = rig(|_, data| {
        let tasks: Vec<_> = data["tasks"].as_array().unwrap().iter().collect();
        match tasks[0]["id"].as_str().unwrap() {
            "z" => Reply::Lost,
            "w" => Reply::Answer(400, json!("no")),
            _ if tasks.iter().any(|task| task["id"] == "y") && tasks.len() > 1 => {
                Reply::Answer(400, json!("tasks of several origins"))
            }
            _ => ok(),
        }
    });
    let start = Instant::now();
    let all = ["x.0", "x.1", "y", "z", "w"];
    all.iter().for_each(|id| runs.leases.begin(id, 1, start, LEASE));
    tokio::time::advance(LEASE / 2).await;
    heartbeat(&runs, &all).await.unwrap();
    let by_flow = [&["w"][..], &["x.0", "x.1"], &["y"], &["z"]];
    assert_eq!(renewed(&server)[0], all);
    assert_eq!(renewed(&server)[1..], by_flow);
    let ends = |id: &str| runs.leases.check(id, 1).map(|ends| *ends.borrow() - start);
    assert_eq!(ends("x.0").unwrap(), LEASE / 2 + LEASE);
    assert_eq!(ends("y").unwrap(), LEASE / 2 + LEASE);
    assert_eq!(ends("w").unwrap(), LEASE, "refused");
    assert_eq!(ends("z").unwrap_err(), Abandoned::Unreachable);

    tokio::time::advance(LEASE / 2).await;
    heartbeat(&runs, &["x.0", "y"]).await.unwrap();
    assert_eq!(renewed(&server)[5..], [["x.0"], ["y"]], "it is not tried again");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ended_in_nothing_is_released_after_a_delay() {
    let (runs, server) = rig(|_, _| ok());
    let mut last = Duration::ZERO;
    for _ in 0..3 {
        hold(&runs);
        let start = Instant::now();
        assert_eq!(release(&runs).await.unwrap().status(), 200);
        assert!(start.elapsed() > last);
        last = start.elapsed();
    }
    assert_eq!(server.kinds().len(), 3);
}
