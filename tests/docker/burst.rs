//! More flows at once than fit the memory of the containers.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use testkit::{Deployment, Http};
use tokio::time::{sleep, timeout};

/// How many flows there are at once, unless `ASYNC_RPC_BURST` says otherwise.
const FLOWS: usize = 1_000;

/// What a burst may take for each of its flows, which works for 15 s: a process holds only as many as
/// fit its memory.
const LONGEST_PER_FLOW: Duration = Duration::from_millis(900);

/// The gateway at the address of its container: the proxy of a published port dies of thousands of
/// connections (docker-proxy of Engine 20.10).
fn gateway(deployment: &Deployment) -> Http {
    let container = deployment.inspect(&deployment.name("gateway"));
    let networks = container["NetworkSettings"]["Networks"].as_object().unwrap();
    let outer = networks.iter().find(|(name, _)| name.ends_with("_outer")).unwrap().1;
    Http::new(&format!("{}:5000", outer["IPAddress"].as_str().unwrap()))
}

/// Sends the request until the flow has its result. Returns how often it was asked to come back, or
/// found no gateway.
async fn ask(gateway: &Http, n: usize) -> usize {
    let path = format!("/await-chain?id=burst-{n}&work=15s");
    let mut again = 0;
    loop {
        match gateway.send(reqwest::Method::POST, &path, &[]).await {
            Ok(answer) if answer.status == 200 => {
                answer.expect_message(3);
                return again;
            }
            Ok(answer) => assert!([202, 503].contains(&answer.status), "{path}: {answer:?}"),
            // The gateway has as many connections as it can hold.
            Err(error) => assert!(!error.is_builder(), "{error}"),
        }
        again += 1;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Kills the container that works, and starts it again. All its flows go to the replica, which has
/// its own.
async fn kill_and_start(deployment: &Deployment) {
    let service = deployment.name("service-b");
    let steps = || deployment.events(&service, "step done", "burst-");
    deployment.until("steps of the burst", async || (steps() > 100).then_some(())).await;
    deployment.docker("kill", &service);
    let replica = &deployment.containers_of("service-b-replica")[0];
    let taken_over = || deployment.events(replica, "step done", "burst-");
    let before = taken_over();
    deployment
        .until("steps of the replica", async || (taken_over() > before + 100).then_some(()))
        .await;
    deployment.docker("start", &service);
    deployment.healthy(&service).await;
}

pub async fn a_burst_ends_right_within_the_limits(deployment: &Deployment) {
    let flows = std::env::var("ASYNC_RPC_BURST").map_or(FLOWS, |text| text.parse().unwrap());
    let (gateway, start) = (gateway(deployment), Instant::now());
    let longest = LONGEST_PER_FLOW * flows as u32;
    let asking: FuturesUnordered<_> = (0..flows).map(|n| ask(&gateway, n)).collect();
    let all = asking.fold(0, async |sum, again| sum + again);
    let ((), all) = tokio::join!(kill_and_start(deployment), timeout(longest, all));
    let again = all.unwrap_or_else(|_| panic!("not all flows have ended within {longest:?}"));
    println!(
        "{flows} flows of 15 s ended right in {:.1?}; {again} requests were repeated",
        start.elapsed()
    );

    for container in deployment.inspect_all() {
        let (name, state) = (&container["Name"], &container["State"]);
        assert_eq!(state["OOMKilled"], false, "{name}: {state}");
        assert_eq!(state["Running"], true, "{name}: {state}");
    }
    let processes = ["service-a", "service-b", "service-c"].iter().flat_map(|group| {
        let first = deployment.name(group);
        deployment.containers_of(&format!("{group}-replica")).into_iter().chain([first])
    });
    for container in processes {
        let lost = deployment.events(&container, "run abandoned", "burst-");
        assert_eq!(lost, 0, "{container} lives, and has lost leases");
    }
}
