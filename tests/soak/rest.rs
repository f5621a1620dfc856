//! Memory, and what the processes use at rest.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use testkit::{
    System,
    process::{cpu, resident},
};
use tokio::time::sleep;

use crate::report::Report;

/// A process may take this much more memory than in the beginning: its allocator keeps what a burst
/// of work took, which depends on when it was measured. What leaks exceeds this soon.
const GROWTH: u64 = 12 << 20;

/// How long the processes rest before and while they are measured.
const SETTLE: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(5);

/// The most of a core that a process may use at rest, in percent. The official server polls its
/// database every millisecond, as in the deployment, and needs 7 % for that.
const BUSY: u64 = 20;

/// The resident memory of the largest process of each kind, in bytes.
pub struct Rest(BTreeMap<&'static str, u64>);

impl Rest {
    pub async fn measure(system: &System) -> Self {
        let mut largest = BTreeMap::new();
        for (instance, pid) in pids(system).await {
            let memory: &mut u64 = largest.entry(kind(&instance)).or_default();
            *memory = resident(pid).max(*memory);
        }
        Self(largest)
    }

    /// Waits until everything rests, and compares with the beginning.
    pub async fn judge(self, system: &System, report: &Mutex<Report>) {
        sleep(SETTLE).await;
        let pids = pids(system).await;
        let before: Vec<_> = pids.iter().map(|(_, pid)| cpu(*pid)).collect();
        sleep(MEASURE).await;
        let after = Self::measure(system).await;
        let mut report = report.lock().unwrap();
        let mut busiest = (0, String::new());
        for ((instance, pid), before) in pids.iter().zip(before) {
            let percent = ((cpu(*pid) - before).as_millis() * 100 / MEASURE.as_millis()) as u64;
            if percent > BUSY {
                report.violation(format!("{instance} uses {percent} % of a core at rest"));
            }
            busiest = busiest.max((percent, instance.clone()));
            let (start, now) = (self.0[kind(instance)], resident(*pid));
            // A server keeps every promise: the embedded one in memory.
            if kind(instance) != SERVER && now > start + GROWTH {
                let text = format!("{instance} has grown from {} to {}", mb(start), mb(now));
                report.violation(text);
            }
        }
        report.row("most CPU of a process at rest", format!("{} % ({})", busiest.0, busiest.1));
        for (kind, now) in after.0 {
            let what = format!("memory of {kind}, before the faults and after");
            report.row(what, format!("{}, {}", mb(self.0[kind]), mb(now)));
        }
    }
}

const SERVER: &str = "the server";

fn kind(instance: &str) -> &'static str {
    match instance {
        "gateway" => "the gateway",
        SERVER => SERVER,
        _ => "the largest service",
    }
}

async fn pids(system: &System) -> BTreeMap<String, u32> {
    let server = system.server_pid().await.map(|pid| (SERVER.to_owned(), pid));
    system.pids().into_iter().chain(server).collect()
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
