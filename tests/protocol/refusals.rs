//! Data that breaks a rule, operation by operation, whatever the state of the server.

use serde_json::{Value, json};

use crate::client::Context;

cases![
    get_needs_an_id,
    promise_create_keeps_its_rules,
    promise_settle_keeps_its_rules,
    register_callback_keeps_its_rules,
    register_listener_keeps_its_rules,
    searches_keep_their_rules,
    task_create_keeps_its_rules,
    task_acquire_and_release_keep_their_rules,
    task_fulfill_keeps_its_rules,
    task_suspend_keeps_its_rules,
    task_fence_keeps_its_rules,
    task_heartbeat_keeps_its_rules,
];

/// Asserts that `base` with each change (path, value, reason) is refused with the reason. The value
/// null removes the field.
async fn each(c: &Context, kind: &str, base: &Value, changes: &[(&str, Value, &str)]) {
    for (path, value, reason) in changes {
        let mut data = base.clone();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let object = data.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        if value.is_null() {
            object.remove(field);
        } else {
            object.insert(field.to_owned(), value.clone());
        }
        c.call(kind, data).await.refuses(400, reason);
    }
}

const NO_TASK: &str = "Task ID is required";
const NO_PROMISE: &str = "Promise ID is required";
const NO_PROCESS: &str = "Process ID is required";
const BAD_VERSION: &str = "Version must be a non-negative integer";
const BAD_TTL: &str = "TTL must be a positive integer";

fn missing(field: &str) -> String {
    format!("Invalid request: missing field `{field}`")
}

async fn get_needs_an_id(c: Context) {
    for (kind, empty) in [("promise.get", NO_PROMISE), ("task.get", NO_TASK)] {
        let number = "Invalid request: invalid type: integer `1`, expected a string";
        let changes = [
            ("/id", Value::Null, &*missing("id")),
            ("/id", json!(""), empty),
            ("/id", json!(1), number),
        ];
        each(&c, kind, &json!({"id": c.id("x")}), &changes).await;
    }
}

async fn promise_create_keeps_its_rules(c: Context) {
    let base = json!({"id": c.id("x"), "timeoutAt": c.far(), "param": {}, "tags": {}});
    let no = |what: &str| format!("Invalid request: {what}");
    let address = "Invalid resonate:target address";
    let changes = [
        ("/id", Value::Null, &*missing("id")),
        ("/id", json!(""), NO_PROMISE),
        ("/id", json!("a\0b"), "Promise ID must not contain null bytes"),
        ("/timeoutAt", Value::Null, &*missing("timeoutAt")),
        ("/timeoutAt", json!(-1), "TimeoutAt must be a non-negative integer"),
        ("/timeoutAt", json!(1.5), &no("invalid type: floating point `1.5`, expected i64")),
        ("/timeoutAt", json!("1"), &no("invalid type: string \"1\", expected i64")),
        (
            "/timeoutAt",
            json!(u64::MAX),
            &no(&format!("invalid value: integer `{}`, expected i64", u64::MAX)),
        ),
        ("/param", json!(1), &no("invalid type: integer `1`, expected struct PromiseValue")),
        ("/param", json!({"data": 1}), &no("invalid type: integer `1`, expected a string")),
        (
            "/param",
            json!({"headers": {"a": 1}}),
            &no("invalid type: integer `1`, expected a string"),
        ),
        ("/tags", json!([]), &no("invalid type: sequence, expected a map")),
        ("/tags", json!({"a": true}), &no("invalid type: boolean `true`, expected a string")),
        ("/tags", json!({"resonate:target": ""}), address),
        ("/tags", json!({"resonate:target": "group"}), address),
        ("/tags", json!({"resonate:target": "poll://group"}), address),
        ("/tags", json!({"resonate:target": "poll://all@group"}), address),
        ("/tags", json!({"resonate:target": "poll://any@"}), address),
        ("/tags", json!({"resonate:target": "ftp://any@group"}), address),
    ];
    each(&c, "promise.create", &base, &changes).await;
}

async fn promise_settle_keeps_its_rules(c: Context) {
    let base = json!({"id": c.id("x"), "state": "resolved", "value": {}});
    let variant = |state: &str| {
        let allowed = "`resolved`, `rejected`, `rejected_canceled`";
        format!("Invalid request: unknown variant `{state}`, expected one of {allowed}")
    };
    let changes = [
        ("/id", Value::Null, &*missing("id")),
        ("/id", json!(""), NO_PROMISE),
        ("/state", Value::Null, &*missing("state")),
        ("/state", json!("pending"), &*variant("pending")),
        ("/state", json!("rejected_timedout"), &*variant("rejected_timedout")),
        ("/value", json!([1]), "Invalid request: invalid type: integer `1`, expected a map"),
    ];
    each(&c, "promise.settle", &base, &changes).await;
}

async fn register_callback_keeps_its_rules(c: Context) {
    let base = json!({"awaited": c.id("a"), "awaiter": c.id("b")});
    let changes = [
        ("/awaited", Value::Null, &*missing("awaited")),
        ("/awaiter", Value::Null, &*missing("awaiter")),
        ("/awaited", json!(""), "Awaited promise ID is required"),
        ("/awaiter", json!(""), "Awaiter promise ID is required"),
        ("/awaiter", json!(c.id("a")), "Awaited and awaiter must be different promises"),
    ];
    each(&c, "promise.register_callback", &base, &changes).await;
}

async fn register_listener_keeps_its_rules(c: Context) {
    let base = json!({"awaited": c.id("a"), "address": c.anycast()});
    let changes = [
        ("/awaited", Value::Null, &*missing("awaited")),
        ("/address", Value::Null, &*missing("address")),
        ("/awaited", json!(""), "Awaited promise ID is required"),
        ("/address", json!(""), "Address is required"),
        ("/address", json!("nowhere"), "Invalid listener address"),
        ("/address", json!("poll://both@group"), "Invalid listener address"),
    ];
    each(&c, "promise.register_listener", &base, &changes).await;
}

async fn searches_keep_their_rules(c: Context) {
    let (low, high) =
        ("Limit must be a positive integer", "Invalid 'limit' — must be between 1 and 1000");
    for kind in ["promise.search", "task.search"] {
        let changes = [
            ("/limit", json!(0), low),
            ("/limit", json!(-1), low),
            ("/limit", json!(1001), high),
            ("/cursor", json!(1), "Invalid request: invalid type: integer `1`, expected a string"),
        ];
        each(&c, kind, &json!({}), &changes).await;
    }
    let reply = c.call("task.search", json!({"state": "resolved"})).await;
    let allowed = "`pending`, `acquired`, `suspended`, `halted`, `fulfilled`";
    reply.refuses(
        400,
        &format!("Invalid request: unknown variant `resolved`, expected one of {allowed}"),
    );
}

async fn task_create_keeps_its_rules(c: Context) {
    let tags = json!({"resonate:target": c.anycast()});
    let create = json!({"id": c.id("x"), "timeoutAt": c.far(), "param": {}, "tags": tags});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    let base = json!({"pid": "pid", "ttl": 1000, "action": action});
    let changes = [
        ("/pid", Value::Null, &*missing("pid")),
        ("/pid", json!(""), NO_PROCESS),
        ("/ttl", Value::Null, &*missing("ttl")),
        ("/ttl", json!(0), BAD_TTL),
        ("/action", Value::Null, &*missing("action")),
        (
            "/action",
            json!("x"),
            "Invalid request: invalid type: string \"x\", expected struct TaskCreateAction",
        ),
        ("/action/kind", Value::Null, &*missing("kind")),
        ("/action/head", Value::Null, &*missing("head")),
        ("/action/data", Value::Null, &*missing("data")),
        ("/action/data/id", json!(""), NO_PROMISE),
        ("/action/data/timeoutAt", json!(-1), "TimeoutAt must be a non-negative integer"),
        ("/action/data/tags", json!({}), "Action must have a resonate:target tag"),
        ("/action/data/tags", json!({"resonate:target": "x"}), "Invalid resonate:target address"),
    ];
    each(&c, "task.create", &base, &changes).await;
}

async fn task_acquire_and_release_keep_their_rules(c: Context) {
    let base = json!({"id": c.id("x"), "version": 0, "pid": "pid", "ttl": 1000});
    let changes = [
        ("/id", Value::Null, &*missing("id")),
        ("/id", json!(""), NO_TASK),
        ("/version", Value::Null, &*missing("version")),
        ("/version", json!(-1), BAD_VERSION),
        ("/version", json!("0"), "Invalid request: invalid type: string \"0\", expected i64"),
    ];
    each(&c, "task.release", &base, &changes).await;
    each(&c, "task.acquire", &base, &changes).await;
    let changes = [
        ("/pid", Value::Null, &*missing("pid")),
        ("/pid", json!(""), NO_PROCESS),
        ("/ttl", Value::Null, &*missing("ttl")),
        ("/ttl", json!(0), BAD_TTL),
        ("/ttl", json!(-5), BAD_TTL),
    ];
    each(&c, "task.acquire", &base, &changes).await;
}

async fn task_fulfill_keeps_its_rules(c: Context) {
    let settle = json!({"id": c.id("x"), "state": "resolved", "value": {}});
    let action = json!({"kind": "promise.settle", "head": {}, "data": settle});
    let base = json!({"id": c.id("x"), "version": 1, "action": action});
    let changes = [
        ("/id", Value::Null, &*missing("id")),
        ("/id", json!(""), NO_TASK),
        ("/version", json!(-1), BAD_VERSION),
        ("/action", Value::Null, &*missing("action")),
        ("/action/kind", Value::Null, &*missing("kind")),
        ("/action/head", Value::Null, &*missing("head")),
        ("/action/data/state", Value::Null, &*missing("state")),
        ("/action/data/id", json!(""), NO_PROMISE),
        ("/action/data/id", json!(c.id("y")), "Action ID must match the task ID"),
    ];
    each(&c, "task.fulfill", &base, &changes).await;
}

async fn task_suspend_keeps_its_rules(c: Context) {
    let id = c.id("x");
    let action = |awaited: &str, awaiter: &str| {
        let data = json!({"awaited": awaited, "awaiter": awaiter});
        json!([{"kind": "promise.register_callback", "head": {}, "data": data}])
    };
    let base = json!({"id": id, "version": 1, "actions": action(&c.id("y"), &id)});
    let mismatch = "All action awaiter IDs must match the task ID";
    let itself = "Awaited and awaiter must be different promises";
    let changes = [
        ("/id", json!(""), NO_TASK),
        ("/version", json!(-1), BAD_VERSION),
        ("/actions", Value::Null, &*missing("actions")),
        ("/actions", json!([]), "Actions array cannot be empty"),
        ("/actions", json!([{"kind": "k", "data": {}}]), &*missing("awaited")),
        ("/actions", action("", &id), "Awaited promise ID is required"),
        ("/actions", action(&c.id("y"), &c.id("z")), mismatch),
        ("/actions", action(&id, &id), itself),
    ];
    each(&c, "task.suspend", &base, &changes).await;
}

async fn task_fence_keeps_its_rules(c: Context) {
    let create = json!({"id": c.id("y"), "timeoutAt": c.far(), "param": {}, "tags": {}});
    let action = json!({"kind": "promise.create", "head": {}, "data": create});
    let base = json!({"id": c.id("x"), "version": 1, "action": action});
    let own = "Action ID must not equal the task ID";
    let changes = [
        ("/id", json!(""), NO_TASK),
        ("/version", json!(-1), BAD_VERSION),
        ("/action", Value::Null, &*missing("action")),
        ("/action/kind", Value::Null, &*missing("kind")),
        ("/action/kind", json!("promise.get"), "Invalid fence action kind"),
        ("/action/data", Value::Null, &*missing("data")),
        ("/action/data", json!({"id": c.id("x")}), own),
        ("/action/data/id", json!(c.id("x")), own),
        ("/action/data/id", json!(""), NO_PROMISE),
        ("/action/data/id", Value::Null, "Invalid action data: missing field `id`"),
        ("/action/data/timeoutAt", Value::Null, "Invalid action data: missing field `timeoutAt`"),
        ("/action/data/timeoutAt", json!(-1), "TimeoutAt must be a non-negative integer"),
        ("/action/data/tags", json!({"resonate:target": "x"}), "Invalid resonate:target address"),
        (
            "/action/data",
            json!(7),
            "Invalid action data: invalid type: integer `7`, expected struct PromiseCreateData",
        ),
    ];
    each(&c, "task.fence", &base, &changes).await;

    let settle = json!({"id": c.id("y"), "state": "resolved"});
    let action = json!({"kind": "promise.settle", "data": settle});
    let base = json!({"id": c.id("x"), "version": 1, "action": action});
    let changes = [
        ("/action/data/state", Value::Null, "Invalid action data: missing field `state`"),
        ("/action/data/id", json!(""), NO_PROMISE),
        ("/action/data/id", json!(c.id("x")), own),
    ];
    each(&c, "task.fence", &base, &changes).await;
}

async fn task_heartbeat_keeps_its_rules(c: Context) {
    let base = json!({"pid": "pid", "tasks": [{"id": c.id("x"), "version": 1}]});
    let changes = [
        ("/pid", Value::Null, &*missing("pid")),
        ("/pid", json!(""), NO_PROCESS),
        ("/tasks", Value::Null, &*missing("tasks")),
        ("/tasks", json!({}), "Invalid request: invalid type: map, expected a sequence"),
        ("/tasks", json!([{"id": "x"}]), &*missing("version")),
    ];
    each(&c, "task.heartbeat", &base, &changes).await;
    // Tasks that are unknown or have no id are ignored.
    let tasks = json!([{"id": "", "version": 1}, {"id": c.id("x"), "version": -1}]);
    c.call("task.heartbeat", json!({"pid": "pid", "tasks": tasks})).await.is(200, json!({}));
}
