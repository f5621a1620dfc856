//! Tasks: create, acquire, release, fulfill, and the preload.

use serde_json::{Value, json};

use crate::client::{Context, held, settled, task};

cases![
    a_created_task_is_acquired,
    creating_a_pending_task_acquires_it,
    creating_a_held_or_suspended_task_is_refused,
    creating_a_fulfilled_task_gives_its_promise,
    creating_a_task_on_a_promise_without_one_is_refused,
    a_task_created_late_is_fulfilled,
    acquiring_raises_the_version_and_answers_with_the_promise,
    a_released_task_can_be_acquired_again,
    fulfilling_settles_the_promise,
    the_preload_is_the_branch_in_order,
    without_a_branch_there_is_no_preload,
];

fn create_data(id: &str, tags: &Value, timeout_at: i64) -> Value {
    let create = json!({"id": id, "timeoutAt": timeout_at, "param": {"data": "x"}, "tags": tags});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    json!({"pid": "pid", "ttl": 60_000, "action": action})
}

async fn a_created_task_is_acquired(c: Context) {
    let id = c.id("t");
    let tags = json!({"resonate:target": c.anycast()});
    let mut promise = c.pending(&id, tags.clone());
    promise["param"] = json!({"data": "x"});
    let task = held(&id, 1, 0, "pid", 60_000);
    let reply = c.call("task.create", create_data(&id, &tags, c.far())).await;
    reply.is(200, json!({"task": task, "promise": promise, "preload": []}));
    c.task_is(task).await;
}

async fn creating_a_pending_task_acquires_it(c: Context) {
    let id = c.id("t");
    let tags = json!({"resonate:target": c.anycast()});
    let created = c.create(&id, tags.clone()).await;
    let reply = c.call("task.create", create_data(&id, &tags, c.far())).await;
    let task = held(&id, 1, 0, "pid", 60_000);
    reply.is(200, json!({"task": task, "promise": created["promise"], "preload": []}));
    c.release(&id, 1).await.status(200);
    let reply = c.call("task.create", create_data(&id, &tags, c.far())).await;
    let task = held(&id, 2, 0, "pid", 60_000);
    reply.is(200, json!({"task": task, "promise": created["promise"], "preload": []}));
}

async fn creating_a_held_or_suspended_task_is_refused(c: Context) {
    let (id, other) = (c.id("t"), c.id("other"));
    let data = create_data(&id, &json!({"resonate:target": c.anycast()}), c.far());
    c.acquired(&id).await;
    c.call("task.create", data.clone()).await.refuses(409, "Already exists");
    c.create(&other, json!({})).await;
    c.suspend(&id, 1, &[&other]).await.is(200, json!({}));
    c.call("task.create", data).await.refuses(409, "Already exists");
    c.task_is(task(&id, "suspended", 1, 0)).await;
}

async fn creating_a_fulfilled_task_gives_its_promise(c: Context) {
    let id = c.id("t");
    let tags = json!({"resonate:target": c.anycast()});
    c.acquired(&id).await;
    let done = c.fulfill(&id, 1).await.status(200);
    let reply = c.call("task.create", create_data(&id, &tags, c.far())).await;
    let task = task(&id, "fulfilled", 1, 0);
    reply.is(200, json!({"task": task, "promise": done["promise"], "preload": []}));
}

async fn creating_a_task_on_a_promise_without_one_is_refused(c: Context) {
    let id = c.id("t");
    c.create(&id, json!({})).await;
    let data = create_data(&id, &json!({"resonate:target": c.anycast()}), c.far());
    let reason = "Promise exists without a target task";
    c.call("task.create", data.clone()).await.refuses(422, reason);
    c.settle(&id).await.status(200);
    c.call("task.create", data).await.refuses(422, reason);
}

async fn a_task_created_late_is_fulfilled(c: Context) {
    let id = c.id("t");
    let tags = json!({"resonate:target": c.anycast()});
    let promise = json!({"id": id, "state": "rejected_timedout", "param": {"data": "x"},
        "value": {}, "tags": tags, "timeoutAt": 7, "createdAt": 7, "settledAt": 7});
    let reply = c.call("task.create", create_data(&id, &tags, 7)).await;
    let task = task(&id, "fulfilled", 0, 0);
    reply.is(200, json!({"task": task, "promise": promise, "preload": []}));
}

async fn acquiring_raises_the_version_and_answers_with_the_promise(c: Context) {
    let id = c.id("t");
    c.acquire(&id, 0, "pid", 1000).await.refuses(404, "Task not found");
    let tags = json!({"resonate:target": c.anycast()});
    let created = c.create(&id, tags).await;
    c.acquire(&id, 1, "pid", 60_000).await.refuses(409, "Version mismatch");
    let task = held(&id, 1, 0, "me", 60_000);
    let reply = c.acquire(&id, 0, "me", 60_000).await;
    reply.is(200, json!({"task": task, "promise": created["promise"], "preload": []}));
    c.task_is(task).await;
    // It cannot be acquired twice, neither with the old version nor with the new one.
    c.acquire(&id, 0, "me", 60_000).await.refuses(409, "Task is not pending");
    c.acquire(&id, 1, "other", 60_000).await.refuses(409, "Task is not pending");
    // A promise without a target has no task.
    let plain = c.id("plain");
    c.create(&plain, json!({})).await;
    c.acquire(&plain, 0, "pid", 1000).await.refuses(404, "Task not found");
}

async fn a_released_task_can_be_acquired_again(c: Context) {
    let id = c.id("t");
    c.release(&id, 1).await.refuses(404, "Task not found");
    c.acquired(&id).await;
    c.release(&id, 1).await.is(200, json!({}));
    c.task_is(task(&id, "pending", 1, 0)).await;
    c.release(&id, 1).await.refuses(409, "Task version mismatch or invalid state");
    c.acquire(&id, 0, "pid", 60_000).await.refuses(409, "Version mismatch");
    c.acquire(&id, 1, "next", 60_000).await.status(200);
    c.task_is(held(&id, 2, 0, "next", 60_000)).await;
}

async fn fulfilling_settles_the_promise(c: Context) {
    let id = c.id("t");
    let stale = "Task version mismatch or invalid state";
    c.fulfill(&id, 1).await.refuses(404, "Task not found");
    c.acquired(&id).await;
    let tags = json!({"resonate:target": c.anycast()});
    let promise = settled(c.pending(&id, tags), "resolved", json!({"data": "done"}));
    let done = c.fulfill(&id, 1).await.is(200, json!({"promise": promise}));
    c.call("promise.get", json!({"id": id})).await.is(200, done.clone());
    c.task_is(task(&id, "fulfilled", 1, 0)).await;
    c.fulfill(&id, 1).await.refuses(409, stale);
    c.release(&id, 1).await.refuses(409, stale);
    c.settle(&id).await.is(200, done);
}

async fn the_preload_is_the_branch_in_order(c: Context) {
    let root = c.id("r");
    let branch = json!({"resonate:branch": root});
    let tags = json!({"resonate:branch": root, "resonate:target": c.anycast()});
    let created = c.create(&root, tags.clone()).await;
    let (one, two, ten) = (c.id("r.1"), c.id("r.2"), c.id("r.10"));
    for id in [&two, &one, &ten] {
        c.create(id, branch.clone()).await;
    }
    c.settle(&two).await.status(200);
    c.create(&c.id("r.3"), json!({"resonate:branch": c.id("other")})).await;
    let value = json!({"data": "settled"});
    let preload = json!([
        c.pending(&one, branch.clone()),
        c.pending(&ten, branch.clone()),
        settled(c.pending(&two, branch.clone()), "resolved", value),
    ]);
    let expected =
        |task: Value| json!({"task": task, "promise": created["promise"], "preload": preload});
    let reply = c.acquire(&root, 0, "pid", 60_000).await;
    reply.is(200, expected(held(&root, 1, 0, "pid", 60_000)));
    c.release(&root, 1).await.status(200);
    let reply = c.call("task.create", create_data(&root, &tags, c.far())).await;
    reply.is(200, expected(held(&root, 2, 0, "pid", 60_000)));
    // The answers to a fence, and to a suspension that need not wait, have a preload too.
    let id = c.id("r.4");
    let data = json!({"id": id, "timeoutAt": c.far(), "tags": branch});
    let reply = c.fence(&root, 2, "promise.create", data).await.status(200);
    let ids = |preload: &Value| -> Vec<String> {
        let preload = preload.as_array().expect("a preload");
        preload.iter().map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(ids(&reply["preload"]), [&*one, &*ten, &*two, &*id]);
    let reply = c.suspend(&root, 2, &[&two]).await.status(300);
    assert_eq!(ids(&reply["preload"]), [&*one, &*ten, &*two, &*id]);
}

async fn without_a_branch_there_is_no_preload(c: Context) {
    let (root, child) = (c.id("r"), c.id("r.1"));
    c.create_target(&root).await;
    c.create(&child, json!({"resonate:branch": root})).await;
    let reply = c.acquire(&root, 0, "pid", 60_000).await.status(200);
    assert_eq!(reply["preload"], json!([]));
}
