//! Fencing: requests of a process that has lost its task have no effect.

use serde_json::{Value, json};
use testkit::resonate::{CORR_ID, VERSION};

use crate::client::{Context, held, settled, task};

cases![
    a_fence_creates_for_the_holder,
    a_fence_settles_for_the_holder,
    every_stale_operation_is_refused,
    a_version_from_the_future_is_refused,
    nobody_holds_a_task_that_is_pending_suspended_or_over,
];

/// The data of the answer to a `task.fence` that was carried out.
fn fenced(kind: &str, status: u16, data: Value) -> Value {
    let head = json!({"corrId": CORR_ID, "status": status, "version": VERSION});
    json!({"action": {"kind": kind, "head": head, "data": data}, "preload": []})
}

async fn a_fence_creates_for_the_holder(c: Context) {
    let (id, child) = (c.id("t"), c.id("t.1"));
    let tags = json!({"resonate:target": c.anycast()});
    let data = json!({"id": child, "timeoutAt": c.far(), "tags": tags});
    c.fence(&id, 1, "promise.create", data.clone()).await.refuses(404, "Task not found");
    c.acquired(&id).await;
    let expected = fenced("promise.create", 200, json!({"promise": c.pending(&child, tags)}));
    let first = c.fence(&id, 1, "promise.create", data.clone()).await.is(200, expected);
    // A repetition changes nothing.
    c.fence(&id, 1, "promise.create", data).await.is(200, first);
    c.task_is(task(&child, "pending", 0, 0)).await;
    // A promise whose time is over is created timed out, as without a fence.
    let late = c.id("t.2");
    let data = json!({"id": late, "timeoutAt": 3, "tags": {"resonate:timer": "true"}});
    c.fence(&id, 1, "promise.create", data).await.status(200);
    assert_eq!(c.get(&late).await["state"], "resolved");
}

async fn a_fence_settles_for_the_holder(c: Context) {
    let (id, child) = (c.id("t"), c.id("t.1"));
    let data = json!({"id": child, "state": "rejected", "value": {"data": "no"}});
    c.fence(&id, 1, "promise.settle", data.clone()).await.refuses(404, "Task not found");
    c.acquired(&id).await;
    let none = fenced("promise.settle", 404, json!("Promise not found"));
    c.fence(&id, 1, "promise.settle", data.clone()).await.is(200, none);
    c.create(&child, json!({})).await;
    let promise = settled(c.pending(&child, json!({})), "rejected", json!({"data": "no"}));
    let expected = fenced("promise.settle", 200, json!({"promise": promise}));
    let first = c.fence(&id, 1, "promise.settle", data).await.is(200, expected);
    let again = json!({"id": child, "state": "resolved"});
    c.fence(&id, 1, "promise.settle", again).await.is(200, first);
}

/// Asserts that everything a holder may do with its task is refused with this version.
async fn all_refused(c: &Context, id: &str, version: i64) {
    let stale = "Task version mismatch or invalid state";
    let other = c.id("other");
    c.create(&other, json!({})).await;
    c.fulfill(id, version).await.refuses(409, stale);
    c.release(id, version).await.refuses(409, stale);
    let suspended = c.suspend(id, version, &[&other]).await;
    suspended.refuses(409, "Task is not acquired or version mismatch");
    let missing = c.suspend(id, version, &[&c.id("missing")]).await;
    missing.refuses(409, "Task is not acquired or version mismatch");
    let create = json!({"id": c.id("made"), "timeoutAt": c.far()});
    c.fence(id, version, "promise.create", create).await.refuses(409, "Version mismatch");
    let settle = json!({"id": other, "state": "resolved"});
    c.fence(id, version, "promise.settle", settle).await.refuses(409, "Version mismatch");
    // Nothing has changed.
    assert_eq!(c.get(id).await["state"], "pending");
    assert_eq!(c.get(&other).await["state"], "pending");
    let made = c.call("promise.get", json!({"id": c.id("made")})).await;
    made.refuses(404, "Promise not found");
}

async fn every_stale_operation_is_refused(c: Context) {
    let id = c.id("t");
    c.acquired(&id).await;
    c.release(&id, 1).await.status(200);
    c.acquire(&id, 1, "next", 60_000).await.status(200);
    all_refused(&c, &id, 1).await;
    c.task_is(held(&id, 2, 0, "next", 60_000)).await;
    c.fulfill(&id, 2).await.status(200);
}

async fn a_version_from_the_future_is_refused(c: Context) {
    let id = c.id("t");
    c.acquired(&id).await;
    all_refused(&c, &id, 2).await;
    c.task_is(held(&id, 1, 0, "pid", 60_000)).await;
}

async fn nobody_holds_a_task_that_is_pending_suspended_or_over(c: Context) {
    let id = c.id("t");
    c.create_target(&id).await;
    all_refused(&c, &id, 0).await;
    c.task_is(task(&id, "pending", 0, 0)).await;

    let awaited = c.id("awaited");
    c.create(&awaited, json!({})).await;
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    all_refused(&c, &id, 1).await;
    c.acquire(&id, 1, "pid", 60_000).await.refuses(409, "Task is not pending");
    c.task_is(task(&id, "suspended", 1, 0)).await;
}
