//! What `work`, `sleep` and `fail` do to a flow.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use testkit::{FLOWS, Server, Stopped, System, until};

use crate::flow::ended;

testkit::on_each_server!(
    work_is_done_in_checkpointed_steps_by_the_first_process,
    nobody_holds_a_flow_that_sleeps,
    a_function_that_fails_twice_is_retried,
    a_function_that_fails_for_good_ends_its_flow_and_the_id_keeps_that,
);

async fn work_is_done_in_checkpointed_steps_by_the_first_process(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    let start = Instant::now();
    join_all(FLOWS.map(async |flow| {
        let id = format!("work-{}", flow.name);
        let answer = http.post(&format!("/{}?id={id}&work=1500ms", flow.name)).await;
        answer.expect_message(flow.message());
        let end = ended(&system.log, &http, &id).await;
        assert_eq!(end["result"], flow.result());
        assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());

        let group = flow.working_group();
        let promise = end["invocations"][flow.works]["id"].as_str().unwrap();
        for message in ["step started", "step done"] {
            let lines = system.log.all(|line| line.in_run(message, promise));
            let lines = lines.iter().map(|line| (line.field("step").unwrap(), line.instance()));
            let lines: Vec<_> = lines.collect();
            assert_eq!(lines, [("work 1/2", group), ("work 2/2", group)], "{message}");
        }
    }))
    .await;
    system.stop().await
}

async fn nobody_holds_a_flow_that_sleeps(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    let start = Instant::now();
    join_all(FLOWS.map(async |flow| {
        let id = format!("sleep-{}", flow.name);
        let request = async {
            http.post(&format!("/{}?id={id}&sleep=2s", flow.name))
                .await
                .expect_message(flow.message());
            ended(&system.log, &http, &id).await
        };
        let watch = until(&system.log, "a flow that nobody holds", async || {
            let now = http.get(&format!("/flows/{id}")).await.body;
            let sleeper = &now["invocations"][flow.sleeps];
            let held = now["invocations"].as_array()?.iter().any(|one| one["instance"].is_string());
            (sleeper["state"] == "pending" && !held).then_some(())
        });
        let (end, ()) = futures_util::join!(request, watch);
        assert_eq!(end["result"], flow.result());
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    }))
    .await;
    system.stop().await
}

/// The errors of the events with `message` in the run of `promise`.
fn errors(system: &System, promise: &str, message: &str) -> Vec<String> {
    let lines = system.log.all(|line| line.in_run(message, promise));
    lines.iter().map(|line| line.field("error").unwrap_or_default().to_owned()).collect()
}

async fn a_function_that_fails_twice_is_retried(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    join_all(FLOWS.map(async |flow| {
        let id = format!("fail-2-{}", flow.name);
        let answer = http.post(&format!("/{}?id={id}&fail=2", flow.name)).await;
        answer.expect_message(flow.message());
        let end = ended(&system.log, &http, &id).await;
        assert_eq!(end["result"], flow.result());
        let promise = end["invocations"][flow.fails]["id"].as_str().unwrap();
        let retried = errors(&system, promise, "step failed, retrying");
        let expected =
            [1, 2].map(|n| format!("application error: failed as requested (attempt {n}, fail=2)"));
        assert_eq!(retried, expected);
    }))
    .await;
    system.stop().await
}

async fn a_function_that_fails_for_good_ends_its_flow_and_the_id_keeps_that(
    server: Server,
) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    let error = "failed as requested (attempt 5, fail=5)";
    join_all(FLOWS.map(async |flow| {
        let id = format!("fail-5-{}", flow.name);
        let path = format!("/{}?id={id}&fail=5", flow.name);
        let first = http.post(&path).await;
        let end = ended(&system.log, &http, &id).await;
        assert_eq!((&end["state"], &end["error"]), (&json!("rejected"), &json!(error)));
        assert_eq!(end["invocations"][flow.fails]["state"], "rejected");
        if flow.is_detached() {
            // Nobody waits for it: its start succeeded, and only GET shows how it ended.
            first.expect_message(flow.message());
            return;
        }
        for answer in [first, http.post(&path).await] {
            answer.expect_problem(502);
            assert_eq!((&answer.body["error"], &answer.body["id"]), (&json!(error), &json!(id)));
            let name = flow.name;
            let detail = format!(
                "{name} failed: {error}; this result is final; retry with a new id, for example POST /{name}?id=…"
            );
            assert_eq!(answer.detail(), detail);
        }
        let promise = end["invocations"][flow.fails]["id"].as_str().unwrap();
        assert_eq!(errors(&system, promise, "step failed, retrying").len(), 4);
        assert_eq!(errors(&system, promise, "step failed, no attempts left").len(), 1);
    }))
    .await;
    system.stop().await
}
