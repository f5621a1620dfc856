//! Runs that wait for their calls in place.

use super::*;

const SUSPEND_AFTER: Duration = Duration::from_millis(50);

fn rig(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> (Arc<Runs>, Scripted) {
    let (runs, server) = super::rig(script);
    let mut runs = Arc::into_inner(runs).unwrap();
    runs.suspend_after = SUSPEND_AFTER;
    (Arc::new(runs), server)
}

/// What the server says about the promise `id`.
fn record(id: &str, state: &str) -> Value {
    json!({"id": id, "state": state, "param": {}, "value": {}, "tags": {}, "timeoutAt": 9_000,
        "createdAt": 1_000})
}

/// A server on which every promise is pending. A call has `history` as its preload.
fn server(history: &Value) -> impl FnMut(&str, &Value) -> Reply + Send + 'static {
    let history = history.clone();
    move |kind, data| match kind {
        "promise.register_listener" => {
            let promise = record(data["awaited"].as_str().unwrap(), "pending");
            Reply::Answer(200, json!({"promise": promise}))
        }
        "task.fence" => {
            let promise = record(data["action"]["data"]["id"].as_str().unwrap(), "pending");
            let action = json!({"kind": "x", "head": {}, "data": {"promise": promise}});
            Reply::Answer(200, json!({"action": action, "preload": history}))
        }
        _ => ok(),
    }
}

/// A run calls: the promise `id` is created.
async fn call(runs: &Runs, id: &str) {
    let create = json!({"id": id, "timeoutAt": 9_000, "param": {},
        "tags": {"resonate:scope": "global"}});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    let fence = json!({"id": "x.0", "version": 1, "action": action});
    runs.exchange(Request::new("task.fence", &fence)).await.unwrap();
}

/// The run suspends, waiting for these promises. Returns the answer's status and preload.
async fn wait_for(runs: &Runs, ids: &[&str]) -> (u16, Value) {
    let callback = |id: &&str| {
        let data = RegisterCallback { awaited: (*id).to_owned().into(), awaiter: "x.0".into() };
        Action { kind: "promise.register_callback".into(), head: None, data }
    };
    let actions = ids.iter().map(callback).collect();
    let suspend = TaskSuspend { id: "x.0".into(), version: 1, actions };
    let answer = runs.exchange(Request::new("task.suspend", &suspend)).await.unwrap();
    let status = answer.status();
    let mut whole: Value = serde_json::from_str(&answer.into_text()).unwrap();
    (status, whole["data"]["preload"].take())
}

fn settle_soon(runs: &Arc<Runs>, id: &'static str) {
    let runs = runs.clone();
    tokio::spawn(async move {
        sleep(SUSPEND_AFTER / 2).await;
        let text = record(id, "resolved").to_string();
        runs.settlements.settled(&serde_json::from_str(&text).unwrap());
    });
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_answered_soon_needs_neither_suspend_nor_acquire() {
    let steps = json!([record("x.0.0", "resolved"), record("x.0.1", "pending")]);
    let (runs, server) = rig(server(&steps));
    hold(&runs);
    call(&runs, "x.0.2").await;
    settle_soon(&runs, "x.0.2");
    let (status, preload) = wait_for(&runs, &["x.0.2"]).await;
    assert_eq!(status, 300);
    // A step that was pending then may be settled now.
    assert_eq!(preload, json!([record("x.0.0", "resolved"), record("x.0.2", "resolved")]));
    assert_eq!(server.kinds(), ["task.fence", "promise.register_listener"]);
    assert_eq!(server.seen()[1].1["address"], "poll://uni@g/me");
    assert_eq!(runs.leases.version("x.0"), Some(1), "the run continues");

    runs.leases.end("x.0", 1);
    assert_eq!(runs.settlements.ids(), [""; 0], "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn of_two_calls_the_other_is_waited_for_without_another_request() {
    let (runs, server) = rig(server(&json!([])));
    hold(&runs);
    settle_soon(&runs, "x.0.1");
    let (_, preload) = wait_for(&runs, &["x.0.0", "x.0.1"]).await;
    assert_eq!(preload, json!([record("x.0.0", "pending"), record("x.0.1", "resolved")]));
    // It is settled before the body has come to wait for it again.
    let text = record("x.0.0", "resolved").to_string();
    runs.settlements.settled(&serde_json::from_str(&text).unwrap());
    let (_, preload) = wait_for(&runs, &["x.0.0"]).await;
    assert_eq!(preload, json!([record("x.0.0", "resolved"), record("x.0.1", "resolved")]));
    assert_eq!(server.kinds(), ["promise.register_listener"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_longer_suspends_its_task() {
    let (runs, server) = rig(server(&json!([])));
    hold(&runs);
    let start = Instant::now();
    assert_eq!(wait_for(&runs, &["x.0.0"]).await.0, 200);
    assert_eq!(start.elapsed(), SUSPEND_AFTER);
    assert_eq!(server.kinds(), ["promise.register_listener", "task.suspend"]);
    assert_eq!((runs.leases.all(), runs.settlements.ids()), (vec![], vec![]));
}

/// It is suspended without a delay: by a timer that is due later, a drain, a server that does not
/// answer, a long history.
#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_go_on_soon_is_suspended_at_once() {
    let timer = || {
        rig(|kind, _| match kind {
            "promise.register_listener" => {
                let mut timer = record("x.0.0", "pending");
                timer["tags"] = json!({"resonate:timer": "true"});
                timer["timeoutAt"] = i64::MAX.into();
                Reply::Answer(200, json!({"promise": timer}))
            }
            _ => ok(),
        })
    };
    let lost = || {
        rig(|kind, _| match kind {
            "promise.register_listener" => Reply::Lost,
            _ => ok(),
        })
    };
    let long = || rig(server(&json!([record(&"x".repeat(64 << 10), "resolved")])));
    let draining = || {
        let rig = rig(server(&json!([])));
        rig.0.draining.send_replace(true);
        rig
    };
    for (name, (runs, server)) in
        [("timer", timer()), ("lost", lost()), ("long", long()), ("draining", draining())]
    {
        hold(&runs);
        if name == "long" {
            call(&runs, "x.0.0").await;
        }
        let start = Instant::now();
        assert_eq!(wait_for(&runs, &["x.0.0"]).await.0, 200, "{name}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{name}");
        assert_eq!(server.kinds().pop().unwrap(), "task.suspend", "{name}");
    }
}

/// The lease ended while this process was frozen: the server must tell whether the task is still its.
#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_has_ended_does_not_continue_in_place() {
    let (runs, server) = rig(server(&json!([])));
    runs.leases.begin("x.0", 1, Instant::now(), SUSPEND_AFTER / 4);
    settle_soon(&runs, "x.0.0");
    assert_eq!(wait_for(&runs, &["x.0.0"]).await.0, 200);
    assert_eq!(server.kinds(), ["promise.register_listener", "task.suspend"]);
}
