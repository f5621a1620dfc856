//! Random histories: both servers answer every request in the same way.
//!
//! The cases cover what somebody thought of. Histories cover the rest. Each has a seed, which the
//! message of a failure shows.

use std::collections::HashMap;

use embedded_server::Config;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use testkit::{Resonate, Server};

use crate::{
    client::{Context, now},
    servers::{Embedded, RETRY, start_official},
};

const HISTORIES: u64 = 40;
const STEPS: usize = 250;

/// The tests of this module.
pub const TESTS: &[crate::harness::Test] =
    &[("both_servers_answer_random_histories_alike", || {
        Server::official_executable()?;
        Some(Box::pin(both_servers_answer_random_histories_alike()))
    })];

async fn both_servers_answer_random_histories_alike() {
    let official = start_official().await.expect("an official server");
    let config = Config { retry_timeout: RETRY, ..Config::default() };
    let embedded = Embedded::start(config).await;
    let servers = [Resonate::new(&official.url()), Resonate::new(&embedded.url)];
    let run = now().to_string();
    for seed in 0..HISTORIES {
        let contexts = servers
            .each_ref()
            .map(|server| Context::new(server.clone(), &format!("history-{seed}"), &run));
        let mut history = History::new(seed, &contexts[0]);
        for step in 0..STEPS {
            let (kind, data) = history.next();
            let [first, second] = &contexts;
            let (official, embedded) =
                tokio::join!(first.call(kind, data.clone()), second.call(kind, data.clone()));
            let (official, embedded) = (masked(official.body), masked(embedded.body));
            assert_eq!(official, embedded, "seed {seed}, step {step}: {kind} {data}");
            history.learn(&official["data"]["task"]);
        }
    }
    embedded.stop().await;
}

/// An answer without the times of the clock, in which the servers differ.
fn masked(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = masked(item.take())),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let clock = name == "createdAt" || name == "settledAt";
                *field = match field.as_i64() {
                    Some(time) if clock && time > 1_000 => json!("‹time›"),
                    _ => masked(field.take()),
                };
            }
        }
        _ => {}
    }
    value
}

struct History {
    random: StdRng,
    /// The versions seen last: guesses would rarely get past the fences.
    versions: HashMap<String, i64>,
    ids: Vec<String>,
    branches: Vec<String>,
    far: i64,
    target: String,
}

impl History {
    fn new(seed: u64, context: &Context) -> Self {
        let parts = ["r", "r.1", "r.2", "r.10", "s", "s.1", "t"];
        Self {
            random: StdRng::seed_from_u64(seed),
            versions: HashMap::new(),
            ids: parts.map(|part| context.id(part)).to_vec(),
            branches: ["r", "s"].map(|part| context.id(part)).to_vec(),
            far: context.far(),
            target: context.anycast(),
        }
    }

    fn id(&mut self) -> String {
        // Sometimes an id that nobody has created.
        if self.random.random_bool(0.03) {
            return format!("{}-nobody", self.ids[0]);
        }
        self.ids.choose(&mut self.random).cloned().unwrap_or_default()
    }

    fn learn(&mut self, task: &Value) {
        if let (Some(id), Some(version)) = (task["id"].as_str(), task["version"].as_i64()) {
            self.versions.insert(id.to_owned(), version);
        }
    }

    fn version(&mut self, id: &str) -> i64 {
        match self.versions.get(id) {
            Some(version) if self.random.random_bool(0.8) => *version,
            _ => self.random.random_range(0..4),
        }
    }

    fn pid(&mut self) -> &'static str {
        ["one", "two"].choose(&mut self.random).copied().unwrap_or_default()
    }

    fn create(&mut self) -> Value {
        let mut tags = json!({});
        if self.random.random_bool(0.7) {
            tags["resonate:target"] = json!(self.target);
        }
        if self.random.random_bool(0.7) {
            tags["resonate:branch"] = json!(self.branches.choose(&mut self.random));
        }
        if self.random.random_bool(0.2) {
            tags["resonate:timer"] = json!("true");
        }
        let late = self.random.random_bool(0.05);
        let timeout_at = if late { 7 } else { self.far };
        json!({"id": self.id(), "timeoutAt": timeout_at, "param": {"data": "x"}, "tags": tags})
    }

    fn settle(&mut self, id: &str) -> Value {
        let states = ["resolved", "rejected", "rejected_canceled"];
        let value = json!({"data": self.random.random_range(0..9).to_string()});
        json!({"id": id, "state": states.choose(&mut self.random), "value": value})
    }

    fn next(&mut self) -> (&'static str, Value) {
        let id = self.id();
        let version = self.version(&id);
        let action = |kind: &str, data: Value| json!({"kind": kind, "head": {}, "data": data});
        match self.random.random_range(0..40) {
            0..=3 => ("promise.create", self.create()),
            4 => ("promise.settle", self.settle(&id)),
            5 => ("promise.get", json!({"id": id})),
            6..=8 => {
                let data = json!({"awaited": self.id(), "awaiter": id});
                ("promise.register_callback", data)
            }
            9 => {
                let address = self.target.clone();
                ("promise.register_listener", json!({"awaited": id, "address": address}))
            }
            10..=16 => ("task.get", json!({"id": id})),
            17..=19 => {
                let create = action("promise.create", self.create());
                ("task.create", json!({"pid": self.pid(), "ttl": 600_000, "action": create}))
            }
            20..=26 => {
                let pid = self.pid();
                ("task.acquire", json!({"id": id, "version": version, "pid": pid, "ttl": 600_000}))
            }
            27..=28 => ("task.release", json!({"id": id, "version": version})),
            29 => {
                let settle = action("promise.settle", self.settle(&id));
                ("task.fulfill", json!({"id": id, "version": version, "action": settle}))
            }
            30..=34 => {
                let count = self.random.random_range(1..4);
                let awaits = (0..count).map(|_| json!({"awaited": self.id(), "awaiter": id}));
                let actions: Vec<Value> =
                    awaits.map(|data| action("promise.register_callback", data)).collect();
                ("task.suspend", json!({"id": id, "version": version, "actions": actions}))
            }
            35..=37 => {
                let create = action("promise.create", self.create());
                ("task.fence", json!({"id": id, "version": version, "action": create}))
            }
            38 => {
                let other = self.id();
                let settle = action("promise.settle", self.settle(&other));
                ("task.fence", json!({"id": id, "version": version, "action": settle}))
            }
            _ => {
                let tasks = json!([{"id": id, "version": version}]);
                ("task.heartbeat", json!({"pid": self.pid(), "tasks": tasks}))
            }
        }
    }
}
