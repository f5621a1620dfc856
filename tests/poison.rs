//! Promises that no process can run: each ends with a clear error, soon, and disturbs nobody.

#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use node::{lifecycle::Overrides, prelude::*};
use serde_json::{Value, json};

use support::{Process, Resonate, Server, System, process, until};

/// Names the Resonate Server to the process of service-p.
const SERVER: &str = "ASYNC_RPC_TEST_SERVER";

on_each_server!(
    each_poison_ends_with_its_error_and_other_flows_do_not_notice,
    a_function_that_panics_is_rejected_with_its_message,
);

/// What a promise was given that it cannot be run.
struct Poison {
    name: &'static str,
    param: Value,
    error: &'static str,
    /// How often its task is acquired at most.
    acquisitions: i64,
}

fn encoded(text: &str) -> Value {
    json!({"data": BASE64_STANDARD.encode(text)})
}

fn call(function: &str, arguments: Value) -> Value {
    encoded(&json!({"func": function, "args": arguments}).to_string())
}

/// Waits until the promise `id` is rejected: its error, and how often its task was acquired.
async fn rejected(system: &System, resonate: &Resonate, id: &str) -> (String, i64) {
    let promise = until(&system.log, &format!("the end of {id}"), async || {
        let promise = resonate.promise(id).await;
        (promise["state"] != "pending").then_some(promise)
    })
    .await;
    assert_eq!(promise["state"], "rejected", "{promise:#}");
    let value = BASE64_STANDARD.decode(promise["value"]["data"].as_str().unwrap()).unwrap();
    let value: Value = serde_json::from_slice(&value).unwrap();
    assert_eq!(value["__type"], "error", "as the SDKs have it: {value}");
    let task = resonate.task(id).await;
    (value["message"].as_str().unwrap().to_owned(), task["version"].as_i64().unwrap())
}

async fn each_poison_ends_with_its_error_and_other_flows_do_not_notice(server: Server) {
    let no_call = "the parameter of this promise is no function call: ";
    let poison = |name, param, error, acquisitions| Poison { name, param, error, acquisitions };
    let poisons = [
        // A group may be in the middle of an update: each process looks five times.
        poison(
            "unknown",
            call("nope", Value::Null),
            "no function \"nope\" in group service-b: ",
            10,
        ),
        poison("nothing", json!({}), no_call, 1),
        poison("no-base64", json!({"data": "%%%"}), no_call, 1),
        poison("no-json", encoded("bar()"), no_call, 1),
        poison("no-call", encoded("[1, 2]"), no_call, 1),
        poison("two-calls", encoded("{\"func\": \"bar\"} {}"), no_call, 1),
        poison("no-utf8", json!({"data": BASE64_STANDARD.encode([0xff, 0xfe])}), no_call, 1),
        poison("a-text", call("bar", json!("soon")), "the arguments of bar do not decode: ", 1),
        poison(
            "typo",
            call("bar", json!({"wrok": "6s"})),
            "the arguments of bar do not decode: ",
            1,
        ),
        poison(
            "bad-time",
            call("bar", json!({"work": "6"})),
            "the arguments of bar do not decode: ",
            1,
        ),
    ];
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let (http, resonate) = (system.http(), system.resonate());
    http.post("/await-chain?id=before").await.expect_message(3);

    let poisoned = join_all(poisons.iter().map(async |poison| {
        resonate.create(poison.name, "poll://any@service-b", poison.param.clone()).await;
        let (error, acquisitions) = rejected(&system, &resonate, poison.name).await;
        assert!(error.contains(poison.error), "{}: {error}", poison.name);
        assert!(acquisitions <= poison.acquisitions, "{}: {acquisitions} runs", poison.name);
        println!("{server:?}: {} ended after {acquisitions} runs: {error}", poison.name);
    }));
    // Meanwhile: one flow after the other, through the same two processes.
    let mut took: Vec<Duration> = Vec::new();
    let others = async {
        loop {
            let start = Instant::now();
            let path = format!("/await-chain?id=meanwhile-{}", took.len());
            http.post(&path).await.expect_message(3);
            took.push(start.elapsed());
        }
    };
    tokio::select! {
        _ = poisoned => {}
        () = others => {}
    }
    took.sort();
    let median = took[took.len() / 2];
    println!("{server:?}: {} flows meanwhile, median {median:.3?}", took.len());
    // A flow that had to wait for a poisoned one would take its pauses, or its lease of 1 s.
    assert!(median < Duration::from_millis(500), "{took:?}");
}

async fn a_function_that_panics_is_rejected_with_its_message(server: Server) {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let (http, resonate) = (system.http(), system.resonate());
    // This executable is also the process of service-p: see the last function of this file.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["service_p", "--exact", "--ignored", "--nocapture"]);
    process::set(&mut command, &[(SERVER, &system.server_url), ("NODE_LEASE", "1s")]);
    let mut service_p = Process::start(&mut command, &system.log);
    for (function, error) in [
        ("panics", "application error: panics panicked: as asked"),
        (
            "panics_after_a_step",
            "application error: panics_after_a_step panicked: after a step, as asked",
        ),
    ] {
        let id = function.replace('_', "-");
        resonate.create(&id, "poll://any@service-p", call(function, json!("as asked"))).await;
        assert_eq!(rejected(&system, &resonate, &id).await, (error.to_owned(), 1));
    }
    // The process has survived both, and goes on with what can be run.
    resonate.create("greeted", "poll://any@service-p", call("greets", json!("you"))).await;
    let promise = until(&system.log, "an answer of service-p", async || {
        let promise = resonate.promise("greeted").await;
        (promise["state"] == "resolved").then_some(promise)
    })
    .await;
    assert_eq!(promise["value"]["data"], BASE64_STANDARD.encode("\"hello you\""));
    http.post("/await-chain").await.expect_message(3);
    service_p.signal("TERM");
    assert_eq!(service_p.ended().await.code(), Some(0));
}

#[resonate_sdk::function]
async fn greets(whom: String) -> Result<String> {
    Ok(format!("hello {whom}"))
}

#[resonate_sdk::function]
async fn panics(why: String) -> Result<i64> {
    panic!("{why}")
}

#[resonate_sdk::function]
async fn panics_after_a_step(ctx: &Context, why: String) -> Result<i64> {
    let done = step(ctx, "a step".to_owned(), async |_| Ok("after a step".to_owned())).await?;
    panic!("{done}, {why}")
}

#[test]
#[ignore = "no test: a process of service-p, which a test starts"]
fn service_p() {
    let server = std::env::var(SERVER).expect("only a test starts this");
    let service = Service::new("service-p").function(greets).function(panics);
    let service = service.function(panics_after_a_step);
    let overrides = Overrides {
        server: Some(server),
        health_listen: Some(([127, 0, 0, 1], 0).into()),
        ..Overrides::default()
    };
    node::lifecycle::run(service, &overrides).unwrap();
}
