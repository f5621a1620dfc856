//! Crashes processes, by the gateway's crash button, and watches that others take over.
//!
//! A takeover is counted if it is certain: a function that the dead process still held after its death
//! is held by another process later, or has ended. A dead process ends nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use node::error::Error;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, interval_at, sleep, timeout},
};

use crate::{
    client::Client,
    plan::Plan,
    tally::{Open, Tally},
};

/// How many flows are asked for the processes that hold them, at most, for one crash.
const SAMPLE: usize = 16;

/// The pause between two looks at a function whose process has died.
const LOOK: Duration = Duration::from_millis(100);

/// How long the last takeovers are waited for, once all flows have ended.
const LAST: Duration = Duration::from_secs(2);

/// What `GET /flows/{id}` shows.
#[derive(Debug, Deserialize)]
pub struct Inspection {
    invocations: Vec<Invocation>,
}

#[derive(Debug, Clone, Deserialize)]
struct Invocation {
    id: String,
    state: Option<String>,
    /// The process that holds it.
    instance: Option<String>,
    /// The route that crashes that process: `/instances/{group}/{instance}/crash`.
    crash: Option<String>,
}

impl Invocation {
    fn is_pending(&self) -> bool {
        self.state.as_deref() == Some("pending")
    }
}

/// Crashes a process now and then.
pub struct Crasher {
    client: Arc<Client>,
    tally: Arc<Tally>,
    every: Duration,
    random: SmallRng,
    /// The process of each group that was crashed last, and when, until it is seen again.
    missing: HashMap<String, (String, Instant)>,
    watches: JoinSet<()>,
}

/// A process, and a function of a flow that it holds.
struct Holder {
    plan: Plan,
    invocation: String,
    group: String,
    instance: String,
    route: String,
}

impl Crasher {
    /// Nobody was crashed yet.
    pub fn new(client: Arc<Client>, tally: Arc<Tally>, every: Duration) -> Self {
        let random = SmallRng::from_rng(&mut rand::rng());
        let (missing, watches) = (HashMap::new(), JoinSet::new());
        Self { client, tally, every, random, missing, watches }
    }

    /// Crashes a process that holds an open flow, again and again. Of each service, only one is dead at a
    /// time: the next one is crashed once the last one is back.
    ///
    /// # Errors
    /// The gateway has no crash button.
    pub async fn run(&mut self) -> Result<(), Error> {
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        loop {
            ticks.tick().await;
            if let Some(holder) = self.holder().await? {
                self.crash(holder).await;
            }
        }
    }

    /// Waits for the takeovers that are due.
    pub async fn end(self) {
        let _ = timeout(LAST, self.watches.join_all()).await;
    }

    /// A process that may be crashed. None: nobody holds anything, or those who do may be the last ones
    /// of their service.
    async fn holder(&mut self) -> Result<Option<Holder>, Error> {
        let mut open = self.tally.open();
        open.shuffle(&mut self.random);
        for Open { plan, since } in open.into_iter().take(SAMPLE) {
            let Some(found) = self.client.inspect(&plan).await else { continue };
            for call in found.invocations.into_iter().filter(Invocation::is_pending) {
                let Some(instance) = call.instance else { continue };
                let Some(route) = call.crash else {
                    return Err(Error::Other(
                        "the gateway has no crash button: set NODE_CRASH_BUTTON=true".to_owned(),
                    ));
                };
                let group = route.split('/').nth(2).unwrap_or_default().to_owned();
                match self.missing.get(&group) {
                    // The dead take no new flow.
                    Some((dead, at)) if *dead == instance && since > *at => {
                        self.missing.remove(&group);
                    }
                    Some(_) => continue,
                    None => {}
                }
                let invocation = call.id;
                return Ok(Some(Holder { plan, invocation, group, instance, route }));
            }
        }
        Ok(None)
    }

    async fn crash(&mut self, holder: Holder) {
        let sent = Instant::now();
        // A process that does not die is frozen, busy or gone.
        if self.client.crash(&holder.route).await != Some(StatusCode::OK) {
            return;
        }
        let at = Instant::now();
        self.tally.crashed();
        self.missing.insert(holder.group.clone(), (holder.instance.clone(), at));
        let (client, tally) = (self.client.clone(), self.tally.clone());
        self.watches.spawn(async move {
            if holds(&client, &holder).await != Some(true) {
                return;
            }
            while holds(&client, &holder).await != Some(false) {
                sleep(LOOK).await;
            }
            // The answer comes only when the death is certain.
            tally.taken_over(sent.elapsed());
        });
    }
}

/// Whether the process still holds the function. None: nobody does, or there is no answer.
async fn holds(client: &Client, holder: &Holder) -> Option<bool> {
    let found = client.inspect(&holder.plan).await?;
    let call = found.invocations.into_iter().find(|call| call.id == holder.invocation)?;
    match call.instance {
        _ if !call.is_pending() => Some(false),
        Some(instance) => Some(instance == holder.instance),
        None => None,
    }
}

#[cfg(test)]
mod tests;
