//! Waiting: suspension, callbacks, resumes.

use serde_json::json;

use crate::client::{Context, held, settled, task};

cases![
    a_suspended_task_resumes_when_its_promise_settles,
    suspending_on_a_settled_promise_goes_on_at_once,
    suspending_on_an_unknown_promise_is_refused,
    one_of_many_is_enough_and_the_others_are_counted,
    suspending_again_forgets_what_was_ready,
    suspending_twice_on_the_same_is_once,
    a_callback_resumes_a_suspended_task,
    a_callback_on_a_settled_promise_resumes_at_once,
    a_callback_for_a_running_task_is_counted,
    a_callback_for_a_task_that_is_over_does_nothing,
    callbacks_need_both_promises_and_a_target,
    a_settled_awaiter_is_not_resumed,
    a_chain_of_waits_resumes_link_by_link,
];

async fn a_suspended_task_resumes_when_its_promise_settles(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    let mut stream = c.listen("me").await;
    c.suspend(&id, 1, &[&awaited]).await.refuses(404, "Task not found");
    c.acquired(&id).await;
    stream.executes(&id, 0).await;
    c.create(&awaited, json!({})).await;
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    c.task_is(task(&id, "suspended", 1, 0)).await;
    c.settle(&awaited).await.status(200);
    // The version is unchanged: only an acquisition increments it.
    stream.executes(&id, 1).await;
    c.task_is(task(&id, "pending", 1, 1)).await;
    let reply = c.acquire(&id, 1, "pid", 60_000).await.status(200);
    assert_eq!(reply["task"], held(&id, 2, 0, "pid", 60_000));
    c.task_is(held(&id, 2, 0, "pid", 60_000)).await;
}

async fn suspending_on_a_settled_promise_goes_on_at_once(c: Context) {
    let (id, settled_one, pending) = (c.id("t"), c.id("a"), c.id("b"));
    c.acquired(&id).await;
    c.create(&settled_one, json!({})).await;
    c.create(&pending, json!({})).await;
    c.settle(&settled_one).await.status(200);
    c.suspend(&id, 1, &[&settled_one]).await.is(300, json!({"preload": []}));
    c.suspend(&id, 1, &[&pending, &settled_one]).await.is(300, json!({"preload": []}));
    c.task_is(held(&id, 1, 0, "pid", 60_000)).await;
    // It does not wait for the pending promise either.
    c.settle(&pending).await.status(200);
    c.task_is(held(&id, 1, 0, "pid", 60_000)).await;
}

async fn suspending_on_an_unknown_promise_is_refused(c: Context) {
    let (id, known) = (c.id("t"), c.id("a"));
    c.acquired(&id).await;
    c.create(&known, json!({})).await;
    let reason = "Awaited promise not found";
    c.suspend(&id, 1, &[&c.id("nobody")]).await.refuses(422, reason);
    c.suspend(&id, 1, &[&known, &c.id("nobody")]).await.refuses(422, reason);
    c.settle(&known).await.status(200);
    c.suspend(&id, 1, &[&known, &c.id("nobody")]).await.refuses(422, reason);
    c.task_is(held(&id, 1, 0, "pid", 60_000)).await;
}

async fn one_of_many_is_enough_and_the_others_are_counted(c: Context) {
    let id = c.id("t");
    let awaited = [c.id("a"), c.id("b"), c.id("d")];
    c.acquired(&id).await;
    for one in &awaited {
        c.create(one, json!({})).await;
    }
    c.suspend(&id, 1, &[&awaited[0], &awaited[1], &awaited[2]]).await.is(200, json!({}));
    c.settle(&awaited[1]).await.status(200);
    c.task_is(task(&id, "pending", 1, 1)).await;
    c.settle(&awaited[0]).await.status(200);
    c.task_is(task(&id, "pending", 1, 2)).await;
    c.acquire(&id, 1, "pid", 60_000).await.status(200);
    c.task_is(held(&id, 2, 0, "pid", 60_000)).await;
    // The last promise is settled while the task is held.
    c.settle(&awaited[2]).await.status(200);
    c.task_is(held(&id, 2, 1, "pid", 60_000)).await;
    c.release(&id, 2).await.status(200);
    c.task_is(task(&id, "pending", 2, 1)).await;
}

async fn suspending_again_forgets_what_was_ready(c: Context) {
    let (id, first, second, third) = (c.id("t"), c.id("a"), c.id("b"), c.id("d"));
    c.acquired(&id).await;
    for one in [&first, &second, &third] {
        c.create(one, json!({})).await;
    }
    c.suspend(&id, 1, &[&first, &second]).await.is(200, json!({}));
    c.settle(&first).await.status(200);
    c.acquire(&id, 1, "pid", 60_000).await.status(200);
    c.settle(&second).await.status(200);
    c.task_is(held(&id, 2, 1, "pid", 60_000)).await;
    c.suspend(&id, 2, &[&third]).await.is(200, json!({}));
    c.task_is(task(&id, "suspended", 2, 0)).await;
    c.settle(&third).await.status(200);
    c.task_is(task(&id, "pending", 2, 1)).await;
}

async fn suspending_twice_on_the_same_is_once(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    c.acquired(&id).await;
    c.create(&awaited, json!({})).await;
    c.suspend(&id, 1, &[&awaited, &awaited]).await.is(200, json!({}));
    c.settle(&awaited).await.status(200);
    c.task_is(task(&id, "pending", 1, 1)).await;
}

async fn a_callback_resumes_a_suspended_task(c: Context) {
    let (id, first, second) = (c.id("t"), c.id("a"), c.id("b"));
    c.acquired(&id).await;
    c.create(&first, json!({})).await;
    let created = c.create(&second, json!({})).await;
    c.suspend(&id, 1, &[&first]).await.is(200, json!({}));
    let callback = json!({"awaited": second, "awaiter": id});
    c.call("promise.register_callback", callback.clone()).await.is(200, created.clone());
    c.call("promise.register_callback", callback).await.is(200, created);
    c.task_is(task(&id, "suspended", 1, 0)).await;
    c.settle(&second).await.status(200);
    c.task_is(task(&id, "pending", 1, 1)).await;
}

async fn a_callback_on_a_settled_promise_resumes_at_once(c: Context) {
    let (id, first, second) = (c.id("t"), c.id("a"), c.id("b"));
    let mut stream = c.listen("me").await;
    c.acquired(&id).await;
    stream.executes(&id, 0).await;
    c.create(&first, json!({})).await;
    c.create(&second, json!({})).await;
    c.suspend(&id, 1, &[&first]).await.is(200, json!({}));
    let done = c.settle(&second).await.status(200);
    let callback = json!({"awaited": second, "awaiter": id});
    c.call("promise.register_callback", callback).await.is(200, done);
    c.task_is(task(&id, "pending", 1, 1)).await;
    stream.executes(&id, 1).await;
}

async fn a_callback_for_a_running_task_is_counted(c: Context) {
    let (id, before, after) = (c.id("t"), c.id("a"), c.id("b"));
    c.acquired(&id).await;
    c.create(&before, json!({})).await;
    c.create(&after, json!({})).await;
    c.settle(&before).await.status(200);
    for awaited in [&before, &after] {
        let callback = json!({"awaited": awaited, "awaiter": id});
        c.call("promise.register_callback", callback).await.status(200);
    }
    c.task_is(held(&id, 1, 1, "pid", 60_000)).await;
    c.settle(&after).await.status(200);
    c.task_is(held(&id, 1, 2, "pid", 60_000)).await;
    c.suspend(&id, 1, &[&before]).await.is(300, json!({"preload": []}));
    c.task_is(held(&id, 1, 0, "pid", 60_000)).await;
}

async fn a_callback_for_a_task_that_is_over_does_nothing(c: Context) {
    let (id, pending, over) = (c.id("t"), c.id("a"), c.id("b"));
    c.acquired(&id).await;
    c.fulfill(&id, 1).await.status(200);
    let created = c.create(&pending, json!({})).await;
    let callback = json!({"awaited": pending, "awaiter": id});
    c.call("promise.register_callback", callback).await.is(200, created);
    c.create(&over, json!({})).await;
    let done = c.settle(&over).await.status(200);
    let callback = json!({"awaited": over, "awaiter": id});
    c.call("promise.register_callback", callback).await.is(200, done);
    c.settle(&pending).await.status(200);
    c.task_is(task(&id, "fulfilled", 1, 0)).await;
}

async fn callbacks_need_both_promises_and_a_target(c: Context) {
    let (known, plain) = (c.id("a"), c.id("plain"));
    let call = async |awaited: &str, awaiter: &str| {
        let callback = json!({"awaited": awaited, "awaiter": awaiter});
        c.call("promise.register_callback", callback).await
    };
    let nobody = c.id("nobody");
    call(&nobody, &known).await.refuses(404, "Awaited promise not found");
    c.create(&known, json!({})).await;
    c.create(&plain, json!({})).await;
    call(&nobody, &known).await.refuses(404, "Awaited promise not found");
    call(&known, &nobody).await.refuses(422, "Awaiter promise not found");
    let no_target = "Awaiter promise has no resonate:target tag";
    call(&known, &plain).await.refuses(422, no_target);
    c.settle(&known).await.status(200);
    call(&known, &plain).await.refuses(422, no_target);
    call(&known, &nobody).await.refuses(422, "Awaiter promise not found");
}

async fn a_settled_awaiter_is_not_resumed(c: Context) {
    let (id, awaited) = (c.id("t"), c.id("a"));
    let mut stream = c.listen("me").await;
    c.acquired(&id).await;
    stream.executes(&id, 0).await;
    c.create(&awaited, json!({})).await;
    c.suspend(&id, 1, &[&awaited]).await.is(200, json!({}));
    c.settle(&id).await.status(200);
    c.settle(&awaited).await.status(200);
    c.task_is(task(&id, "fulfilled", 1, 0)).await;
    // No message was sent for it: the next one is about another task.
    let next = c.id("next");
    c.create_target(&next).await;
    stream.executes(&next, 0).await;
}

async fn a_chain_of_waits_resumes_link_by_link(c: Context) {
    let chain = [c.id("a"), c.id("b"), c.id("d")];
    for id in &chain {
        c.acquired(id).await;
    }
    c.suspend(&chain[0], 1, &[&chain[1]]).await.is(200, json!({}));
    c.suspend(&chain[1], 1, &[&chain[2]]).await.is(200, json!({}));
    let tags = json!({"resonate:target": c.anycast()});
    let done = settled(c.pending(&chain[2], tags), "resolved", json!({"data": "done"}));
    c.fulfill(&chain[2], 1).await.is(200, json!({"promise": done}));
    c.task_is(task(&chain[1], "pending", 1, 1)).await;
    c.task_is(task(&chain[0], "suspended", 1, 0)).await;
    c.acquire(&chain[1], 1, "pid", 60_000).await.status(200);
    c.fulfill(&chain[1], 2).await.status(200);
    c.task_is(task(&chain[0], "pending", 1, 1)).await;
}
