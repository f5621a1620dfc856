//! Containers that die, and what is lost with them: nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Answer, Deployment, deployment::Server};

use crate::trace::trace;

/// Sends a request and returns at once. The task waits for the answer.
pub fn post(
    deployment: &Deployment,
    path: &str,
) -> tokio::task::JoinHandle<reqwest::Result<Answer>> {
    let (http, path) = (deployment.gateway(), path.to_owned());
    tokio::spawn(async move { http.send(reqwest::Method::POST, &path, &[]).await })
}

/// Waits until `service-b` has finished a step of the await chain `id`.
pub async fn works(deployment: &Deployment, id: &str) {
    let holder = deployment.name("service-b");
    deployment
        .until(&format!("a step of {id} in service-b"), async || {
            (deployment.events(&holder, "step done", id) > 0).then_some(())
        })
        .await;
}

/// The instance that holds `bar` of an await chain.
async fn holder(deployment: &Deployment, id: &str) -> Value {
    let mut flow = deployment.gateway().get(&format!("/flows/{id}")).await;
    flow.body["invocations"][1]["instance"].take()
}

pub async fn a_killed_service_loses_nothing_and_stays_dead(deployment: &Deployment) {
    let service = deployment.name("service-b");
    let answer = post(deployment, "/await-chain?id=kill-service&work=5s");
    works(deployment, "kill-service").await;
    assert_eq!(holder(deployment, "kill-service").await, "service-b");
    // Finished steps are in Jaeger while the process works: they outlive it.
    let flow = deployment.gateway().get("/flows/kill-service").await;
    let trace_id = flow.body["trace_id"].as_str().unwrap().to_owned();
    trace(deployment, &trace_id, |spans| spans.iter().any(|span| span.name == "work 1/5")).await;
    deployment.docker("kill", &service);

    let answer = answer.await.unwrap().unwrap();
    answer.expect_start(json!(3), "kill-service", false);
    assert_eq!(answer.body["trace_id"], trace_id);
    let spans = trace(deployment, &trace_id, |spans| {
        let has = |name: &str| spans.iter().any(|span| span.name == name);
        has("bar") && has("work 5/5") && has("lease of service-b expired")
    })
    .await;
    let count = |step: &i32| {
        let name = format!("work {step}/5");
        spans.iter().filter(|span| span.name == name).count()
    };
    // No step runs twice. The span of a step that ended just before the kill may be lost.
    assert!((1..=5).all(|step| count(&step) <= 1), "{spans:#?}");
    assert!((1..=5).filter(|step| count(step) == 0).count() <= 1, "{spans:#?}");
    let takeovers: Vec<_> = spans
        .iter()
        .filter(|span| span.name.starts_with("bar on "))
        .filter(|span| span.attribute("resonate.takeover").as_deref() == Some("true"))
        .collect();
    let [takeover] = takeovers[..] else { panic!("expected one takeover: {spans:#?}") };
    let replica = &deployment.containers_of("service-b-replica")[0][..12];
    assert_eq!(takeover.name, format!("bar on service-b-replica-{replica}"));

    let state = deployment.inspect(&service);
    assert_eq!(state["State"]["Status"], "exited", "{}", state["State"]);
    assert_eq!((&state["State"]["ExitCode"], &state["RestartCount"]), (&json!(137), &json!(0)));
    deployment.docker("start", &service);
    deployment.healthy(&service).await;
    // Work goes to the first process of the group, which is back.
    let answer = deployment.gateway().post("/await-chain?id=back-again&work=1s").await;
    answer.expect_message(3);
    assert!(deployment.events(&service, "run started", "back-again") > 0);
}

pub async fn the_crash_button_kills_a_named_service_and_a_replica(deployment: &Deployment) {
    for service in ["service-b", "service-b-replica"] {
        let container = deployment.containers_of(service).remove(0);
        let short = &container[..12];
        let instance = match service {
            "service-b" => "service-b".to_owned(),
            replica => format!("{replica}-{short}"),
        };
        let path = format!("/instances/service-b/{instance}/crash");
        let answer = deployment.gateway().post(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body["kill"], format!("docker kill {short}"));
        assert_eq!(answer.body["start"], format!("docker start {short}"));
        let state = deployment
            .until("the end of the container", async || {
                let state = deployment.inspect(&container)["State"].take();
                (state["Running"] == false).then_some(state)
            })
            .await;
        assert_eq!(state["ExitCode"], 137, "{state}");
        deployment.docker("start", &container);
        deployment.healthy(&container).await;
    }
    deployment.gateway().post("/await-chain?id=both-back").await.expect_message(3);
}

pub async fn a_killed_gateway_loses_nothing(deployment: &Deployment) {
    let gateway = deployment.name("gateway");
    let answer = post(deployment, "/await-chain?id=kill-gateway&work=3s");
    works(deployment, "kill-gateway").await;
    deployment.docker("kill", &gateway);
    assert!(answer.await.unwrap().is_err(), "a dead gateway has answered");
    deployment.docker("start", &gateway);
    deployment.ready().await;
    let answer = deployment.gateway().post("/await-chain?id=kill-gateway").await;
    answer.expect_start(json!(3), "kill-gateway", true);
}

pub async fn a_killed_jaeger_hinders_no_flow(deployment: &Deployment) {
    let jaeger = deployment.name("jaeger");
    deployment.docker("kill", &jaeger);
    let gateway = deployment.gateway();
    let start = Instant::now();
    for n in 0..5 {
        gateway.post(&format!("/await-chain?id=no-jaeger-{n}")).await.expect_message(3);
        gateway.post(&format!("/fan-out-workflow?id=no-jaeger-fan-{n}")).await.expect_message(3);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?} for ten flows", start.elapsed());

    deployment.docker("start", &jaeger);
    // The processes reconnect: all spans of a later flow arrive.
    let mut attempt = 0;
    deployment
        .until("a whole trace in the new Jaeger", async || {
            attempt += 1;
            let answer = gateway.post(&format!("/await-chain?id=jaeger-back-{attempt}")).await;
            answer.expect_message(3);
            let path = format!("/api/v3/traces/{}", answer.body["trace_id"].as_str().unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
            let found = deployment.jaeger().send(reqwest::Method::GET, &path, &[]).await.ok()?;
            let all =
                ["foo on ", "bar on ", "baz on "].iter().all(|name| found.text.contains(name));
            all.then_some(())
        })
        .await;
}

pub async fn a_killed_server_loses_nothing(deployment: &Deployment) {
    let server = deployment.name("resonate");
    let answer = post(deployment, "/await-chain?id=kill-server&work=5s");
    works(deployment, "kill-server").await;
    deployment.docker("kill", &server);
    deployment.docker("start", &server);
    answer.await.unwrap().unwrap().expect_message(3);
    let steps: usize = ["service-b", "service-b-replica"]
        .iter()
        .flat_map(|service| deployment.containers_of(service))
        .map(|container| deployment.events(&container, "step done", "kill-server"))
        .sum();
    // The five steps of `work`, and one more if the server was killed while it stored a result.
    assert!((5..=6).contains(&steps), "{steps} steps");
}

pub async fn stop_drains_within_the_grace_period(deployment: &Deployment) {
    let answer = post(deployment, "/await-chain?id=drained&work=6s");
    works(deployment, "drained").await;
    deployment.compose(&["stop"]);
    // The gateway stops after the services and says where to look.
    let answer = answer.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("location")), (202, "/flows/drained"));
    let theirs = [deployment.name("resonate"), deployment.name("jaeger")];
    let mut ours = 0;
    for container in deployment.inspect_all() {
        let name = container["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
        assert_eq!(container["State"]["Running"], false, "{name}");
        if !theirs.contains(&name) {
            // A container that exceeds the grace period is killed: 137.
            assert_eq!(container["State"]["ExitCode"], 0, "{name}: {}", container["State"]);
            ours += 1;
        }
    }
    assert_eq!(ours, 19);
    if deployment.server == Server::Official {
        deployment.up();
        deployment.ready().await;
        assert_eq!(deployment.ended("drained").await["result"], 3);
    }
}

pub async fn down_and_up_keep_the_flows(deployment: &Deployment) {
    let gateway = deployment.gateway();
    gateway.post("/await-chain?id=kept").await.expect_message(3);
    let waits = post(deployment, "/await-chain?id=kept-open&sleep=20s");
    deployment
        .until("the timer of a flow", async || {
            let flow = deployment.gateway().get("/flows/kept-open").await;
            (flow.body["invocations"][2]["state"] == "pending").then_some(())
        })
        .await;
    deployment.down(false);
    // It does not matter whether the gateway could still answer.
    let _ = waits.await;
    deployment.up();
    deployment.ready().await;
    deployment.gateway().post("/await-chain?id=kept").await.expect_start(json!(3), "kept", true);
    assert_eq!(deployment.ended("kept-open").await["result"], 3);
}
