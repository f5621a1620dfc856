//! Flows that are canceled.

use futures_util::future::join_all;
use reqwest::Method;
use testkit::{FLOWS, Line, Server, Stopped, System, until};

use crate::flow::{Running, expect_starts};

testkit::on_each_server!(
    a_flow_at_work_is_canceled_at_its_next_request,
    a_flow_that_sleeps_is_canceled_with_its_timer,
    what_has_ended_or_never_was_stays_as_it_is,
);

async fn cancel(system: &System, id: &str) -> testkit::Answer {
    let path = format!("/flows/{id}");
    system.http().send(Method::DELETE, &path, &[]).await.unwrap()
}

/// Asserts that the flow is canceled, for whoever asks.
async fn expect_canceled(system: &System, flow: &Running) {
    let shown = system.http().get(&format!("/flows/{}", flow.id)).await.body;
    assert_eq!(shown["state"], "rejected_canceled", "{shown:#}");
    assert_eq!(shown["error"], "canceled", "{shown:#}");
    let again = cancel(system, &flow.id).await;
    assert_eq!((again.status, &again.body), (200, &shown));
    let answer = system.http().post(&format!("/{}?id={}", flow.flow.name, flow.id)).await;
    answer.expect_problem(409);
    let detail = format!("{} was canceled; this result is final", flow.flow.name);
    assert!(answer.detail().starts_with(&detail), "{}", answer.text);
}

/// Asserts that none of these promises is pending.
async fn expect_settled(system: &System, promises: impl IntoIterator<Item = String>) {
    for promise in promises {
        let record = system.resonate().promise(&promise).await;
        assert_ne!(record["state"], "pending", "{record:#}");
    }
}

async fn a_flow_at_work_is_canceled_at_its_next_request(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let id = format!("cancel-{}", flow.name);
        let mut running = Running::start(&system, flow.name, &id, "work=30s").await;
        running.at(&system, "step started", 2).await;
        let answer = cancel(&system, &id).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body["state"], "rejected_canceled", "{}", answer.text);
        let waiting = running.answer().await;
        match flow.is_detached() {
            // Nobody waits for it.
            true => waiting.expect_message(flow.message()),
            false => waiting.expect_problem(409),
        }
        expect_canceled(&system, &running).await;

        let abandoned = |line: &Line| line.about("run abandoned", &running.worker);
        let line = system.log.line("the end of the run", abandoned).await;
        assert_eq!(line.field("reason"), Some("fenced: its promise was canceled"), "{line:?}");
        let steps = (1..=3).map(|n| running.step(n));
        expect_settled(&system, running.promises.clone().into_iter().chain(steps)).await;
        // The lease ends meanwhile, and nobody takes over.
        tokio::time::sleep(crate::flow::LEASE + crate::flow::ALLOWANCE).await;
        expect_starts(&system, &running.step(2), 1);
        expect_starts(&system, &running.step(3), 0);
        assert_eq!(system.log.all(abandoned).len(), 1);
    }))
    .await;
    let runs = system.log.all(|line| line.says("run abandoned"));
    assert_eq!(runs.len(), FLOWS.len(), "{runs:#?}");
    system.stop().await
}

async fn a_flow_that_sleeps_is_canceled_with_its_timer(server: Server) -> Stopped {
    let system = System::start(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let id = format!("cancel-asleep-{}", flow.name);
        let mut running = Running::start(&system, flow.name, &id, "sleep=10m").await;
        let timer = format!("{}.0", running.promises[flow.sleeps]);
        until(&system.log, "the timer", async || {
            system.resonate().promise(&timer).await["state"].is_string().then_some(())
        })
        .await;
        assert_eq!(cancel(&system, &id).await.status, 200);
        let record = system.resonate().promise(&timer).await;
        assert_eq!(record["state"], "rejected_canceled", "{record:#}");
        if !flow.is_detached() {
            running.answer().await.expect_problem(409);
        }
        expect_canceled(&system, &running).await;
        expect_settled(&system, running.promises.clone()).await;
    }))
    .await;
    system.stop().await
}

async fn what_has_ended_or_never_was_stays_as_it_is(server: Server) -> Stopped {
    let system = System::shared(server).await;
    cancel(&system, "cancel-unknown").await.expect_problem(404);
    cancel(&system, "a.b").await.expect_problem(400);
    for flow in FLOWS {
        let id = format!("cancel-ended-{}", flow.name);
        let mut running = Running::start(&system, flow.name, &id, "").await;
        running.finish(&system).await;
        let shown = system.http().get(&format!("/flows/{id}")).await;
        let answer = cancel(&system, &id).await;
        assert_eq!((answer.status, &answer.body), (200, &shown.body));
        assert_eq!(answer.body["state"], "resolved");
    }
    // A page of another site.
    let foreign = [("sec-fetch-site", "cross-site")];
    let path = "/flows/cancel-ended-await-chain";
    let answer = system.http().send(Method::DELETE, path, &foreign).await.unwrap();
    answer.expect_problem(403);
    system.stop().await
}
