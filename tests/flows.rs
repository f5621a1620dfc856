//! The three flows, as a client of the gateway sees them.

#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
mod support;

#[path = "flows/start.rs"]
mod start;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, future::join_all};
use reqwest::Method;
use serde_json::{Value, json};

use start::{
    services_that_start_before_the_server_wait_for_it, without_a_server_requests_fail_in_time,
};
use support::{Http, Log, Server, System, until};

/// A flow, and who does what in it.
struct Flow {
    name: &'static str,
    /// What `POST` answers with.
    message: fn() -> Value,
    /// What `GET /flows/{id}` has as its result in the end.
    result: fn() -> Value,
    functions: [&'static str; 3],
    /// The function, of those three, and the service that `work`.
    works: (usize, &'static str),
    /// The function, of those three, that begins with `sleep`.
    sleeps: usize,
    /// The function, of those three, that fails.
    fails: usize,
}

const FLOWS: [Flow; 3] = [
    Flow {
        name: "await-chain",
        message: || json!(3),
        result: || json!(3),
        functions: ["foo", "bar", "baz"],
        works: (1, "service-b"),
        sleeps: 2,
        fails: 2,
    },
    Flow {
        name: "detached-chain",
        message: || json!("detached-chain started"),
        result: || Value::Null,
        functions: ["qux", "quz", "cog"],
        works: (1, "service-e"),
        sleeps: 2,
        fails: 2,
    },
    Flow {
        name: "fan-out-workflow",
        message: || json!(3),
        result: || json!(3),
        functions: ["zim", "rax", "dop"],
        works: (0, "service-g"),
        sleeps: 1,
        fails: 2,
    },
];

on_each_server!(
    the_three_flows_give_their_exact_answers,
    both_processes_of_each_service_take_part,
    a_repeated_request_reconnects_to_the_same_flow,
    work_is_done_in_checkpointed_steps_by_the_first_process,
    nobody_holds_a_flow_that_sleeps,
    a_function_that_fails_twice_is_retried,
    a_function_that_fails_for_good_ends_its_flow_and_the_id_keeps_that,
    a_flow_can_be_watched_and_its_ids_are_the_real_ones,
    a_known_id_with_other_options_or_another_flow_is_refused,
    a_client_that_hangs_up_changes_nothing,
    who_waits_too_long_is_told_where_to_look,
    a_flow_whose_time_is_over_says_so,
    services_that_start_before_the_server_wait_for_it,
    without_a_server_requests_fail_in_time,
);

/// Waits until the flow `id` has ended: what `GET /flows/{id}` says then.
async fn ended(log: &Log, http: &Http, id: &str) -> Value {
    until(log, &format!("the end of flow {id}"), async || {
        let answer = http.get(&format!("/flows/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.body["state"] != "pending").then_some(answer.body)
    })
    .await
}

async fn the_three_flows_give_their_exact_answers(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    for flow in FLOWS {
        let answer = http.post(&format!("/{}?id=exact-{}", flow.name, flow.name)).await;
        let id = format!("exact-{}", flow.name);
        answer.expect_start((flow.message)(), &id, false);
        let flow_now = ended(&system.log, &http, &id).await;
        assert_eq!(flow_now["state"], "resolved");
        assert_eq!(flow_now["result"], (flow.result)());
    }
    system.log.line("service-f to print 3", |line| line.text == "3").await;
}

async fn both_processes_of_each_service_take_part(server: Server) {
    const EACH: usize = 40;
    let system = System::shared(server).await;
    let http = system.http();
    let requests = (0..EACH).flat_map(|n| FLOWS.map(|flow| (n, flow))).map(|(n, flow)| {
        let (http, log) = (&http, &system.log);
        async move {
            let id = format!("anycast-{}-{n}", flow.name);
            let answer = http.post(&format!("/{}?id={id}", flow.name)).await;
            answer.expect_message((flow.message)());
            ended(log, http, &id).await;
        }
    });
    futures_util::stream::iter(requests).for_each_concurrent(4, |request| request).await;
    let is_mine = |promise: &str| promise.starts_with("anycast-");
    let runs = system
        .log
        .all(|line| line.text.contains("run begins") && line.field("promise").is_some_and(is_mine));
    let ran: BTreeSet<_> = runs.iter().map(|line| line.instance()).collect();
    let all = system.pids();
    let all: BTreeSet<_> =
        all.keys().map(String::as_str).filter(|name| name.starts_with("service-")).collect();
    assert_eq!(all.len(), 18);
    assert_eq!(ran, all);
}

async fn a_repeated_request_reconnects_to_the_same_flow(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    for flow in FLOWS {
        // Without an id: the flow's static one.
        let path = format!("/{}", flow.name);
        let first = http.post(&path).await;
        let again = http.post(&path).await;
        // As the query has it, as the header has it, and as a structured field in quotes.
        let id = format!("again-{}", flow.name);
        let by_query = http.post(&format!("{path}?id={id}")).await;
        let by_key = http.send(Method::POST, &path, &[("idempotency-key", &id)]).await.unwrap();
        let quoted = format!("\"{id}\"");
        let by_field = http.send(Method::POST, &path, &[("Idempotency-Key", &quoted)]).await;
        for (answer, id, reconnected) in [
            (first, flow.name, false),
            (again, flow.name, true),
            (by_query, &id, false),
            (by_key, &id, true),
            (by_field.unwrap(), &id, true),
        ] {
            answer.expect_start((flow.message)(), id, reconnected);
        }
    }
}

async fn work_is_done_in_checkpointed_steps_by_the_first_process(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    let start = Instant::now();
    join_all(FLOWS.map(async |flow| {
        let id = format!("work-{}", flow.name);
        let answer = http.post(&format!("/{}?id={id}&work=1500ms", flow.name)).await;
        answer.expect_message((flow.message)());
        let flow_now = ended(&system.log, &http, &id).await;
        assert_eq!(flow_now["result"], (flow.result)());
        assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());

        let (function, service) = flow.works;
        let promise = flow_now["invocations"][function]["id"].as_str().unwrap();
        for (message, lines) in ["step begins", "step done"]
            .map(|message| (message, system.log.all(|line| line.in_run(message, promise))))
        {
            let lines: Vec<_> =
                lines.iter().map(|line| (line.field("step").unwrap(), line.instance())).collect();
            assert_eq!(lines, [("work 1/2", service), ("work 2/2", service)], "{message}");
        }
    }))
    .await;
}

async fn nobody_holds_a_flow_that_sleeps(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    let start = Instant::now();
    join_all(FLOWS.map(async |flow| {
        let id = format!("sleep-{}", flow.name);
        let request = async {
            http.post(&format!("/{}?id={id}&sleep=2s", flow.name))
                .await
                .expect_message((flow.message)());
            ended(&system.log, &http, &id).await
        };
        let watch = until(&system.log, "a flow that nobody holds", async || {
            let now = http.get(&format!("/flows/{id}")).await.body;
            let sleeper = &now["invocations"][flow.sleeps];
            let held = now["invocations"].as_array()?.iter().any(|one| one["instance"].is_string());
            (sleeper["state"] == "pending" && !held).then_some(())
        });
        let (flow_now, ()) = futures_util::join!(request, async {
            watch.await;
            assert!(start.elapsed() < Duration::from_secs(2), "it was seen asleep too late");
        });
        assert_eq!(flow_now["result"], (flow.result)());
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    }))
    .await;
}

/// What the step that fails says of its attempts.
fn failures(system: &System, promise: &str, message: &str) -> Vec<String> {
    let lines = system.log.all(|line| line.in_run(message, promise));
    lines.iter().map(|line| line.field("error").unwrap_or_default().to_owned()).collect()
}

async fn a_function_that_fails_twice_is_retried(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    join_all(FLOWS.map(async |flow| {
        let id = format!("fail-2-{}", flow.name);
        let answer = http.post(&format!("/{}?id={id}&fail=2", flow.name)).await;
        answer.expect_message((flow.message)());
        let flow_now = ended(&system.log, &http, &id).await;
        assert_eq!(flow_now["result"], (flow.result)());
        let promise = flow_now["invocations"][flow.fails]["id"].as_str().unwrap();
        let retried = failures(&system, promise, "step failed, will be tried again");
        let expected =
            [1, 2].map(|n| format!("application error: failed as asked, attempt {n} (fail=2)"));
        assert_eq!(retried, expected);
    }))
    .await;
}

async fn a_function_that_fails_for_good_ends_its_flow_and_the_id_keeps_that(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    let error = "failed as asked, attempt 5 (fail=5)";
    join_all(FLOWS.map(async |flow| {
        let id = format!("fail-5-{}", flow.name);
        let path = format!("/{}?id={id}&fail=5", flow.name);
        let first = http.post(&path).await;
        let flow_now = ended(&system.log, &http, &id).await;
        assert_eq!((&flow_now["state"], &flow_now["error"]), (&json!("rejected"), &json!(error)));
        assert_eq!(flow_now["invocations"][flow.fails]["state"], "rejected");
        if flow.name == "detached-chain" {
            // Nobody waits for it: its start went well, and GET alone tells how it ended.
            first.expect_message((flow.message)());
            return;
        }
        for answer in [first, http.post(&path).await] {
            answer.expect_problem(502);
            assert_eq!(answer.body["error"], error);
            assert_eq!(answer.body["id"], json!(id));
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(error) && detail.contains(&format!("/{}?id=", flow.name)));
        }
        let promise = flow_now["invocations"][flow.fails]["id"].as_str().unwrap();
        assert_eq!(failures(&system, promise, "step failed, will be tried again").len(), 4);
        assert_eq!(failures(&system, promise, "step failed for good").len(), 1);
    }))
    .await;
}

async fn a_flow_can_be_watched_and_its_ids_are_the_real_ones(server: Server) {
    let system = System::shared(server).await;
    let (http, resonate) = (system.http(), system.resonate());
    join_all(FLOWS.map(async |flow| {
        let id = format!("watch-{}", flow.name);
        let (working, service) = flow.works;
        let path = format!("/{}?id={id}&work=2s", flow.name);
        let request = http.post(&path);
        let watch = async {
            // While it works: one process holds it, and what comes after was not called yet.
            let step = system.log.line("the second step", |line| {
                line.field("step") == Some("work 2/2")
                    && line.text.contains("step begins")
                    && line.field("promise").is_some_and(|promise| promise.starts_with(&id))
            });
            let step = step.await;
            let now = http.get(&format!("/flows/{id}")).await.body;
            assert_eq!((&now["id"], &now["flow"]), (&json!(id), &json!(flow.name)));
            assert_eq!((&now["state"], &now["result"]), (&json!("pending"), &Value::Null));
            for (n, invocation) in now["invocations"].as_array().unwrap().iter().enumerate() {
                assert_eq!(invocation["function"], flow.functions[n]);
                let instance = (n == working).then_some(service);
                assert_eq!(invocation["instance"].as_str(), instance, "{now:#}");
                if n > working {
                    assert_eq!(invocation["state"], Value::Null, "{now:#}");
                }
            }
            assert_eq!(step.instance(), service);
        };
        futures_util::join!(request, watch).0.expect_message((flow.message)());

        let now = ended(&system.log, &http, &id).await;
        for (n, invocation) in now["invocations"].as_array().unwrap().iter().enumerate() {
            assert_eq!(invocation["state"], "resolved", "{now:#}");
            assert_eq!(invocation["instance"], Value::Null, "{now:#}");
            let promise = resonate.promise(invocation["id"].as_str().unwrap()).await;
            let call = BASE64_STANDARD.decode(promise["param"]["data"].as_str().unwrap()).unwrap();
            let call: Value = serde_json::from_slice(&call).unwrap();
            assert_eq!(call["func"], flow.functions[n], "{invocation}");
        }
    }))
    .await;
    http.get("/flows/nobody-knows-it").await.expect_problem(404);
}

async fn a_known_id_with_other_options_or_another_flow_is_refused(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    let path = "/await-chain?id=known";
    http.post(&format!("{path}&work=100ms&sleep=50ms&fail=1")).await.expect_message(3);
    // Left out, or written in another way: no conflict.
    http.post(path).await.expect_message(3);
    http.post(&format!("{path}&fail=1")).await.expect_message(3);
    for (path, says) in [
        ("/await-chain?id=known&work=200ms", "with work=100ms"),
        ("/await-chain?id=known&work=100ms&sleep=1s", "with sleep=50ms"),
        ("/await-chain?id=known&fail=2", "with fail=1"),
        ("/fan-out-workflow?id=known", "is the id of a await-chain, not of a fan-out-workflow"),
        ("/detached-chain?id=known&fail=1", "is the id of a await-chain, not of a detached-chain"),
    ] {
        let answer = http.post(path).await;
        answer.expect_problem(422);
        assert!(answer.body["detail"].as_str().unwrap().contains(says), "{path}: {}", answer.text);
    }
    http.post("/await-chain?id=known-plain").await.expect_message(3);
    let answer = http.post("/await-chain?id=known-plain&fail=0").await;
    answer.expect_problem(422);
    assert!(answer.text.contains("was started without it"), "{}", answer.text);
}

async fn a_client_that_hangs_up_changes_nothing(server: Server) {
    let system = System::shared(server).await;
    let http = system.http();
    let id = "hangs-up";
    let path = format!("/await-chain?id={id}&work=1500ms");
    {
        let request = http.post(&path);
        let step =
            system.log.line("the first step", |line| line.in_run("step begins", "hangs-up.0"));
        tokio::select! {
            answer = request => panic!("answered before the hang-up: {}", answer.text),
            _ = step => {}
        }
        // Here the request, and with it its connection, is dropped.
    }
    assert_eq!(ended(&system.log, &http, id).await["result"], 3);
    http.post(&path).await.expect_start(json!(3), id, true);
    assert_eq!(system.log.all(|line| line.in_run("step begins", "hangs-up.0")).len(), 2);
}

async fn who_waits_too_long_is_told_where_to_look(server: Server) {
    let system = System::shared(server).await;
    let http = system.another_gateway("gateway-await", &[("GATEWAY_AWAIT", "200ms")]).await;
    let answer = http.post("/await-chain?id=late&work=1s").await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.header("location"), "/flows/late");
    assert_eq!((&answer.body["id"], &answer.body["state"]), (&json!("late"), &json!("pending")));
    assert_eq!(ended(&system.log, &http, "late").await["result"], 3);
    http.post("/await-chain?id=late&work=1s").await.expect_message(3);
}

async fn a_flow_whose_time_is_over_says_so(server: Server) {
    let system = System::shared(server).await;
    let http = system.another_gateway("gateway-timeout", &[("GATEWAY_FLOW_TIMEOUT", "1s")]).await;
    for path in ["/await-chain?id=over-a&sleep=10s", "/fan-out-workflow?id=over-f&sleep=10s"] {
        for _ in 0..2 {
            let answer = http.post(path).await;
            answer.expect_problem(504);
            assert!(answer.text.contains("?id="), "how to start anew: {}", answer.text);
        }
    }
    let now = http.get("/flows/over-a").await.body;
    assert_eq!((&now["state"], &now["error"]), (&json!("rejected_timedout"), &json!("timed out")));
}
