//! Processes that are there before the Resonate Server is, and after it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;

use crate::{
    FLOWS, ended,
    support::{self, Http, Log, Process, Server, process::executable, server::free_port, until},
};

pub async fn services_that_start_before_the_server_wait_for_it(server: Server) {
    let (log, log_of_f) = (Log::new(), Log::new());
    let mut prepared = server.prepare(&log);
    let url = prepared.url();
    let gateway = format!("127.0.0.1:{}", free_port());
    let start = |group: &str, log: &Log| {
        let arguments = [group, "--instance", group, "--server", &url];
        Process::start(&mut executable(&arguments, &[("GATEWAY_LISTEN", &gateway)]), log)
    };
    let _processes: Vec<_> = ["gateway", "service-a", "service-b", "service-c", "service-d"]
        .into_iter()
        .chain(["service-e", "service-g", "service-h", "service-i"])
        .map(|group| start(group, &log))
        .collect();
    let _service_f = start("service-f", &log_of_f);
    let waiting = |line: &support::Line| line.text.contains("waiting for the Resonate Server");
    log.lines("each to say that it waits", 9, waiting).await;
    log_of_f.line("service-f to say that it waits", waiting).await;

    prepared.start().await;
    let ready = |line: &support::Line| line.text.contains("\"message\":\"ready\"");
    log.lines("all to be ready", 9, ready).await;
    log_of_f.line("service-f to be ready", ready).await;
    let http = Http::new(&gateway);
    for flow in FLOWS {
        let answer = http.post(&format!("/{}", flow.name)).await;
        answer.expect_message((flow.message)());
        ended(&log, &http, flow.name).await;
    }
    assert_eq!(log.all(waiting).len(), 9, "it is said once");
    assert_eq!(log_of_f.all(|line| line.text == "3").len(), 1, "service-f prints 3, once");
}

pub async fn without_a_server_requests_fail_in_time(server: Server) {
    const IN_TIME: Duration = Duration::from_secs(6);
    let log = Log::new();
    let mut prepared = server.prepare(&log);
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["gateway", "--server", &prepared.url()];
    let settings = [("GATEWAY_LISTEN", &*address)];
    let _gateway = Process::start(&mut executable(&arguments, &settings), &log);
    let http = Http::new(&address);
    let health = async |path: &str| {
        let answer = http.send(Method::GET, path, &[]).await;
        answer.ok().map(|answer| answer.status)
    };
    let unavailable = async || {
        let requests = [
            (Method::POST, "/await-chain"),
            (Method::POST, "/detached-chain"),
            (Method::GET, "/flows/x"),
        ];
        let start = Instant::now();
        join_all(requests.map(async |(method, path)| {
            let answer = http.send(method, path, &[]).await.unwrap();
            assert!(start.elapsed() < IN_TIME, "{path} took {:?}", start.elapsed());
            answer.expect_problem(503);
            assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{:?}", answer.headers);
        }))
        .await;
        assert_eq!((health("/healthz").await, health("/readyz").await), (Some(200), Some(503)));
    };

    until(&log, "the gateway to listen", async || health("/healthz").await).await;
    unavailable().await;
    prepared.start().await;
    let ready = async || health("/readyz").await.filter(|status| *status == 200);
    until(&log, "the gateway to be ready", ready).await;
    http.get("/flows/x").await.expect_problem(404);
    prepared.kill();
    let not_ready = async || health("/readyz").await.filter(|status| *status == 503);
    until(&log, "the gateway to notice", not_ready).await;
    unavailable().await;
}
