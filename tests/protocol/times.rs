//! What happens by itself: time-outs, timers, leases, retries. Lower bounds are strict. There are no
//! upper bounds but the deadline of the tests.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::until;

use crate::client::{Context, TIME, held, now, same, task};
use crate::servers::RETRY;

cases![
    a_promise_times_out_and_tells_its_listeners,
    a_promise_past_its_time_is_settled_at_every_look,
    a_timer_resolves_and_wakes_who_sleeps,
    a_time_out_wakes_who_waits,
    a_time_out_ends_the_task,
    an_awaiter_that_times_out_too_is_not_resumed,
    a_lease_expires_and_the_task_is_announced_again,
    who_lost_the_lease_is_fenced,
    heartbeats_keep_a_lease,
    heartbeats_of_others_keep_nothing,
    a_task_nobody_takes_is_announced_again,
    a_resumed_task_nobody_takes_is_announced_again,
];

const SOON: i64 = 1_000;

/// Servers count whole milliseconds, so a wait may be up to one millisecond short.
fn at_least(from: Instant, to: Instant, duration: Duration) -> bool {
    to - from + Duration::from_millis(1) >= duration
}

async fn a_promise_times_out_and_tells_its_listeners(c: Context) {
    let id = c.id("p");
    let mut stream = c.listen("me").await;
    let timeout = now() + SOON;
    c.call("promise.create", json!({"id": id, "timeoutAt": timeout})).await.status(200);
    let listener = json!({"awaited": id, "address": format!("poll://uni@{}/me", c.group())});
    c.call("promise.register_listener", listener).await.status(200);
    let expected = json!({"id": id, "state": "rejected_timedout", "param": {}, "value": {},
        "tags": {}, "timeoutAt": timeout, "createdAt": TIME, "settledAt": timeout});
    stream.unblocks(expected).await;
    assert!(now() >= timeout, "not before its time-out");
    assert_eq!(c.get(&id).await["state"], "rejected_timedout");
}

async fn a_promise_past_its_time_is_settled_at_every_look(c: Context) {
    let (first, second) = (c.id("a"), c.id("b"));
    let timeout = now() + SOON;
    for id in [&first, &second] {
        c.call("promise.create", json!({"id": id, "timeoutAt": timeout})).await.status(200);
    }
    while now() <= timeout {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The first request after the time-out finds it settled, without any background work.
    let promise = c.settle(&first).await.status(200)["promise"].clone();
    assert_eq!(promise["state"], "rejected_timedout");
    assert_eq!(c.get(&second).await["state"], "rejected_timedout");
}

async fn a_timer_resolves_and_wakes_who_sleeps(c: Context) {
    let (id, timer) = (c.id("t"), c.id("timer"));
    let mut stream = c.listen("me").await;
    c.acquired(&id).await;
    stream.executes(&id, 0).await;
    let timeout = now() + SOON;
    let tags = json!({"resonate:timer": "true"});
    let data = json!({"id": timer, "timeoutAt": timeout, "tags": tags});
    c.fence(&id, 1, "promise.create", data).await.status(200);
    c.suspend(&id, 1, &[&timer]).await.is(200, json!({}));
    stream.executes(&id, 1).await;
    assert!(now() >= timeout, "not before its time-out");
    c.task_is(task(&id, "pending", 1, 1)).await;
    let expected = json!({"id": timer, "state": "resolved", "param": {}, "value": {},
        "tags": tags, "timeoutAt": timeout, "createdAt": TIME, "settledAt": timeout});
    same(&expected, &c.get(&timer).await, 0).expect("a timer that has fired");
}

async fn a_time_out_wakes_who_waits(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    c.acquired(&id).await;
    let timeout = now() + SOON;
    c.call("promise.create", json!({"id": awaited, "timeoutAt": timeout})).await.status(200);
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    c.task_becomes(task(&id, "pending", 1, 1)).await;
    assert!(now() >= timeout, "not before its time-out");
}

async fn a_time_out_ends_the_task(c: Context) {
    let id = c.id("t");
    let tags = json!({"resonate:target": c.anycast()});
    let data = json!({"id": id, "timeoutAt": now() + SOON, "tags": tags});
    c.call("promise.create", data).await.status(200);
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
    c.task_becomes(task(&id, "fulfilled", 1, 0)).await;
    c.fulfill(&id, 1).await.refuses(409, "Task version mismatch or invalid state");
    let child = json!({"id": c.id("t.1"), "timeoutAt": c.far()});
    c.fence(&id, 1, "promise.create", child).await.refuses(409, "Version mismatch");
    c.acquire(&id, 1, "pid", 60_000).await.refuses(409, "Task is not pending");
    assert_eq!(c.get(&id).await["state"], "rejected_timedout");
}

async fn an_awaiter_that_times_out_too_is_not_resumed(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    let timeout = now() + SOON;
    let tags = json!({"resonate:target": c.anycast()});
    let data = json!({"id": id, "timeoutAt": timeout, "tags": tags});
    c.call("promise.create", data).await.status(200);
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
    c.call("promise.create", json!({"id": awaited, "timeoutAt": timeout})).await.status(200);
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    c.promise_becomes(&awaited, "rejected_timedout").await;
    c.task_is(task(&id, "fulfilled", 1, 0)).await;
}

async fn a_lease_expires_and_the_task_is_announced_again(c: Context) {
    let id = c.id("t");
    let mut stream = c.listen("me").await;
    c.create_target(&id).await;
    stream.executes(&id, 0).await;
    let before = Instant::now();
    c.acquire(&id, 0, "pid", 800).await.status(200);
    c.task_is(held(&id, 1, 0, "pid", 800)).await;
    let again = stream.executes(&id, 1).await;
    assert!(at_least(before, again, Duration::from_millis(800)), "not before its lease expired");
    // No resumes: only its holder was lost.
    c.task_is(task(&id, "pending", 1, 0)).await;
}

async fn who_lost_the_lease_is_fenced(c: Context) {
    let id = c.id("t");
    c.create_target(&id).await;
    c.acquire(&id, 0, "first", 200).await.status(200);
    c.task_becomes(task(&id, "pending", 1, 0)).await;
    let stale = "Task version mismatch or invalid state";
    c.fulfill(&id, 1).await.refuses(409, stale);
    c.acquire(&id, 1, "second", 60_000).await.status(200);
    c.fulfill(&id, 1).await.refuses(409, stale);
    c.release(&id, 1).await.refuses(409, stale);
    let child = json!({"id": c.id("t.1"), "timeoutAt": c.far()});
    c.fence(&id, 1, "promise.create", child).await.refuses(409, "Version mismatch");
    c.task_is(held(&id, 2, 0, "second", 60_000)).await;
    c.fulfill(&id, 2).await.status(200);
}

async fn heartbeats_keep_a_lease(c: Context) {
    let (id, other) = (c.id("t"), c.id("u"));
    for id in [&id, &other] {
        c.create_target(id).await;
        c.acquire(id, 0, "pid", 1_500).await.status(200);
    }
    let tasks = json!([{"id": id, "version": 1}, {"id": other, "version": 1}]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3_200) {
        let beat = json!({"pid": "pid", "tasks": tasks});
        c.call("task.heartbeat", beat).await.is(200, json!({}));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    c.task_is(held(&id, 1, 0, "pid", 1_500)).await;
    let last = Instant::now();
    c.call("task.heartbeat", json!({"pid": "pid", "tasks": tasks})).await.is(200, json!({}));
    let lost = c.task_becomes(task(&other, "pending", 1, 0)).await;
    assert!(
        at_least(last, lost, Duration::from_millis(1_500)),
        "a whole lease after the last heartbeat"
    );
}

async fn heartbeats_of_others_keep_nothing(c: Context) {
    let id = c.id("t");
    c.create_target(&id).await;
    c.acquire(&id, 0, "pid", 500).await.status(200);
    // Heartbeats of another process or for another version do not extend the lease.
    until(&"", "the end of the lease", async || {
        for (pid, version) in [("other", 1), ("pid", 0), ("pid", 2)] {
            let beat = json!({"pid": pid, "tasks": [{"id": id, "version": version}]});
            c.call("task.heartbeat", beat).await.is(200, json!({}));
        }
        let reply = c.call("task.get", json!({"id": id})).await.status(200);
        (reply["task"] == task(&id, "pending", 1, 0)).then_some(())
    })
    .await;
    // A heartbeat does not reacquire a lost task.
    let beat = json!({"pid": "pid", "tasks": [{"id": id, "version": 1}]});
    c.call("task.heartbeat", beat).await.is(200, json!({}));
    c.task_is(task(&id, "pending", 1, 0)).await;
}

async fn a_task_nobody_takes_is_announced_again(c: Context) {
    let id = c.id("t");
    let mut stream = c.listen("me").await;
    let created = Instant::now();
    c.create_target(&id).await;
    stream.executes(&id, 0).await;
    let second = stream.executes(&id, 0).await;
    assert!(at_least(created, second, RETRY), "not before the retry time-out");
    let third = stream.executes(&id, 0).await;
    assert!(at_least(created, third, 2 * RETRY), "a whole retry time-out later");
    c.task_is(task(&id, "pending", 0, 0)).await;
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
}

async fn a_resumed_task_nobody_takes_is_announced_again(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    c.acquired(&id).await;
    c.create(&awaited, json!({})).await;
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    let mut stream = c.listen("me").await;
    let resumed = Instant::now();
    c.settle(&awaited).await.status(200);
    stream.executes(&id, 1).await;
    let again = stream.executes(&id, 1).await;
    assert!(at_least(resumed, again, RETRY), "not before the retry time-out");
    c.task_is(task(&id, "pending", 1, 1)).await;
}
