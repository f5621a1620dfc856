//! The real services against the table of flows: every promise that a flow leaves on the server is
//! one that the table derives, with its function and its group.
//!
//! If this fails, a service and `crates/flows/src/table.rs` disagree, and `GET /flows/{id}` shows
//! the wrong invocations.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use flows::{FLOWS, Flow, Invocation, Options};
use serde_json::{Value, json};
use testkit::{Resonate, Server, Stopped, System, on_each_server, until};
use wire::{Promise, tag};

on_each_server!(every_promise_of_a_flow_is_in_the_table);

async fn every_promise_of_a_flow_is_in_the_table(server: Server) -> Stopped {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let options = Options {
        work: Some(Duration::from_millis(1_500)),
        sleep: Some(Duration::from_millis(10)),
        fail: Some(1),
    };
    let plain = FLOWS.iter().map(|flow| check(&system, flow, Options::default(), "plain", ""));
    let query = "&work=1500ms&sleep=10ms&fail=1";
    let all = FLOWS.iter().map(|flow| check(&system, flow, options, "options", query));
    futures_util::future::join_all(plain.chain(all)).await;
    system.stop().await
}

/// Runs a flow to its end, and fails as soon as it creates a promise that is not in the table.
async fn check(system: &System, flow: &Flow, options: Options, name: &str, query: &str) {
    let id = format!("{name}-{}", flow.name);
    let answer = system.http().post(&format!("{}?id={id}{query}", flow.route())).await;
    answer.expect_message(flow.message());

    let (expected, resonate) = (expected(flow, &id, &options), system.resonate());
    until(&system.log, &format!("the promises of {id}: {expected:#?}"), async || {
        let found = promises(&resonate, &id).await;
        let rows: BTreeSet<_> = found.iter().map(row).collect();
        let others: Vec<_> = rows.difference(&expected).collect();
        assert!(others.is_empty(), "not in crates/flows/src/table.rs: {others:#?}; {expected:#?}");
        // A detached flow is answered before it has ended.
        let ended = found.iter().all(|promise| promise["state"] == "resolved");
        (ended && rows == expected).then_some(())
    })
    .await;
}

/// The promises of a flow, each as a line: its id, and if it is a call, its function and group.
fn expected(flow: &Flow, id: &str, options: &Options) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for Invocation { function, id } in flow.invocations(id, options) {
        rows.extend((0..function.checkpoints(options).len()).map(|n| format!("{id}.{n}")));
        rows.insert(format!("{id} {}@{}", function.name, function.group));
    }
    rows
}

/// All promises of a flow that are on the server.
async fn promises(resonate: &Resonate, id: &str) -> Vec<Value> {
    let search = json!({"tags": {tag::ORIGIN: id}, "limit": 1_000});
    let (status, mut found) = resonate.send("promise.search", search).await;
    assert_eq!(status, 200, "{found}");
    serde_json::from_value(found["promises"].take()).unwrap()
}

fn row(promise: &Value) -> String {
    let text = promise.to_string();
    let promise: Promise = serde_json::from_str(&text).unwrap();
    match promise.group() {
        Some(group) => format!("{} {}@{group}", promise.id, promise.function().unwrap_or_default()),
        None => promise.id.into_owned(),
    }
}
