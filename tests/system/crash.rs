//! The crash button: a process is killed by a message to it and no other, once.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{
    Answer, Line, Log, Process, Server, Stopped, System,
    process::{self, async_rpc, skipped},
    until,
};

use crate::flow::{ALLOWANCE, LEASE, Running, expect_not_again, taken_over};

testkit::on_each_server!(
    the_holder_dies_at_once_and_once,
    a_frozen_process_is_reported_and_lives_on_when_it_wakes_up,
    the_first_process_of_a_container_dies_with_the_same_exit_code,
    what_cannot_be_crashed_is_named,
    without_the_setting_there_is_no_route_and_no_function,
);

/// The answer to a crash comes within this.
const SOON: Duration = Duration::from_secs(3);

fn route(group: &str, instance: &str) -> String {
    format!("/instances/{group}/{instance}/crash")
}

/// Crashes a process, and checks that the answer comes soon.
async fn crash(system: &System, group: &str, instance: &str) -> Answer {
    let start = Instant::now();
    let answer = system.http().post(&route(group, instance)).await;
    println!("crash of {instance}: {} after {:.3?}", answer.status, start.elapsed());
    assert!(start.elapsed() < SOON, "{:?}: {}", start.elapsed(), answer.text);
    answer
}

/// The invocation of `flow` that works, as `GET /flows/{id}` shows it.
async fn working(system: &System, flow: &Running) -> Value {
    let shown = system.http().get(&format!("/flows/{}", flow.id)).await.body;
    shown["invocations"][flow.flow.works].clone()
}

async fn the_holder_dies_at_once_and_once(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    let mut flow = Running::start(&system, "await-chain", "button", "work=5s").await;
    flow.at(&system, "step started", 2).await;
    let shown = working(&system, &flow).await;
    let pid = system.pid("service-b");
    assert_eq!(shown["instance"], "service-b", "{shown}");
    assert_eq!(shown["crash"], route("service-b", "service-b"), "{shown}");
    assert_eq!(shown["kill"], format!("kill -9 {pid}"), "{shown}");

    let killed = Instant::now();
    let answer = crash(&system, "service-b", "service-b").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["message"], "service-b has crashed");
    for member in ["instance", "kill", "start"] {
        assert_eq!(answer.body[member], shown[member], "{}", answer.text);
    }
    let line = system.exit_line("service-b").await;
    assert!(line.text.contains("was killed (SIGKILL); service-b-replica takes over"), "{line:?}");
    let settled = flow.settled(&system, 5).await;
    let after = taken_over(&system, &flow.worker, "service-b", killed).await;
    assert!(after <= LEASE + ALLOWANCE, "{after:?}");

    // It is back under the same name before the call has timed out, by the command of the answer.
    let start = shown["start"].as_str().unwrap();
    assert!(line.text.ends_with(start), "{start}: {line:?}");
    system.restart("service-b").await;
    flow.finish(&system).await;
    expect_not_again(&system, &settled, killed);
    let mut again = Running::start(&system, "await-chain", "back", "work=3s").await;
    for n in 1..=3 {
        assert_eq!(again.at(&system, "step done", n).await.instance(), "service-b");
    }
    again.finish(&system).await;
    let deaths = system.log.all(|line| line.says("killed by the crash button"));
    assert_eq!(deaths.len(), 1, "{deaths:#?}");
    system.stop().await
}

async fn a_frozen_process_is_reported_and_lives_on_when_it_wakes_up(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    process::signal(system.pid("service-b"), "STOP");
    let answer = crash(&system, "service-b", "service-b").await;
    answer.expect_problem(504);
    assert_eq!(answer.body["instance"], "service-b");
    assert!(answer.detail().starts_with("service-b did not answer within 2s"), "{}", answer.text);
    process::signal(system.pid("service-b"), "CONT");
    // It has read the message once it works.
    let mut flow = Running::start(&system, "await-chain", "woken", "work=1s").await;
    assert_eq!(flow.at(&system, "step done", 1).await.instance(), "service-b");
    flow.finish(&system).await;
    assert!(process::runs(system.pid("service-b")));
    let deaths = system.log.all(|line| line.says("killed by the crash button"));
    assert!(deaths.is_empty(), "{deaths:#?}");
    system.stop().await
}

async fn what_cannot_be_crashed_is_named(server: Server) -> Stopped {
    let system = System::shared(server).await;
    crash(&system, "service-b", "service-b-replica-9").await.expect_problem(504);
    for group in ["gateway", "service-z"] {
        let answer = crash(&system, group, group).await;
        answer.expect_problem(404);
        assert_eq!(answer.body["group"], group);
    }
    crash(&system, "service-b", "a.b").await.expect_problem(400);
    let get = system.http().get(&route("service-b", "service-b")).await;
    get.expect_problem(405);
    // A form on another site.
    let form = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
    for path in [route("service-b", "service-b"), "/await-chain?id=foreign".to_owned()] {
        let answer = system.http().send(Method::POST, &path, &form).await.unwrap();
        answer.expect_problem(403);
        assert!(answer.detail().contains("http://evil.example"), "{}", answer.text);
    }
    system.http().get("/flows/foreign").await.expect_problem(404);
    system.stop().await
}

/// The kernel protects the first process of a container from its own signals.
async fn the_first_process_of_a_container_dies_with_the_same_exit_code(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    let can = Command::new("unshare").args(["--fork", "--pid", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        skipped("the first process of a container", "this user may not start a PID namespace");
        return system.stop().await;
    }
    let options = ["--health-listen", "127.0.0.1:0", "--crash-button", "true"];
    let arguments = ["service-b", "--instance", "first", "--server", &system.server_url];
    let service = async_rpc(&[&arguments[..], &options].concat(), &[]);
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--kill-child"]).arg(service.get_program());
    command.args(service.get_args());
    let log = Log::new();
    process::set(&mut command, &[]);
    let mut container = Process::start(&mut command, &log);
    let ready = |line: &Line| line.says("ready") && line.number("pid") == Some(1);
    log.line("the first process of a container", ready).await;
    assert_eq!(crash(&system, "service-b", "first").await.status, 200);
    assert_eq!(container.exited().await.code(), Some(137), "{log}");
    system.stop().await
}

/// Processes that were started without the setting, as in production, beside those of a launcher.
async fn without_the_setting_there_is_no_route_and_no_function(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    let http = system.another_gateway("gateway-2", &[]).await;
    let answer = http.post(&route("service-b", "service-b")).await;
    answer.expect_problem(404);
    assert!(answer.detail().starts_with("no such route"), "{}", answer.text);
    let health = ["--health-listen", "127.0.0.1:0"];
    let arguments = [&["service-b", "--server", &system.server_url][..], &health].concat();
    system.start_process("plain", &arguments, &[]).await;
    let answer = crash(&system, "service-b", "plain").await;
    answer.expect_problem(502);
    assert_eq!(answer.body["instance"], "plain");
    let unknown = |line: &Line| line.field("function") == Some("node.crash");
    system.log.line("a refusal", unknown).await;
    assert!(process::runs(system.pid("plain")));

    let mut flow = Running::start(&system, "await-chain", "shown", "work=2s").await;
    flow.at(&system, "step started", 1).await;
    let shown = until(&system.log, "the holder", async || {
        let shown = http.get("/flows/shown").await.body["invocations"][1].clone();
        shown["instance"].is_string().then_some(shown)
    })
    .await;
    for member in ["crash", "kill", "start"] {
        assert_eq!(shown.get(member), None::<&Value>, "{shown}");
    }
    assert_eq!(shown["instance"], json!("service-b"));
    flow.finish(&system).await;
    system.stop().await
}
