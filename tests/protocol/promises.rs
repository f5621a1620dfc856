//! Promises on their own: create, get, settle, search.

use serde_json::{Value, json};

use crate::client::{Context, settled, task};

cases![
    a_created_promise_is_stored_whole,
    creating_again_changes_nothing,
    a_promise_created_late_has_timed_out,
    a_timer_created_late_is_resolved,
    a_target_makes_a_task,
    a_target_created_late_has_a_fulfilled_task,
    an_unknown_promise_is_not_found,
    settling_ends_a_promise_once,
    settling_fulfills_the_task,
    searches_filter_and_page,
    task_searches_filter_and_page,
];

async fn a_created_promise_is_stored_whole(c: Context) {
    let id = c.id("p \"quoted\" ü");
    let param = json!({"headers": {"h": "1", "ü": "\n"}, "data": "ZGF0YQ=="});
    let tags = json!({"a": "1", "resonate:origin": "o", "resonate:branch": "b\\"});
    let data = json!({"id": id, "timeoutAt": i64::MAX, "param": param, "tags": tags});
    let mut expected = c.pending(&id, tags);
    expected["param"] = param;
    expected["timeoutAt"] = i64::MAX.into();
    let created = c.call("promise.create", data).await.is(200, json!({"promise": expected}));
    c.call("promise.get", json!({"id": id})).await.is(200, created);

    // Empty differs from absent, null does not, and unknown fields are dropped.
    let id = c.id("q");
    let param = json!({"headers": {}, "data": null, "more": 1});
    let data = json!({"id": id, "timeoutAt": c.far(), "param": param, "more": 1});
    let mut expected = c.pending(&id, json!({}));
    expected["param"] = json!({"headers": {}});
    c.call("promise.create", data).await.is(200, json!({"promise": expected}));
}

async fn creating_again_changes_nothing(c: Context) {
    let id = c.id("p");
    let created = c.create(&id, json!({"a": "1"})).await;
    let again = json!({"id": id, "timeoutAt": 1, "param": {"data": "x"}, "tags": {"b": "2"}});
    c.call("promise.create", again.clone()).await.is(200, created);
    let done = c.settle(&id).await.status(200);
    c.call("promise.create", again).await.is(200, done);
    // A target that is added later makes no task.
    let target = json!({"resonate:target": c.anycast()});
    let again = json!({"id": id, "timeoutAt": c.far(), "tags": target});
    c.call("promise.create", again).await.status(200);
    c.call("task.get", json!({"id": id})).await.refuses(404, "Task not found");
}

async fn a_promise_created_late_has_timed_out(c: Context) {
    let id = c.id("p");
    let expected = json!({"id": id, "state": "rejected_timedout", "param": {}, "value": {},
        "tags": {}, "timeoutAt": 5, "createdAt": 5, "settledAt": 5});
    let reply = c.call("promise.create", json!({"id": id, "timeoutAt": 5})).await;
    let data = reply.is(200, json!({"promise": expected}));
    c.settle(&id).await.is(200, data);
}

async fn a_timer_created_late_is_resolved(c: Context) {
    let id = c.id("p");
    let tags = json!({"resonate:timer": "true"});
    let expected = json!({"id": id, "state": "resolved", "param": {}, "value": {},
        "tags": tags, "timeoutAt": 0, "createdAt": 0, "settledAt": 0});
    let data = json!({"id": id, "timeoutAt": 0, "tags": tags});
    c.call("promise.create", data).await.is(200, json!({"promise": expected}));
    // Only the value `true` makes a timer.
    let id = c.id("q");
    let data = json!({"id": id, "timeoutAt": 0, "tags": {"resonate:timer": "TRUE"}});
    let promise = c.call("promise.create", data).await.status(200)["promise"].clone();
    assert_eq!(promise["state"], "rejected_timedout");
}

async fn a_target_makes_a_task(c: Context) {
    let id = c.id("p");
    c.create_target(&id).await;
    c.task_is(task(&id, "pending", 0, 0)).await;
    let id = c.id("plain");
    c.create(&id, json!({})).await;
    c.call("task.get", json!({"id": id})).await.refuses(404, "Task not found");
}

async fn a_target_created_late_has_a_fulfilled_task(c: Context) {
    let id = c.id("p");
    let tags = json!({"resonate:target": c.anycast()});
    c.call("promise.create", json!({"id": id, "timeoutAt": 1, "tags": tags})).await.status(200);
    c.task_is(task(&id, "fulfilled", 0, 0)).await;
    c.acquire(&id, 0, "pid", 1000).await.refuses(409, "Task is not pending");
}

async fn an_unknown_promise_is_not_found(c: Context) {
    let id = c.id("p");
    c.call("promise.get", json!({"id": id})).await.refuses(404, "Promise not found");
    c.settle(&id).await.refuses(404, "Promise not found");
}

async fn settling_ends_a_promise_once(c: Context) {
    for state in ["resolved", "rejected", "rejected_canceled"] {
        let id = c.id(state);
        c.create(&id, json!({})).await;
        let value = json!({"headers": {"h": "v"}, "data": "x"});
        let data = json!({"id": id, "state": state, "value": value});
        let expected = settled(c.pending(&id, json!({})), state, value);
        let done = c.call("promise.settle", data).await.is(200, json!({"promise": expected}));
        // The first settlement is final.
        let again = json!({"id": id, "state": "rejected", "value": {"data": "other"}});
        c.call("promise.settle", again).await.is(200, done.clone());
        c.call("promise.get", json!({"id": id})).await.is(200, done);
    }
    let id = c.id("no-value");
    c.create(&id, json!({})).await;
    let expected = settled(c.pending(&id, json!({})), "resolved", json!({}));
    let reply = c.call("promise.settle", json!({"id": id, "state": "resolved"})).await;
    reply.is(200, json!({"promise": expected}));
}

async fn settling_fulfills_the_task(c: Context) {
    let id = c.id("pending");
    c.create_target(&id).await;
    c.settle(&id).await.status(200);
    c.task_is(task(&id, "fulfilled", 0, 0)).await;
    c.acquire(&id, 0, "pid", 1000).await.refuses(409, "Task is not pending");

    let id = c.id("held");
    c.acquired(&id).await;
    c.settle(&id).await.status(200);
    c.task_is(task(&id, "fulfilled", 1, 0)).await;
    c.fulfill(&id, 1).await.refuses(409, "Task version mismatch or invalid state");
}

async fn searches_filter_and_page(c: Context) {
    let mine = json!({"mine": c.id("mark")});
    let ids: Vec<String> = (0..5).map(|n| c.id(&format!("p{n}"))).collect();
    for id in ids.iter().rev() {
        c.create(id, json!({"mine": c.id("mark"), "name": id})).await;
    }
    c.settle(&ids[3]).await.status(200);
    let found = async |query: Value| {
        let data = c.call("promise.search", query).await.status(200);
        let promises = data["promises"].as_array().expect("promises").clone();
        let ids = promises.iter().map(|promise| promise["id"].as_str().unwrap_or_default());
        (ids.map(str::to_owned).collect::<Vec<_>>(), data["cursor"].clone())
    };
    assert_eq!(found(json!({"tags": mine})).await, (ids.clone(), Value::Null));
    let settled = found(json!({"tags": mine, "state": "resolved"})).await;
    assert_eq!(settled, (vec![ids[3].clone()], Value::Null));
    let both = json!({"mine": c.id("mark"), "name": ids[1]});
    assert_eq!(found(json!({"tags": both})).await, (vec![ids[1].clone()], Value::Null));
    let first = found(json!({"tags": mine, "limit": 2})).await;
    assert_eq!(first, (ids[..2].to_vec(), json!(ids[1])));
    let next = found(json!({"tags": mine, "limit": 2, "cursor": ids[1]})).await;
    assert_eq!(next, (ids[2..4].to_vec(), json!(ids[3])));
    let last = found(json!({"tags": mine, "limit": 2, "cursor": ids[3]})).await;
    assert_eq!(last, (ids[4..].to_vec(), Value::Null));

    let one = json!({"tags": {"name": ids[0]}});
    let tags = json!({"mine": c.id("mark"), "name": ids[0]});
    c.call("promise.search", one).await.is(200, json!({"promises": [c.pending(&ids[0], tags)]}));
    let none = json!({"tags": {"mine": "nobody"}});
    c.call("promise.search", none).await.is(200, json!({"promises": []}));
}

async fn task_searches_filter_and_page(c: Context) {
    // The cursor skips the tasks of other cases, whose ids sort before it.
    let ids: Vec<String> = (0..3).map(|n| c.id(&format!("t{n}"))).collect();
    for id in &ids {
        c.create_target(id).await;
    }
    let before = c.id("t");
    let query = json!({"state": "pending", "cursor": before, "limit": 2});
    let tasks = [task(&ids[0], "pending", 0, 0), task(&ids[1], "pending", 0, 0)];
    let expected = json!({"tasks": tasks, "cursor": ids[1]});
    c.call("task.search", query).await.is(200, expected);
    c.call("task.search", json!({"state": "halted"})).await.is(200, json!({"tasks": []}));
}
