//! Heartbeats: they renew the leases of the runs that this process holds.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use wire::{
    Answer, Operation, Request,
    operation::{TaskHeartbeat, TaskRef},
    origin,
};

use super::{Answered, Runs, lost_by};

/// A run whose lease is to be renewed, and when that ends.
type Due<'a> = (TaskRef<'a>, Instant);

impl Runs {
    /// One request for all runs. Servers newer than v0.9.8 refuse to mix flows: then one for each.
    pub(super) async fn heartbeat(&self, request: Request) -> Answered {
        let Operation::TaskHeartbeat(heartbeat) = request.operation() else { unreachable!() };
        let due = heartbeat.tasks.iter().filter_map(|task| {
            let ends = self.leases.wants_heartbeat(&task.id, task.version)?;
            Some((task.clone(), ends))
        });
        let due: Vec<Due> = due.collect();
        if self.mixes_flows.load(Ordering::Relaxed) {
            let mixed = self.renew(&heartbeat.pid, &due).await;
            self.mixes_flows.store(mixed, Ordering::Relaxed);
        }
        if !self.mixes_flows.load(Ordering::Relaxed) {
            let mut flows: BTreeMap<&str, Vec<Due>> = BTreeMap::new();
            for run in &due {
                flows.entry(origin(&run.0.id)).or_default().push(run.clone());
            }
            join_all(flows.values().map(|due| self.renew(&heartbeat.pid, due))).await;
        }
        Ok(Answer::local(&request, 200, &json!({})))
    }

    /// Renews leases. False: the server refuses to mix flows, and has renewed nothing.
    async fn renew(&self, pid: &str, due: &[Due<'_>]) -> bool {
        let Some(ends) = due.iter().map(|(_, ends)| *ends).max() else { return true };
        let tasks: Vec<TaskRef> = due.iter().map(|(task, _)| task.clone()).collect();
        let mixed = tasks.iter().any(|task| origin(&task.id) != origin(&tasks[0].id));
        let heartbeat = TaskHeartbeat { pid: pid.into(), tasks };
        let request = Request::new("task.heartbeat", &heartbeat).until(ends);
        let sent = Instant::now();
        let answer = self.next.exchange(request).await;
        if mixed && answer.as_ref().is_ok_and(|answer| answer.status() == 400) {
            return false;
        }
        for TaskRef { id, version } in &heartbeat.tasks {
            match &answer {
                Ok(answer) if answer.status() == 200 => {
                    self.leases.renew(id, *version, answer.sent.unwrap_or(sent));
                }
                Ok(answer) => {
                    let (status, reason) = (answer.status(), answer.reason());
                    tracing::warn!(promise = %id, status, reason, "heartbeat refused");
                }
                Err(error) => self.abandon(id, *version, lost_by(error)),
            }
        }
        true
    }
}
