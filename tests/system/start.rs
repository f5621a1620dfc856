//! Processes that start before the Resonate Server, and processes that lose it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use testkit::{
    FLOWS, Http, Line, Log, Process, Server, Stopped, flows, free_port, process::async_rpc, until,
};

use crate::flow::ended;

testkit::on_each_server!(
    services_that_start_before_the_server_wait_for_it,
    without_a_server_requests_fail_in_time,
);

async fn services_that_start_before_the_server_wait_for_it(server: Server) -> Stopped {
    // One process prints the result of the detached chain: its output is kept apart.
    const PRINTER: &str = "service-f";
    let (log, log_of_printer) = (Log::new(), Log::new());
    let mut prepared = server.prepare(&log);
    let url = prepared.url();
    let gateway = format!("127.0.0.1:{}", free_port());
    let start = |group: &str| {
        let log = if group == PRINTER { &log_of_printer } else { &log };
        let arguments = [group, "--instance", group, "--server", &url];
        Process::start(&mut async_rpc(&arguments, &[("GATEWAY_LISTEN", &gateway)]), log)
    };
    let mut processes: Vec<_> = flows::groups().chain(["gateway"]).map(start).collect();
    let waiting = |line: &Line| line.text.contains("waiting for the Resonate Server");
    log.lines("each process to say that it waits", 9, waiting).await;
    log_of_printer.line("service-f to say that it waits", waiting).await;

    prepared.start().await;
    let ready = |line: &Line| line.says("ready");
    log.lines("all processes to be ready", 9, ready).await;
    log_of_printer.line("service-f to be ready", ready).await;
    let http = Http::new(&gateway);
    for flow in FLOWS {
        let answer = http.post(&format!("/{}", flow.name)).await;
        answer.expect_message(flow.message());
        ended(&log, &http, flow.name).await;
    }
    assert_eq!(log.all(waiting).len(), 9, "each process says once that it waits");
    assert_eq!(log_of_printer.all(|line| line.text == "3").len(), 1, "service-f prints 3 once");

    for process in &mut processes {
        assert_eq!(process.stop().await.code(), Some(0));
    }
    drop(prepared);
    Stopped::check(&log_of_printer);
    Stopped::check(&log)
}

async fn without_a_server_requests_fail_in_time(server: Server) -> Stopped {
    const IN_TIME: Duration = Duration::from_secs(6);
    let log = Log::new();
    let mut prepared = server.prepare(&log);
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["gateway", "--server", &prepared.url()];
    let settings = [("GATEWAY_LISTEN", &*address)];
    let mut gateway = Process::start(&mut async_rpc(&arguments, &settings), &log);
    let http = Http::new(&address);
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
        let health = (http.status("/healthz").await, http.status("/readyz").await);
        assert_eq!(health, (Some(200), Some(503)));
    };

    until(&log, "a gateway that listens", async || http.status("/healthz").await).await;
    unavailable().await;
    prepared.start().await;
    let ready = async || http.status("/readyz").await.filter(|status| *status == 200);
    until(&log, "a ready gateway", ready).await;
    http.get("/flows/x").await.expect_problem(404);
    prepared.kill();
    let not_ready = async || http.status("/readyz").await.filter(|status| *status == 503);
    until(&log, "a gateway that has noticed the outage", not_ready).await;
    unavailable().await;

    assert_eq!(gateway.stop().await.code(), Some(0));
    Stopped::check(&log)
}
