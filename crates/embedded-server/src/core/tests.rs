//! The state machine at times that the test chooses.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Core, Limits, Message};
use crate::request;

const RETRY: i64 = 2_000;
const RETENTION: i64 = 10_000;

fn core() -> Core {
    Core::new(Limits { retry: RETRY, retention: RETENTION, settled_flows: 1_000 })
}

/// Applies a request; returns its status and data, and the messages in short.
fn apply(core: &mut Core, now: i64, kind: &str, data: Value) -> (u16, Value, Vec<String>) {
    let head = json!({"corrId": "c", "version": "2026-04-01"});
    let body = json!({"kind": kind, "head": head, "data": data}).to_string();
    let mut value = Value::Null;
    let Ok(operation) = request::read(body.as_bytes(), None, &mut value).operation else {
        return (400, Value::Null, Vec::new());
    };
    let (reply, messages) = core.apply(now, operation);
    let data = serde_json::from_str(reply.data.get()).expect("data is JSON");
    (reply.status, data, short(messages))
}

fn short(messages: Vec<Message>) -> Vec<String> {
    let short = |message| match message {
        Message::Execute { id, version, .. } => format!("execute {id} {version}"),
        Message::Unblock { promise, address } => {
            let promise: Value = serde_json::from_str(promise.get()).expect("a promise is JSON");
            format!("unblock {} {}", promise["id"].as_str().unwrap_or_default(), address.group)
        }
    };
    messages.into_iter().map(short).collect()
}

fn create(core: &mut Core, now: i64, id: &str, timeout_at: i64) -> Vec<String> {
    let tags = json!({"resonate:target": "poll://any@g", "resonate:branch": "r"});
    let data = json!({"id": id, "timeoutAt": timeout_at, "tags": tags});
    let (status, _, messages) = apply(core, now, "promise.create", data);
    assert_eq!(status, 200);
    messages
}

fn acquire(core: &mut Core, now: i64, id: &str, version: i64, ttl: i64) -> u16 {
    let data = json!({"id": id, "version": version, "pid": "p", "ttl": ttl});
    apply(core, now, "task.acquire", data).0
}

fn suspend(core: &mut Core, now: i64, id: &str, version: i64, awaited: &str) -> u16 {
    let wait = json!({"awaited": awaited, "awaiter": id});
    let actions = json!([{"kind": "k", "head": {}, "data": wait}]);
    let data = json!({"id": id, "version": version, "actions": actions});
    apply(core, now, "task.suspend", data).0
}

fn state(core: &mut Core, now: i64, id: &str) -> String {
    let (_, data, _) = apply(core, now, "task.get", json!({"id": id}));
    data["task"]["state"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn a_pending_task_is_announced_at_each_retry_and_not_between() {
    let mut core = core();
    assert_eq!(create(&mut core, 0, "r", 1_000_000), ["execute r 0"]);
    assert_eq!(core.next_due(), Some(RETRY));
    assert!(core.tick(RETRY - 1).is_empty());
    assert_eq!(short(core.tick(RETRY)), ["execute r 0"]);
    assert!(core.tick(RETRY).is_empty());
    assert_eq!(short(core.tick(2 * RETRY)), ["execute r 0"]);
    assert_eq!(acquire(&mut core, 2 * RETRY, "r", 0, 100_000), 200);
    assert!(core.tick(4 * RETRY).is_empty());
}

#[test]
fn a_lease_ends_with_its_last_millisecond() {
    let mut core = core();
    create(&mut core, 0, "r", 1_000_000);
    acquire(&mut core, 0, "r", 0, 300);
    assert_eq!(state(&mut core, 299, "r"), "acquired");
    let beat = json!({"pid": "p", "tasks": [{"id": "r", "version": 1}]});
    apply(&mut core, 299, "task.heartbeat", beat);
    assert_eq!(state(&mut core, 598, "r"), "acquired");
    // The request that comes at the very end is too late.
    let (status, _, messages) =
        apply(&mut core, 599, "task.release", json!({"id": "r", "version": 1}));
    assert_eq!((status, messages), (409, vec!["execute r 1".to_owned()]));
    assert_eq!(state(&mut core, 599, "r"), "pending");
}

#[test]
fn time_outs_of_the_same_moment_end_tasks_before_they_wake_any() {
    let mut core = core();
    create(&mut core, 0, "a", 500);
    create(&mut core, 0, "b", 400);
    acquire(&mut core, 0, "a", 0, 100_000);
    assert_eq!(suspend(&mut core, 0, "a", 1, "b"), 200);
    assert!(core.tick(500).is_empty(), "both are over: nobody is left to wake");
    assert_eq!(state(&mut core, 500, "a"), "fulfilled");
}

#[test]
fn an_awaiter_is_told_once_whatever_wakes_it() {
    let mut core = core();
    create(&mut core, 0, "a", 1_000_000);
    acquire(&mut core, 0, "a", 0, 100_000);
    for id in ["b", "c"] {
        apply(&mut core, 0, "promise.create", json!({"id": id, "timeoutAt": 700}));
        let wait = json!({"awaited": id, "awaiter": "a"});
        apply(&mut core, 0, "promise.register_callback", wait);
    }
    assert_eq!(suspend(&mut core, 0, "a", 1, "b"), 200);
    assert_eq!(short(core.tick(700)), ["execute a 1"]);
    let (_, data, _) = apply(&mut core, 700, "task.get", json!({"id": "a"}));
    assert_eq!(data["task"]["resumes"], 2);
}

#[test]
fn listeners_are_told_when_time_settles() {
    let mut core = core();
    apply(&mut core, 0, "promise.create", json!({"id": "p", "timeoutAt": 50}));
    let listen = json!({"awaited": "p", "address": "poll://uni@me/1"});
    apply(&mut core, 0, "promise.register_listener", listen);
    assert_eq!(short(core.tick(50)), ["unblock p me"]);
}

#[test]
fn tasks_without_a_connection_are_remembered_until_one_is_told() {
    let mut core = core();
    create(&mut core, 0, "a", 1_000_000);
    create(&mut core, 0, "b", 1_000_000);
    core.announced("a", Some(7));
    core.announced("b", None);
    assert_eq!(short(core.unanswered(None)), ["execute b 0"]);
    assert_eq!(short(core.unanswered(Some(7))), ["execute a 0"]);
    acquire(&mut core, 0, "a", 0, 100_000);
    assert!(core.unanswered(Some(7)).is_empty(), "it was answered");
}

#[test]
fn too_large_a_lease_is_a_lease_for_ever() {
    let mut core = core();
    create(&mut core, 1_000, "r", i64::MAX);
    assert_eq!(acquire(&mut core, 1_000, "r", 0, i64::MAX), 200);
    assert!(core.tick(i64::MAX - 1).is_empty());
}

/// Random histories: the indexes agree with the promises at every step, and once all is settled and
/// forgotten, nothing whatever is left.
#[test]
fn nothing_leaks() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut core = core();
        let mut now = 0;
        for _ in 0..150 {
            now += random.random_range(0..400);
            let (kind, data) = any_request(&mut random, now);
            apply(&mut core, now, kind, data);
            agree(&core, seed);
        }
        core.tick(now + 100_000);
        core.tick(now + 200_000);
        assert!(core.promises.is_empty(), "seed {seed}");
        assert!(core.branches.is_empty() && core.flows.is_empty(), "seed {seed}");
        assert!(core.timers.is_empty() && core.forget.is_empty(), "seed {seed}");
        assert!(core.pending.is_empty(), "seed {seed}");
    }
}

fn agree(core: &Core, seed: u64) {
    let promises = core.promises.values();
    let armed = promises.clone().filter_map(|promise| promise.task.as_ref()?.timer).count();
    let pending = promises.clone().filter(|promise| promise.is_pending()).count();
    assert_eq!(core.timers.len(), armed + pending, "seed {seed}");
    for (id, promise) in &core.promises {
        assert!(promise.is_pending() || promise.awaiters.is_empty(), "seed {seed}: {id}");
        for awaiter in &promise.awaiters {
            let task = core.task(awaiter).expect("an awaiter has a task");
            assert!(task.waiting.contains(id), "seed {seed}: {awaiter} waits for {id}");
        }
    }
}

fn any_request(random: &mut StdRng, now: i64) -> (&'static str, Value) {
    let ids = ["r", "r.1", "r.2", "s", "s.1"];
    let mut id = || ids.choose(random).copied().unwrap_or_default();
    let (id, other) = (id(), id());
    let version = random.random_range(0..4);
    let settle = json!({"id": id, "state": "resolved"});
    match random.random_range(0..11) {
        0..=2 => {
            let mut tags = json!({"resonate:branch": &other[..1]});
            if random.random_bool(0.8) {
                tags["resonate:target"] = json!("poll://any@g");
            }
            let timeout_at = now + random.random_range(-100..9_000);
            ("promise.create", json!({"id": id, "timeoutAt": timeout_at.max(0), "tags": tags}))
        }
        3 => ("promise.settle", settle),
        4 => ("promise.register_callback", json!({"awaited": id, "awaiter": other})),
        5..=7 => {
            let ttl = random.random_range(1..3_000);
            ("task.acquire", json!({"id": id, "version": version, "pid": "p", "ttl": ttl}))
        }
        8 => {
            let wait = json!({"awaited": other, "awaiter": id});
            let actions = json!([{"kind": "k", "head": {}, "data": wait}]);
            ("task.suspend", json!({"id": id, "version": version, "actions": actions}))
        }
        9 => ("task.release", json!({"id": id, "version": version})),
        _ => {
            let action = json!({"kind": "k", "head": {}, "data": settle});
            ("task.fulfill", json!({"id": id, "version": version, "action": action}))
        }
    }
}
