//! Delivery: which connection receives which message.

use std::collections::HashMap;

use serde_json::{Value, json};
use testkit::DEADLINE;

use crate::client::{Context, Stream, settled};

cases![
    a_new_task_is_announced_to_its_group_alone,
    a_task_goes_to_one_connection_of_many,
    the_preferred_process_gets_the_task,
    any_other_gets_it_if_the_preferred_is_absent,
    unicast_goes_to_its_connection_alone,
    a_created_task_is_not_announced,
    a_released_task_is_announced_again,
    a_listener_gets_the_settled_promise_once,
    each_listener_of_a_promise_is_told,
    a_listener_on_a_settled_promise_gets_only_the_answer,
    listening_to_an_unknown_promise_is_refused,
    a_listener_that_is_not_connected_is_passed_over,
    a_task_announced_to_nobody_comes_with_a_retry,
    a_task_announced_to_the_dead_goes_to_the_living,
];

async fn a_new_task_is_announced_to_its_group_alone(c: Context) {
    let mut stranger = c.listen_in(&format!("{}-other", c.group()), "me").await;
    let mut stream = c.listen("me").await;
    let (first, second) = (c.id("t"), c.id("u"));
    c.create_target(&first).await;
    stream.executes(&first, 0).await;
    // A task that nobody acquires is announced again.
    c.acquire(&first, 0, "me", 60_000).await.status(200);
    let target = format!("{}-other", c.anycast());
    c.create(&second, json!({"resonate:target": target})).await;
    stranger.executes(&second, 0).await;
    assert_eq!(stream.waiting(), None);
}

async fn a_task_goes_to_one_connection_of_many(c: Context) {
    let mut streams = [c.listen("a").await, c.listen("b").await];
    let count = 64;
    for n in 0..count {
        let id = c.id(&format!("t{n}"));
        c.acquired(&id).await;
    }
    let mut seen = HashMap::new();
    let mut each = [0, 0];
    while each[0] + each[1] < count {
        let [a, b] = &mut streams;
        let (which, message) = tokio::select! {
            message = a.next() => (0, message),
            message = b.next() => (1, message),
        };
        each[which] += 1;
        *seen.entry(message["data"]["task"]["id"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), count, "each task arrives once");
    assert!(each[0] > 0 && each[1] > 0, "both connections receive some: {each:?}");
}

async fn the_preferred_process_gets_the_task(c: Context) {
    let mut other = c.listen("other").await;
    let mut preferred = c.listen("preferred").await;
    let mut third = c.listen("third").await;
    for n in 0..16 {
        let id = c.id(&format!("t{n}"));
        let target = format!("{}/preferred", c.anycast());
        c.create(&id, json!({"resonate:target": target})).await;
        preferred.executes(&id, 0).await;
        c.acquire(&id, 0, "pid", 60_000).await.status(200);
    }
    assert_eq!((other.waiting(), third.waiting()), (None, None));
}

async fn any_other_gets_it_if_the_preferred_is_absent(c: Context) {
    let mut other = c.listen("other").await;
    let id = c.id("t");
    c.create(&id, json!({"resonate:target": format!("{}/preferred", c.anycast())})).await;
    other.executes(&id, 0).await;
}

async fn unicast_goes_to_its_connection_alone(c: Context) {
    let mut other = c.listen("other").await;
    let mut mine = c.listen("me").await;
    let target = format!("poll://uni@{}/me", c.group());
    for n in 0..8 {
        let id = c.id(&format!("t{n}"));
        c.create(&id, json!({"resonate:target": target})).await;
        mine.executes(&id, 0).await;
        c.acquire(&id, 0, "pid", 60_000).await.status(200);
    }
    assert_eq!(other.waiting(), None);
}

async fn a_created_task_is_not_announced(c: Context) {
    let mut stream = c.listen("me").await;
    let (first, second) = (c.id("t"), c.id("u"));
    let tags = json!({"resonate:target": c.anycast()});
    let create = json!({"id": first, "timeoutAt": c.far(), "tags": tags});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    let data = json!({"pid": "pid", "ttl": 60_000, "action": action});
    c.call("task.create", data).await.status(200);
    c.create_target(&second).await;
    stream.executes(&second, 0).await;
}

async fn a_released_task_is_announced_again(c: Context) {
    let mut stream = c.listen("me").await;
    let id = c.id("t");
    c.acquired(&id).await;
    stream.executes(&id, 0).await;
    c.release(&id, 1).await.is(200, json!({}));
    stream.executes(&id, 1).await;
}

fn uni(c: &Context, id: &str) -> String {
    format!("poll://uni@{}/{id}", c.group())
}

async fn register(c: &Context, awaited: &str, address: &str) -> Value {
    let data = json!({"awaited": awaited, "address": address});
    c.call("promise.register_listener", data).await.status(200)
}

async fn a_listener_gets_the_settled_promise_once(c: Context) {
    let mut stream = c.listen("me").await;
    let (id, next) = (c.id("p"), c.id("q"));
    let created = c.create(&id, json!({"a": "b"})).await;
    c.create(&next, json!({})).await;
    for _ in 0..2 {
        let data = json!({"awaited": id, "address": uni(&c, "me")});
        c.call("promise.register_listener", data).await.is(200, created.clone());
    }
    let done = c.settle(&id).await.status(200);
    stream.unblocks(done["promise"].clone()).await;
    // Neither the second registration nor a second settlement sends another message.
    c.settle(&id).await.status(200);
    register(&c, &next, &uni(&c, "me")).await;
    c.settle(&next).await.status(200);
    let value = json!({"data": "settled"});
    stream.unblocks(settled(c.pending(&next, json!({})), "resolved", value)).await;
}

async fn each_listener_of_a_promise_is_told(c: Context) {
    let mut streams = [c.listen("a").await, c.listen("b").await];
    let id = c.id("p");
    c.create(&id, json!({})).await;
    register(&c, &id, &uni(&c, "a")).await;
    register(&c, &id, &uni(&c, "b")).await;
    let done = c.settle(&id).await.status(200)["promise"].clone();
    for stream in &mut streams {
        stream.unblocks(done.clone()).await;
    }
}

async fn a_listener_on_a_settled_promise_gets_only_the_answer(c: Context) {
    let mut stream = c.listen("me").await;
    let (id, next) = (c.id("p"), c.id("q"));
    c.create(&id, json!({})).await;
    let done = c.settle(&id).await.status(200);
    assert_eq!(register(&c, &id, &uni(&c, "me")).await, done);
    c.create(&next, json!({})).await;
    register(&c, &next, &uni(&c, "me")).await;
    let done = c.settle(&next).await.status(200);
    stream.unblocks(done["promise"].clone()).await;
}

async fn listening_to_an_unknown_promise_is_refused(c: Context) {
    let data = json!({"awaited": c.id("p"), "address": uni(&c, "me")});
    let reply = c.call("promise.register_listener", data).await;
    reply.refuses(404, "Awaited promise not found");
}

async fn a_listener_that_is_not_connected_is_passed_over(c: Context) {
    let mut other = c.listen("other").await;
    let (id, next) = (c.id("p"), c.id("q"));
    c.create(&id, json!({})).await;
    register(&c, &id, &uni(&c, "me")).await;
    register(&c, &id, &uni(&c, "other")).await;
    let done = c.settle(&id).await.status(200)["promise"].clone();
    // When the other listener has its message, the server has dropped the absent listener's.
    other.unblocks(done).await;
    let mut mine = c.listen("me").await;
    c.create(&next, json!({})).await;
    register(&c, &next, &uni(&c, "me")).await;
    let done = c.settle(&next).await.status(200)["promise"].clone();
    mine.unblocks(done).await;
    assert_eq!(other.waiting(), None);
}

async fn a_task_announced_to_nobody_comes_with_a_retry(c: Context) {
    let id = c.id("t");
    c.create_target(&id).await;
    let mut stream = c.listen("me").await;
    stream.executes(&id, 0).await;
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
}

async fn a_task_announced_to_the_dead_goes_to_the_living(c: Context) {
    let mut doomed = c.listen("doomed").await;
    let id = c.id("t");
    c.create(&id, json!({"resonate:target": format!("{}/doomed", c.anycast())})).await;
    doomed.executes(&id, 0).await;
    let mut living = c.listen("living").await;
    drop(doomed);
    // Until the server notices, it may still choose the dead connection.
    received(&mut living, &id).await;
    c.acquire(&id, 0, "pid", 60_000).await.status(200);
}

/// Waits until an `execute` of this task arrives.
async fn received(stream: &mut Stream, id: &str) {
    let wait = async { while stream.next().await["data"]["task"]["id"] != id {} };
    tokio::time::timeout(DEADLINE, wait).await.expect("the task");
}
