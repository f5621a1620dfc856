//! Containers that are there and do not answer: paused, or without a network.

use std::time::{Duration, Instant};

use testkit::{Deployment, docker::docker};

use crate::kills::{post, works};

/// A takeover is due within the lease of 3 s and 3 s more. The server picks a process at random, and
/// again twice a second, so a test allows for bad luck.
const TAKEOVER: Duration = Duration::from_secs(15);

/// Unpauses a container, whatever happens: a paused one cannot be removed.
struct Paused(String);

impl Paused {
    /// Pauses a container of this deployment.
    async fn pause(deployment: &Deployment, container: &str) -> Self {
        let paused = Self(container.to_owned());
        // With version 1 of control groups, a busy kernel may not freeze it at the first attempt.
        deployment
            .until(&format!("a paused {container}"), async || {
                let output = docker(&["pause", container]).output().unwrap();
                output.status.success().then_some(())
            })
            .await;
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It fails if the container was not paused.
        let _ = docker(&["unpause", &self.0]).output();
    }
}

/// How many steps of the flow `id` have started in a container.
fn steps(deployment: &Deployment, container: &str, id: &str) -> usize {
    deployment.events(container, "step started", &format!("{id}."))
}

fn steps_of_replica(deployment: &Deployment, id: &str) -> usize {
    let replicas = deployment.containers_of("service-b-replica");
    replicas.iter().map(|container| steps(deployment, container, id)).sum()
}

/// Waits until the replica of service-b works on the flow `id`.
async fn replaced(deployment: &Deployment, id: &str, since: Instant) {
    deployment
        .until(&format!("a step of {id} in the replica"), async || {
            (steps_of_replica(deployment, id) > 0).then_some(())
        })
        .await;
    println!("{id}: the replica works {:.1?} after the fault", since.elapsed());
    assert!(since.elapsed() <= TAKEOVER, "{:?}", since.elapsed());
    // New work goes to the replica as well.
    let start = Instant::now();
    let path = format!("/await-chain?id={id}-meanwhile&work=1s");
    deployment.gateway().post(&path).await.expect_message(3);
    println!("{id}: a new flow with one step of 1 s took {:.1?}", start.elapsed());
    assert!(start.elapsed() <= TAKEOVER, "{:?}", start.elapsed());
}

/// Six steps, of which one runs twice if the fault came in the middle of it.
fn expect_steps(deployment: &Deployment, service: &str, id: &str) {
    let [first, replica] = [steps(deployment, service, id), steps_of_replica(deployment, id)];
    assert!((6..=7).contains(&(first + replica)), "{first} in service-b, {replica} in its replica");
}

/// Waits until new work runs in service-b again.
async fn is_back(deployment: &Deployment, service: &str, id: &str) {
    let start = Instant::now();
    let mut attempt = 0;
    deployment
        .until("work in service-b", async || {
            attempt += 1;
            let flow = format!("{id}-back-{attempt}");
            let path = format!("/await-chain?id={flow}&work=100ms");
            deployment.gateway().post(&path).await.expect_message(3);
            (steps(deployment, service, &flow) > 0).then_some(())
        })
        .await;
    println!("{id}: service-b works again after {:.1?}", start.elapsed());
    // Its health check failed meanwhile. Compose starts nothing that depends on an unhealthy container.
    deployment.healthy(service).await;
}

pub async fn a_paused_service_is_replaced(deployment: &Deployment) {
    let service = deployment.name("service-b");
    let answer = post(deployment, "/await-chain?id=paused&work=6s");
    works(deployment, "paused").await;
    let paused = Paused::pause(deployment, &service).await;
    replaced(deployment, "paused", Instant::now()).await;
    drop(paused);
    answer.await.unwrap().unwrap().expect_message(3);
    is_back(deployment, &service, "paused").await;
    expect_steps(deployment, &service, "paused");
}

pub async fn a_service_without_a_network_is_replaced(deployment: &Deployment) {
    let service = deployment.name("service-b");
    let answer = post(deployment, "/await-chain?id=cut-off&work=6s");
    works(deployment, "cut-off").await;
    let cut = Instant::now();
    deployment.network("disconnect", &service);
    replaced(deployment, "cut-off", cut).await;
    answer.await.unwrap().unwrap().expect_message(3);
    deployment.network("connect", &service);
    is_back(deployment, &service, "cut-off").await;
    expect_steps(deployment, &service, "cut-off");
    // The kernel of the server's container gives a dead connection up early.
    let server = deployment.inspect(&deployment.name("resonate"));
    assert_eq!(server["HostConfig"]["Sysctls"]["net.ipv4.tcp_retries2"], "3");
}
