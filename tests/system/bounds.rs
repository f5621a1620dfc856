//! More work than a process may hold: it is done later, or elsewhere, and nothing is lost.

use futures_util::future::join_all;
use testkit::{Line, Server, Stopped, System, until};

testkit::on_each_server!(
    runs_beyond_the_bound_wait_for_room,
    requests_beyond_the_bound_are_refused_and_start_nothing,
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
