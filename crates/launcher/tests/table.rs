//! The real services against the table of flows: every promise that a flow leaves on the server is
//! one that the table derives, with its function and its group.
//!
//! If this fails, a service and `crates/flows/src/table.rs` disagree, and `GET /flows/{id}` would
//! show the wrong invocations.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use flows::{FLOWS, Flow, Invocation, Options};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use wire::{
    Pairs, Promise, Request,
    envelope::{AnswerHead, Envelope},
    operation::PromiseSearch,
    tag,
};

/// A flow that takes longer than this does something else than the table says.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_of_a_flow_is_one_of_the_table() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = embedded_server::Config::default();
    tokio::spawn(embedded_server::run(listener, config, std::future::pending()));
    let system = System::start(&server);

    let all = Options {
        work: Some(Duration::from_millis(1_500)),
        sleep: Some(Duration::from_millis(10)),
        fail: Some(1),
    };
    for (name, query, options) in
        [("plain", "", Options::default()), ("options", "&work=1500ms&sleep=10ms&fail=1", all)]
    {
        let flows = FLOWS.iter().map(|flow| check(&system, &server, flow, name, query, options));
        futures_util::future::join_all(flows).await;
    }
}

async fn check(
    system: &System,
    server: &str,
    flow: &Flow,
    name: &str,
    query: &str,
    options: Options,
) {
    let id = format!("{name}-{}", flow.name);
    let url = format!("http://{}{}?id={id}{query}", system.gateway, flow.route());
    let answer = reqwest::Client::new().post(url).send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["message"], flow.message(), "{answer}");

    let expected = expected(flow, &id, &options);
    let start = Instant::now();
    loop {
        let (found, pending) = found(server, &id).await;
        let (missing, other): (Vec<_>, Vec<_>) =
            (expected.difference(&found).collect(), found.difference(&expected).collect());
        // No promise ever goes away, so one that is not in the table is wrong at once.
        let late = start.elapsed() > DEADLINE;
        assert!(
            other.is_empty() && !late,
            "{} is not what crates/flows/src/table.rs says\nnot in the table: {other:#?}\nnot on the server, or not yet: {missing:#?}",
            flow.name
        );
        // A detached flow is answered before it ends.
        if missing.is_empty() && !pending {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The promises of a flow, each as a line: its id, and its function and group if it is a call.
fn expected(flow: &Flow, id: &str, options: &Options) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for Invocation { function, id } in flow.invocations(id, options) {
        for n in 0..function.checkpoints(options) {
            rows.insert(format!("{id}.{n}"));
        }
        rows.insert(format!("{id} {}@{}", function.name, function.group));
    }
    rows
}

/// The same as they are on the server, and whether one of them is pending.
async fn found(server: &str, id: &str) -> (BTreeSet<String>, bool) {
    #[derive(Deserialize)]
    struct Found<'a> {
        #[serde(borrow)]
        promises: Vec<Promise<'a>>,
    }
    let tags = Some(Pairs::from_iter([(tag::ORIGIN, id)]));
    let search = PromiseSearch { tags, limit: Some(1_000), ..PromiseSearch::default() };
    let request = Request::new("promise.search", &search).text().into_owned();
    let answer = reqwest::Client::new().post(server).body(request).send().await.unwrap();
    let answer = answer.text().await.unwrap();
    let answer: Envelope<AnswerHead, Found> = serde_json::from_str(&answer).unwrap();
    let promises = answer.data.promises;
    let row = |promise: &Promise| match promise.group() {
        Some(group) => {
            format!("{} {}@{group}", promise.id, promise.function().unwrap_or_default())
        }
        None => promise.id.to_string(),
    };
    (promises.iter().map(row).collect(), promises.iter().any(Promise::is_pending))
}

/// A launcher with the gateway and one process of each service. They end with it.
struct System {
    launcher: Child,
    gateway: String,
}

impl System {
    fn start(server: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_async-rpc"));
        command.args(["--server", server, "--replicas", "1", "--port", "0", "--no-jaeger"]);
        for (name, _) in std::env::vars() {
            if ["NODE_", "GATEWAY_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("NODE_LOG", "warn").env("EMBEDDED_SERVER_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut launcher = command.spawn().unwrap();
        let mut lines = BufReader::new(launcher.stdout.take().unwrap()).lines();
        // Kills the launcher if what follows panics.
        let mut system = Self { launcher, gateway: String::new() };
        for line in lines.by_ref().map(Result::unwrap) {
            if line.starts_with("gateway ") {
                system.gateway = line.split_whitespace().last().unwrap().to_owned();
            }
            if line == "Press Ctrl-C to stop everything." {
                // service-f prints to the same pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return system;
            }
        }
        panic!("the launcher has exited");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let pid = self.launcher.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.launcher.wait();
    }
}
