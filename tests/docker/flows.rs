//! Flows through the whole deployment.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::deployment::{Deployment, SERVICES, until};

/// The flows; what `POST` answers with; what they end with.
const FLOWS: [&str; 3] = ["await-chain", "detached-chain", "fan-out-workflow"];

/// Runs so many flows of each kind, with these ids, and waits until all have ended.
async fn run(deployment: &Deployment, flows: &[&str], id: &str, count: usize) {
    let requests = (0..count).flat_map(|n| flows.iter().map(move |flow| (n, flow)));
    let requests = requests.map(|(n, flow)| async move {
        let id = format!("{id}-{flow}-{n}");
        let answer = deployment.gateway().post(&format!("/{flow}?id={id}")).await;
        match *flow {
            "detached-chain" => answer.expect_message("detached-chain started"),
            _ => answer.expect_message(3),
        }
        assert_eq!(deployment.ended(&id).await["state"], "resolved");
    });
    stream::iter(requests).for_each_concurrent(4, |request| request).await;
}

pub async fn it_is_ready_within_20_seconds_and_says_what_to_try(deployment: &Deployment) {
    let mut took = Vec::new();
    // A machine that is busy with something else may need a second try.
    for _ in 0..3 {
        deployment.down(true);
        let start = Instant::now();
        deployment.up();
        deployment.ready().await;
        took.push(start.elapsed());
        if start.elapsed() <= Duration::from_secs(20) {
            break;
        }
    }
    println!("ready {took:.1?} after docker compose up");
    assert!(took.last().unwrap() <= &Duration::from_secs(20), "{took:?}");

    let greeting = deployment.logs(&deployment.name("gateway")).join("\n");
    for line in [
        format!("curl -X POST http://127.0.0.1:{}/await-chain\n", deployment.gateway_port),
        format!("docker kill {};", deployment.name("service-b")),
        format!("http://127.0.0.1:{}", deployment.jaeger_port),
    ] {
        assert!(greeting.contains(&line), "{line:?} is missing in:\n{greeting}");
    }
}

pub async fn the_three_flows_give_their_exact_answers(deployment: &Deployment) {
    let http = deployment.gateway();
    for (flow, message, result) in [
        ("await-chain", json!(3), json!(3)),
        ("detached-chain", json!("detached-chain started"), json!(null)),
        ("fan-out-workflow", json!(3), json!(3)),
    ] {
        let id = format!("exact-{flow}");
        http.post(&format!("/{flow}?id={id}")).await.expect_start(message, &id, false);
        let ended = deployment.ended(&id).await;
        assert_eq!((&ended["state"], &ended["result"]), (&json!("resolved"), &result), "{ended}");
    }
    let mut printers = deployment.containers_of("service-f");
    printers.extend(deployment.containers_of("service-f-replica"));
    until("service-f to print 3", async || {
        let lines = printers.iter().flat_map(|container| deployment.logs(container));
        lines.into_iter().any(|line| line == "3").then_some(())
    })
    .await;
}

pub async fn both_processes_of_each_service_take_part(deployment: &Deployment) {
    run(deployment, &FLOWS, "anycast", 40).await;
    for service in SERVICES {
        for compose_service in [service.to_owned(), format!("{service}-replica")] {
            for container in deployment.containers_of(&compose_service) {
                let runs = deployment.events(&container, "run begins", "anycast-");
                assert!(runs > 0, "{compose_service} ({container}) had no run");
            }
        }
    }
}

pub async fn a_service_can_be_scaled(deployment: &Deployment) {
    let scale = ["up", "--detach", "--no-build", "--scale", "service-b-replica=3"];
    deployment.compose(&scale);
    let replicas = deployment.containers_of("service-b-replica");
    assert_eq!(replicas.len(), 3);
    for replica in &replicas {
        deployment.healthy(replica).await;
    }
    run(deployment, &["await-chain"], "scaled", 60).await;
    for container in replicas.iter().chain([&deployment.name("service-b")]) {
        assert!(deployment.events(container, "run begins", "scaled-") > 0, "{container}");
        // The instance is called after the container, as `docker ps` shows it.
        let instance = format!("service-b-replica-{}", &container[..12]);
        let named = deployment.logs(container).iter().any(|line| line.contains(&instance));
        assert_eq!(named, container != &deployment.name("service-b"), "{instance}");
    }
}
