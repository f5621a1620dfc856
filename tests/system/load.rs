//! `async-rpc load`: it is right about a system in which processes die, and about a gateway that
//! gives wrong answers.

use axum::{Json, Router, http::Uri, routing::get};
use serde_json::{Value, json};
use testkit::{Line, Log, Process, Server, Stopped, System, process::async_rpc, until};

testkit::on_each_server!(
    killed_processes_make_no_answer_wrong_and_lose_no_flow,
    holders_are_crashed_again_and_again_and_takeovers_are_counted,
);

/// A load generator, and what it prints.
struct Load {
    process: Process,
    log: Log,
}

impl Load {
    fn start(gateway: &str, arguments: &[&str]) -> Self {
        let (log, url) = (Log::new(), format!("http://{gateway}"));
        let arguments = [&["load", "--gateway", &url], arguments].concat();
        Self { process: Process::start(&mut async_rpc(&arguments, &[]), &log), log }
    }

    /// Waits for its end: its exit code, and its summary.
    async fn end(mut self) -> (Option<i32>, Value) {
        let status = self.process.exited().await;
        self.log.ended().await;
        let summary = self.log.all(|line| line.text.starts_with("{\"gateway\":"));
        let [summary] = &summary[..] else { panic!("not one summary: {}", self.log) };
        println!("{}", summary.text);
        (status.code(), serde_json::from_str(&summary.text).unwrap())
    }
}

async fn killed_processes_make_no_answer_wrong_and_lose_no_flow(server: Server) -> Stopped {
    let system = System::start_cabled(server, &[("NODE_LEASE", "1s")]).await;
    // Every flow works, and one in two fails: what is killed is in the middle of a step.
    let arguments =
        ["--for=6s", "--concurrency=12", "--work=100", "--work-time=1500ms", "--fail=50"];
    let load = Load::start(&system.gateway, &arguments);
    let log = &system.log;
    let in_step = |line: &Line| line.says("step started") && line.instance() == "service-b";
    log.line("a step on service-b", in_step).await;
    system.kill("service-b");
    let took_over =
        |line: &Line| line.says("run started") && line.instance() == "service-b-replica";
    log.line("the replica to take over", took_over).await;
    system.kill("gateway");
    system.start_again("gateway").await;
    let (code, summary) = load.end().await;
    assert_eq!(code, Some(0), "{summary}");
    let flows = summary["flows"].as_u64().unwrap();
    assert!(flows > 12 && summary["right"] == flows, "{summary}");
    assert!(summary["retried"].as_u64() > Some(0), "the gateway's death went unnoticed: {summary}");
    assert_eq!(summary["by_flow"].as_object().unwrap().len(), 3, "{summary}");
    system.stop().await
}

async fn holders_are_crashed_again_and_again_and_takeovers_are_counted(server: Server) -> Stopped {
    let (settings, options) = ([("NODE_LEASE", "1s")], ["--restart", "100ms"]);
    let system = System::start_with(server, &settings, &options).await;
    let arguments = ["--for=8s", "--work=60", "--work-time=3s", "--crash=1s"];
    let (code, summary) = Load::start(&system.gateway, &arguments).end().await;
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["right"], summary["flows"], "{summary}");
    let crashes = summary["crashes"].as_u64().unwrap() as usize;
    // A process may end its function just before it dies: then nobody has to take over.
    let takeovers = summary["takeovers"].as_u64().unwrap() as usize;
    assert!(crashes >= 3 && (2..=crashes).contains(&takeovers), "{summary}");
    let deaths = system.log.all(|line| line.text.contains("was killed (SIGKILL)"));
    assert_eq!(deaths.len(), crashes, "{summary} {}", system.log);
    // The gateway finds takeovers in the flows themselves: all of a flow, but none of detached chains.
    let found = async || (counted(&system, "takeovers").await > 0).then_some(());
    until(&system.log, "the gateway to count takeovers", found).await;
    system.stop().await
}

/// What the gateway has counted in the last minutes.
async fn counted(system: &System, name: &str) -> u64 {
    let stats = system.http().get("/stats").await.body;
    let slots = stats["slots"].as_array().unwrap();
    slots.iter().map(|slot| slot[name].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_wrong_answer_is_exit_code_1() {
    // A gateway that cannot add up, and says so itself.
    let wrong = async |uri: Uri| {
        let id = uri.query().and_then(|query| query.strip_prefix("id=")).unwrap_or_default();
        Json(json!({"message": 2, "id": id}))
    };
    let routes = Router::new().route("/readyz", get(async || "ready")).fallback(wrong);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let arguments =
        ["--rate=20", "--for=300ms", "--flows=await-chain", "--work=0", "--sleep=0", "--fail=0"];
    let load = Load::start(&address, &arguments);
    let log = load.log.clone();
    let (code, summary) = load.end().await;
    server.abort();
    assert_eq!(code, Some(1), "{log}");
    assert!(summary["wrong"].as_u64() > Some(0), "{summary}");
    assert_eq!((&summary["wrong"], &summary["right"]), (&summary["flows"], &json!(0)), "{summary}");
    let wrong = log.all(|line| line.text.starts_with("wrong: POST /await-chain?id=load-"));
    assert!(wrong[0].text.contains("\"message\":2"), "{log}");
    let flows = &summary["flows"];
    let last = format!("error: of {flows} flows, {flows} wrong, 0 lost");
    assert_eq!(log.all(|line| line.text == last).len(), 1, "{log}");
    Stopped::check(&log);
}

#[tokio::test]
async fn ctrl_c_ends_it_with_the_summary() {
    let system = System::start_with(Server::Embedded, &[], &["--replicas", "1"]).await;
    let load =
        Load::start(&system.gateway, &["--for=1h", "--concurrency=8", "--work=0", "--fail=60"]);
    let log = load.log.clone();
    log.line("a line of progress", |line| line.text.starts_with("5 s: ")).await;
    load.process.signal("INT");
    let (code, summary) = load.end().await;
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["right"], summary["flows"], "{summary}");
    // The gateway has counted the same.
    let mut counts = Vec::new();
    for name in ["started", "succeeded", "failed", "takeovers"] {
        counts.push(counted(&system, name).await);
    }
    let [started, succeeded, failed, takeovers] = counts[..] else { unreachable!() };
    assert_eq!(Some(started), summary["flows"].as_u64(), "{summary}");
    let detached = summary["by_flow"]["detached-chain"]["flows"].as_u64().unwrap_or_default();
    assert_eq!(started - detached, succeeded + failed, "{summary}");
    assert!(failed > 0 && takeovers == 0, "{failed} {takeovers}");
    system.stop().await;
}
