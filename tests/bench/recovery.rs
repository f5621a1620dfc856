//! Processes that are killed or frozen while they hold work: how long it takes until another process
//! holds it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use testkit::{FLOWS, flows::Flow, process::signal};
use tokio::time::{sleep, timeout};

use crate::{drive::Client, program::Deployment};

/// A takeover and the end of a flow take seconds.
const LONGEST: Duration = Duration::from_secs(120);

/// The pause between two looks at a flow: the precision of the figures.
const POLL: Duration = Duration::from_millis(10);

/// Faults happen at different moments after the work began, from the first to the last.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_millis(1600);

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`. It is started again afterwards.
    Kill,
    /// SIGSTOP. It is woken afterwards.
    Freeze,
}

/// Seconds from each fault until another process held the work.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    pub kill: Vec<f64>,
    pub freeze: Vec<f64>,
}

/// Disturbs the process that holds the work, `count` times, one third in each flow. Each service needs
/// two processes.
pub async fn measure(
    deployment: &Deployment,
    client: &Client,
    fault: Fault,
    count: usize,
) -> Vec<f64> {
    let of_flow = async |index: usize, flow: &Flow| {
        let mut seconds = Vec::new();
        for n in (index..count).step_by(FLOWS.len()) {
            let after = FIRST + (LAST - FIRST) * n as u32 / count as u32;
            let id = client.id(&format!("{fault:?}-{n}"));
            seconds.push(recover(deployment, client, fault, flow, &id, after).await);
        }
        seconds
    };
    let all = FLOWS.iter().enumerate().map(|(index, flow)| of_flow(index, flow));
    join_all(all).await.concat()
}

/// Starts a flow, and disturbs the process that holds its work, so long after it began.
async fn recover(
    deployment: &Deployment,
    client: &Client,
    fault: Fault,
    flow: &Flow,
    id: &str,
    after: Duration,
) -> f64 {
    let gateway = &deployment.gateway;
    let inspect = async || client.inspect(gateway, id).await;
    let holder = async || {
        let instance = &inspect().await["invocations"][flow.works]["instance"];
        instance.as_str().map(str::to_owned)
    };
    let watch = async {
        let first = loop {
            match holder().await {
                Some(holder) => break holder,
                None => sleep(POLL).await,
            }
        };
        sleep(after).await;
        let at = Instant::now();
        let pid = deployment.pid(&first);
        signal(pid, if fault == Fault::Kill { "KILL" } else { "STOP" });
        let elapsed = loop {
            match holder().await {
                Some(holder) if holder != first => break at.elapsed(),
                _ => sleep(POLL).await,
            }
        };
        match fault {
            Fault::Kill => deployment.restart(&first).await,
            Fault::Freeze => signal(pid, "CONT"),
        }
        while inspect().await["state"] == "pending" {
            sleep(POLL).await;
        }
        elapsed.as_secs_f64()
    };
    let path = format!("/{}?id={id}&work=3s", flow.name);
    let both = futures_util::future::join(client.flow(gateway, &path), watch);
    let (succeeded, elapsed) = timeout(LONGEST, both)
        .await
        .unwrap_or_else(|_| panic!("nobody has taken over {id}, or it has not ended"));
    assert!(succeeded, "the flow {id} failed");
    elapsed
}
