//! More work than a process may hold: it is done later, or elsewhere, and nothing is lost.

use std::process::Command;

use futures_util::future::join_all;
use testkit::{
    Http, Line, Process, Server, Stopped, System,
    process::{self, EXECUTABLE},
    until,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

testkit::on_each_server!(
    runs_beyond_the_bound_wait_for_room,
    requests_beyond_the_bound_are_refused_and_start_nothing,
    half_sent_requests_keep_nobody_out_of_a_gateway_with_few_descriptors,
);

async fn runs_beyond_the_bound_wait_for_room(server: Server) -> Stopped {
    const FLOWS: usize = 12;
    let system = System::start(server, &[("NODE_MAX_RUNS", "4")]).await;
    let http = system.http();
    let answers = join_all((0..FLOWS).map(async |n| {
        http.post(&format!("/await-chain?id=many-{n}&work=1s")).await.expect_message(3);
    }));
    let full = |line: &Line| line.says("no room for another run");
    let (_, ()) = tokio::join!(answers, async {
        system.log.line("a process at its bound", full).await;
    });
    // How many functions were working at each moment, by the log.
    let mut working = 0;
    for line in system.log.all(|line| line.instance() == "service-b") {
        if line.says("step started") {
            working += 1;
        } else if line.says("step done") {
            working -= 1;
        }
        assert!(working <= 4, "{working} runs at once in service-b");
    }
    system.stop().await
}

async fn requests_beyond_the_bound_are_refused_and_start_nothing(server: Server) -> Stopped {
    let system = System::start(server, &[("GATEWAY_MAX_WAITING", "2")]).await;
    let http = system.http();
    let waiting = join_all(
        ["first", "second"]
            .map(async |id| http.post(&format!("/await-chain?id={id}&work=3s")).await),
    );
    let refused = async {
        for id in ["first.0", "second.0"] {
            system.log.line("both to work", |line| line.in_run("step started", id)).await;
        }
        let answer = http.post("/await-chain?id=third").await;
        answer.expect_problem(503);
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(http.get("/flows/third").await.status, 404, "nothing was started");
        assert_eq!(http.get("/flows/first").await.status, 200, "only waiting is bounded");
    };
    let (answers, ()) = tokio::join!(waiting, refused);
    answers.iter().for_each(|answer| answer.expect_message(3));
    until(&system.log, "room again", async || {
        let answer = http.post("/await-chain?id=third").await;
        (answer.status == 200).then(|| answer.expect_message(3))
    })
    .await;
    system.stop().await
}

async fn half_sent_requests_keep_nobody_out_of_a_gateway_with_few_descriptors(
    server: Server,
) -> Stopped {
    /// Many more than the descriptors.
    const HALF_SENT: usize = 300;
    let system = System::start(server, &[]).await;
    let mut command = Command::new("sh");
    let limited = "ulimit -n 128 && exec \"$0\" gateway --listen 127.0.0.1:0 --server \"$1\"";
    command.args(["-c", limited]).arg(&*EXECUTABLE).arg(&system.server_url);
    process::set(&mut command, &[("NODE_INSTANCE", "few-descriptors")]);
    let mut gateway = Process::start(&mut command, &system.log);
    let ready = |line: &Line| line.says("ready") && line.instance() == "few-descriptors";
    let ready = system.log.line("the gateway to be ready", ready).await;
    let address = ready.field("health").expect("its address");
    let http = Http::new(address);

    let half_sent = async |_| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The gateway may have closed it already.
        let _ = stream.write_all(b"POST /await-chain HTTP/1.1\r\nhost: x\r\n").await;
        stream
    };
    let many = join_all((0..HALF_SENT).map(half_sent)).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    join_all((0..20).map(async |n| {
        http.post(&format!("/await-chain?id=few-{n}")).await.expect_message(3);
    }))
    .await;
    let full = |line: &Line| line.text.contains("no room for another connection");
    assert_eq!(system.log.all(full).len(), 1, "it is reported once");

    // These are younger than the time-out of a header.
    let young = join_all((0..10).map(half_sent)).await;
    assert_eq!(http.get("/healthz").await.status, 200);
    assert_eq!(gateway.stop().await.code(), Some(0));
    let late = |line: &Line| line.says("drain deadline reached with open connections");
    assert!(system.log.all(late).is_empty(), "half-sent requests do not hold up a stop");
    drop((many, young));
    system.stop().await
}
