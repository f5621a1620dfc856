//! The three flows as a client of the gateway sees them.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, future::join_all};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{FLOWS, Server, Stopped, System, flows};

use crate::flow::ended;

testkit::on_each_server!(
    the_three_flows_give_their_exact_answers,
    both_processes_of_each_service_take_part,
    a_repeated_request_reconnects_to_the_same_flow,
    a_flow_can_be_watched_and_its_ids_are_the_real_ones,
    a_known_id_with_other_options_or_another_flow_is_refused,
    a_client_that_hangs_up_changes_nothing,
    who_waits_too_long_is_told_where_to_look,
    a_flow_whose_time_is_over_says_so,
    a_long_time_out_of_a_flow_is_that_of_its_calls_and_steps,
);

async fn the_three_flows_give_their_exact_answers(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    for flow in FLOWS {
        let id = format!("exact-{}", flow.name);
        let answer = http.post(&format!("/{}?id={id}", flow.name)).await;
        answer.expect_start(flow.message(), &id, false);
        let end = ended(&system.log, &http, &id).await;
        assert_eq!((&end["state"], &end["result"]), (&json!("resolved"), &flow.result()));
    }
    system.log.line("3, printed by service-f", |line| line.text == "3").await;
    system.stop().await
}

async fn both_processes_of_each_service_take_part(server: Server) -> Stopped {
    const FLOWS_OF_EACH_KIND: usize = 40;
    let system = System::shared(server).await;
    let http = system.http();
    let requests = (0..FLOWS_OF_EACH_KIND).flat_map(|n| FLOWS.map(|flow| (n, flow)));
    let requests = requests.map(|(n, flow)| {
        let (http, log) = (&http, &system.log);
        async move {
            let id = format!("anycast-{}-{n}", flow.name);
            let answer = http.post(&format!("/{}?id={id}", flow.name)).await;
            answer.expect_message(flow.message());
            ended(log, http, &id).await;
        }
    });
    futures_util::stream::iter(requests).for_each_concurrent(4, |request| request).await;
    let is_mine = |promise: &str| promise.starts_with("anycast-");
    let runs = system
        .log
        .all(|line| line.says("run started") && line.field("promise").is_some_and(is_mine));
    let took_part: BTreeSet<_> = runs.iter().map(|line| line.instance()).collect();
    let pids = system.pids();
    let all = pids.keys().map(String::as_str).filter(|name| name.starts_with("service-"));
    let all: BTreeSet<_> = all.collect();
    assert_eq!(all.len(), 2 * flows::groups().count());
    assert_eq!(took_part, all);
    system.stop().await
}

async fn a_repeated_request_reconnects_to_the_same_flow(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    for flow in FLOWS {
        // Without an id, a request means the flow's static one.
        let path = format!("/{}", flow.name);
        let first = http.post(&path).await;
        ended(&system.log, &http, flow.name).await;
        let again = http.post(&path).await;
        // The id as a parameter, as a header, and as a header in quotes (a structured field).
        let id = format!("again-{}", flow.name);
        let by_parameter = http.post(&format!("{path}?id={id}")).await;
        ended(&system.log, &http, &id).await;
        let by_header = http.send(Method::POST, &path, &[("idempotency-key", &id)]).await.unwrap();
        let quoted = format!("\"{id}\"");
        let by_field = http.send(Method::POST, &path, &[("Idempotency-Key", &quoted)]).await;
        for (answer, id, reconnected) in [
            (first, flow.name, false),
            (again, flow.name, true),
            (by_parameter, &id, false),
            (by_header, &id, true),
            (by_field.unwrap(), &id, true),
        ] {
            let message = if reconnected { flow.message_again() } else { flow.message() };
            answer.expect_start(message, id, reconnected);
        }
    }
    system.stop().await
}

async fn a_flow_can_be_watched_and_its_ids_are_the_real_ones(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let (http, resonate) = (system.http(), system.resonate());
    join_all(FLOWS.map(async |flow| {
        let id = format!("watch-{}", flow.name);
        let path = format!("/{}?id={id}&work=2s", flow.name);
        let request = http.post(&path);
        let watch = async {
            // While the function works, one process holds it, and later ones are not called yet.
            let step = system.log.line("the second step", |line| {
                line.says("step started")
                    && line.field("step") == Some("work 2/2")
                    && line.field("promise").is_some_and(|promise| promise.starts_with(&id))
            });
            let step = step.await;
            let now = http.get(&format!("/flows/{id}")).await.body;
            assert_eq!((&now["id"], &now["flow"]), (&json!(id), &json!(flow.name)));
            assert_eq!((&now["state"], &now["result"]), (&json!("pending"), &Value::Null));
            for (n, invocation) in now["invocations"].as_array().unwrap().iter().enumerate() {
                assert_eq!(invocation["function"], flow.functions[n].name);
                let instance = (n == flow.works).then_some(flow.working_group());
                assert_eq!(invocation["instance"].as_str(), instance, "{now:#}");
                if n > flow.works {
                    assert_eq!(invocation["state"], Value::Null, "{now:#}");
                }
            }
            assert_eq!(step.instance(), flow.working_group());
        };
        futures_util::join!(request, watch).0.expect_message(flow.message());

        let end = ended(&system.log, &http, &id).await;
        for (n, invocation) in end["invocations"].as_array().unwrap().iter().enumerate() {
            assert_eq!(invocation["state"], "resolved", "{end:#}");
            assert_eq!(invocation["instance"], Value::Null, "{end:#}");
            let promise = resonate.promise(invocation["id"].as_str().unwrap()).await;
            let call = BASE64_STANDARD.decode(promise["param"]["data"].as_str().unwrap()).unwrap();
            let call: Value = serde_json::from_slice(&call).unwrap();
            assert_eq!(call["func"], flow.functions[n].name, "{invocation}");
        }
    }))
    .await;
    let answer = http.get("/flows/nobody-knows-it").await;
    answer.expect_problem(404);
    assert_eq!(
        answer.detail(),
        "no such flow: nobody-knows-it; start it with POST /await-chain?id=nobody-knows-it"
    );
    system.stop().await
}

async fn a_known_id_with_other_options_or_another_flow_is_refused(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    let path = "/await-chain?id=known";
    http.post(&format!("{path}&work=100ms&sleep=50ms&fail=1")).await.expect_message(3);
    // Omitted options do not conflict.
    http.post(path).await.expect_message(3);
    http.post(&format!("{path}&fail=1")).await.expect_message(3);
    let started =
        |options: &str| format!("flow \"known\" was started with {options}; choose another id");
    let other_flow = "id \"known\" already belongs to an await-chain flow; choose another id";
    for (path, detail) in [
        ("/await-chain?id=known&work=200ms", started("work=100ms, not work=200ms")),
        ("/await-chain?id=known&work=100ms&sleep=1s", started("sleep=50ms, not sleep=1s")),
        ("/await-chain?id=known&fail=2", started("fail=1, not fail=2")),
        ("/fan-out-workflow?id=known", other_flow.to_owned()),
        ("/detached-chain?id=known&fail=1", other_flow.to_owned()),
    ] {
        let answer = http.post(path).await;
        answer.expect_problem(422);
        assert_eq!(answer.detail(), detail, "{path}");
    }
    http.post("/await-chain?id=known-plain").await.expect_message(3);
    let answer = http.post("/await-chain?id=known-plain&fail=0").await;
    answer.expect_problem(422);
    assert_eq!(
        answer.detail(),
        "flow \"known-plain\" was started without fail, not fail=0; choose another id"
    );
    system.stop().await
}

async fn a_client_that_hangs_up_changes_nothing(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.http();
    let id = "hangs-up";
    let path = format!("/await-chain?id={id}&work=1500ms");
    {
        let request = http.post(&path);
        let step = |line: &testkit::Line| line.in_run("step started", "hangs-up.0");
        tokio::select! {
            answer = request => panic!("answered before the hang-up: {}", answer.text),
            _ = system.log.line("the first step", step) => {}
        }
        // Here the request is dropped, and its connection with it.
    }
    assert_eq!(ended(&system.log, &http, id).await["result"], 3);
    http.post(&path).await.expect_start(json!(3), id, true);
    assert_eq!(system.log.all(|line| line.in_run("step started", "hangs-up.0")).len(), 2);
    system.stop().await
}

async fn who_waits_too_long_is_told_where_to_look(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.another_gateway("gateway-await", &[("GATEWAY_AWAIT", "200ms")]).await;
    let answer = http.post("/await-chain?id=late&work=1s").await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.header("location"), "/flows/late");
    assert_eq!((&answer.body["id"], &answer.body["state"]), (&json!("late"), &json!("pending")));
    assert_eq!(ended(&system.log, &http, "late").await["result"], 3);
    http.post("/await-chain?id=late&work=1s").await.expect_message(3);
    system.stop().await
}

async fn a_flow_whose_time_is_over_says_so(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.another_gateway("gateway-timeout", &[("GATEWAY_FLOW_TIMEOUT", "1s")]).await;
    for (flow, id) in [("await-chain", "over-a"), ("fan-out-workflow", "over-f")] {
        for _ in 0..2 {
            let answer = http.post(&format!("/{flow}?id={id}&sleep=10s")).await;
            answer.expect_problem(504);
            let detail = format!(
                "{flow} timed out; this result is final; retry with a new id, for example POST /{flow}?id=…"
            );
            assert_eq!(answer.detail(), detail);
        }
    }
    let end = http.get("/flows/over-a").await.body;
    assert_eq!((&end["state"], &end["error"]), (&json!("rejected_timedout"), &json!("timed out")));
    system.stop().await
}

async fn a_long_time_out_of_a_flow_is_that_of_its_calls_and_steps(server: Server) -> Stopped {
    let system = System::shared(server).await;
    let http = system.another_gateway("gateway-long", &[("GATEWAY_FLOW_TIMEOUT", "72h")]).await;
    let resonate = system.resonate();
    for flow in FLOWS {
        let id = format!("long-{}", flow.name);
        http.post(&format!("/{}?id={id}&work=1ms", flow.name)).await.expect_message(flow.message());
        let end = ended(&system.log, &http, &id).await;
        let timeout = resonate.promise(&id).await["timeoutAt"].clone();
        let calls = end["invocations"].as_array().unwrap();
        let calls = calls.iter().map(|call| call["id"].as_str().unwrap().to_owned());
        let step = format!("{}.0", end["invocations"][flow.works]["id"].as_str().unwrap());
        for promise in calls.chain([step]) {
            assert_eq!(resonate.promise(&promise).await["timeoutAt"], timeout, "{promise}");
        }
    }
    system.stop().await
}
