//! Tokens and TLS: what a process says about a token that is refused, how it recovers, and that no output
//! of any process holds a secret.

use std::path::{Path, PathBuf};

use reqwest::Method;
use testkit::{
    Answer, FLOWS, Http, Line, Log, Process, Server, Stopped, System,
    auth::{Algorithm, Signer, Tls, settings},
    free_port,
    process::async_rpc,
    server::Prepared,
    until,
};

testkit::on_each_server!(
    flows_run_over_tls_with_tokens_that_rotate_and_no_output_holds_one,
    a_process_that_is_refused_says_why_and_waits,
);

const WAITING: &str = "waiting for the Resonate Server";

/// The token of the gateway's clients.
const CLIENT: &str = "client-token-0123456789";

/// A server that verifies tokens, and the key that signs them.
struct Guarded {
    signer: Signer,
    server: Prepared,
    folder: tempfile::TempDir,
}

impl Guarded {
    async fn start(server: Server, log: &Log) -> Self {
        let signer = Signer::new(Algorithm::EdDSA);
        let folder = tempfile::tempdir().unwrap();
        let public = folder.path().join("public.pem");
        std::fs::write(&public, &signer.public).unwrap();
        let mut server = server.prepare(log);
        server.settings = settings(&public);
        server.start().await;
        Self { signer, server, folder }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asks the gateway as a client with a token.
async fn ask(http: &Http, method: Method, path: &str) -> Answer {
    let bearer = format!("Bearer {CLIENT}");
    http.send(method, path, &[("authorization", &bearer)]).await.unwrap()
}

/// Waits until the gateway is ready, or is not.
async fn readiness(system: &System, status: u16) {
    until(&system.log, &format!("{status} by /readyz"), async || {
        system.http().status("/readyz").await.filter(|found| *found == status)
    })
    .await;
}

/// Waits for the gateway's line about a token that is refused.
async fn refusal(system: &System, reason: &str) {
    let refused = |line: &Line| {
        line.says(WAITING)
            && line.field("group") == Some("gateway")
            && line.field("error").is_some_and(|error| error.contains(reason))
    };
    system.log.line(&format!("the gateway's line about a token that {reason}"), refused).await;
}

async fn flows_run_over_tls_with_tokens_that_rotate_and_no_output_holds_one(
    server: Server,
) -> Stopped {
    let log_of_server = Log::new();
    let guarded = Guarded::start(server, &log_of_server).await;
    let tls = Tls::start(guarded.server.address(), guarded.folder.path()).await;
    let stranger = Signer::new(Algorithm::EdDSA);
    let [first, second] = [600, 601].map(|seconds| guarded.signer.token(seconds));
    // A minute is granted for clocks that differ.
    let (expired, wrong) = (guarded.signer.token(-120), stranger.token(600));
    let token = guarded.file("token", &format!("{first}\n"));
    let clients = guarded.file("clients", &format!("# clients\n{CLIENT}\n"));
    let settings = [
        ("NODE_SERVER_TOKEN_FILE", text(&token)),
        ("NODE_SERVER_CA_FILE", text(&tls.ca_file)),
        ("GATEWAY_TOKENS_FILE", text(&clients)),
        // As much as anybody would turn on.
        ("NODE_LOG", "debug,node=trace,hyper=trace,hyper_util=trace,rustls=trace"),
    ];
    let system = System::start_on(&tls.url, &settings, &["--replicas", "1"]).await;
    let (http, pids) = (system.http(), system.pids());
    for flow in FLOWS {
        let answer = ask(&http, Method::POST, &format!("/{}", flow.name)).await;
        answer.expect_message(flow.message());
    }
    system.log.line("the end of the detached chain", |line| line.text == "3").await;

    // Clients need a token of their own; health checks need none.
    http.post("/await-chain").await.expect_problem(401);
    assert_eq!(http.status("/healthz").await, Some(200));
    readiness(&system, 200).await;

    let path = "/await-chain?id=auth-works&work=3s";
    let bearer = format!("Bearer {CLIENT}");
    let headers = [("authorization", &*bearer), ("prefer", "respond-async")];
    assert_eq!(http.send(Method::POST, path, &headers).await.unwrap().status, 202);

    std::fs::write(&token, &expired).unwrap();
    let answer = until(&system.log, "503", async || {
        let answer = ask(&http, Method::POST, "/await-chain").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    answer.expect_problem(503);
    let expected = "the Resonate Server refuses the gateway's token; see the gateway's log";
    assert_eq!((answer.detail(), answer.header("retry-after")), (expected, "2"));
    readiness(&system, 503).await;
    refusal(&system, "expired on ").await;
    std::fs::write(&token, &wrong).unwrap();
    refusal(&system, "is wrong: signed with another key").await;

    std::fs::write(&token, &second).unwrap();
    readiness(&system, 200).await;
    let answer = ask(&http, Method::POST, "/fan-out-workflow?id=auth-again").await;
    answer.expect_message(3);
    until(&system.log, "the end of the flow that was interrupted", async || {
        let answer = ask(&http, Method::GET, "/flows/auth-works").await;
        (answer.body["state"] == "resolved").then_some(())
    })
    .await;
    assert_eq!(system.pids(), pids);
    let of_gateway = |line: &Line| line.says(WAITING) && line.field("group") == Some("gateway");
    let lines = system.log.all(of_gateway);
    assert_eq!(lines.len(), 2, "one line each: {lines:#?}");

    let load = async |options: &[&str]| {
        let url = format!("http://{}", system.gateway);
        let common = ["load", "--gateway", &url, "--for=500ms", "--work=0", "--sleep=0"];
        let arguments = [&common, options].concat();
        Process::start(&mut async_rpc(&arguments, &[]), &system.log).exited().await.code()
    };
    assert_eq!(load(&["--token-file", text(&clients)]).await, Some(0), "{}", system.log);
    assert_eq!(load(&[]).await, Some(1), "it needs a token");

    let log = system.log.clone();
    let stopped = system.stop().await;
    drop(guarded.server);
    log_of_server.ended().await;
    log.ended().await;
    for token in [first, second, expired, wrong, CLIENT.to_owned()] {
        // The last part is the signature: enough to tell a token.
        let secret = token.rsplit('.').next().unwrap();
        for log in [&log, &log_of_server] {
            let lines = log.all(|line| line.text.contains(secret));
            assert!(lines.is_empty(), "a secret was logged: {lines:#?}");
        }
    }
    stopped
}

async fn a_process_that_is_refused_says_why_and_waits(server: Server) -> Stopped {
    let log = Log::new();
    let guarded = Guarded::start(server, &log).await;
    let tls = Tls::start(guarded.server.address(), guarded.folder.path()).await;
    let token = guarded.file("token", &guarded.signer.token(600));
    let late = guarded.file("late", "not-yet");
    let (url, ca) = (guarded.server.url(), text(&tls.ca_file));
    let asks = |url: &str| format!("{url} refuses this process: it asks for a token");
    let (over_http, over_tls) = (asks(&url), asks(&tls.url));
    // A process of its own for each way to be refused.
    for (instance, settings, reason) in [
        ("missing", vec![("NODE_SERVER_URL", &*url)], &*over_http),
        (
            "late",
            vec![("NODE_SERVER_URL", &*url), ("NODE_SERVER_TOKEN_FILE", text(&late))],
            "is no JWT with an exp claim; write another one to this file",
        ),
        (
            "distrust",
            vec![("NODE_SERVER_URL", &*tls.url), ("NODE_SERVER_TOKEN_FILE", text(&token))],
            "invalid peer certificate: UnknownIssuer; NODE_SERVER_CA_FILE names the CA",
        ),
        (
            "tls-missing",
            vec![("NODE_SERVER_URL", &*tls.url), ("NODE_SERVER_CA_FILE", ca)],
            &*over_tls,
        ),
    ] {
        let health = format!("127.0.0.1:{}", free_port());
        let arguments = ["service-b", "--instance", instance, "--health-listen", &health];
        let mut process = Process::start(&mut async_rpc(&arguments, &settings), &log);
        let pid = process.pid as usize;
        let says = |line: &Line| {
            line.says(WAITING) && line.field("error").is_some_and(|error| error.contains(reason))
        };
        log.line(&format!("{instance} to say: {reason}"), says).await;
        let http = Http::new(&health);
        assert_eq!(http.status("/readyz").await, Some(503), "{instance}");
        assert_eq!(http.status("/healthz").await, Some(200), "{instance}");
        if instance == "late" {
            std::fs::copy(&token, &late).unwrap();
            let ready = |line: &Line| line.says("ready") && line.number("pid") == Some(pid);
            log.line("the process to be ready", ready).await;
            assert_eq!(http.status("/readyz").await, Some(200));
        }
        assert_eq!(process.stop().await.code(), Some(0), "{instance}");
    }
    let waiting = log.all(|line| line.says(WAITING));
    assert_eq!(waiting.len(), 4, "each process says so once: {waiting:#?}");
    drop(guarded.server);
    Stopped::check(&log)
}
