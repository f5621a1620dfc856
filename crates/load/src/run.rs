//! Starts flows for as long as it is told, and waits for the last ones.

use std::{future::pending, io::IsTerminal, pin::pin, sync::Arc, time::Duration};

use node::error::Error;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Interval, interval, sleep, timeout},
};

use crate::{
    Settings,
    client::Client,
    crash::Crasher,
    mix::Mix,
    plan::End,
    progress::Progress,
    summary::Summary,
    tally::{Open, Tally},
};

/// Runs until the time is over or `stop` is, and until the last flows have ended.
///
/// # Errors
/// The gateway does not answer at the beginning, or cannot crash processes.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<Summary, Error> {
    let client = Arc::new(Client::new(&settings)?);
    let mut stop = pin!(stop);
    tokio::select! {
        checked = client.check() => checked?,
        () = &mut stop => {
            return Ok(Summary::new(settings, Duration::ZERO, Tally::default().counts()));
        }
    }
    let (tally, begin) = (Arc::new(Tally::default()), Instant::now());
    let load = async {
        let mut starts = Starts::new(&settings);
        let mut random = SmallRng::from_rng(&mut rand::rng());
        let mut mix = Mix::new(&settings, &mut random);
        let starting = async {
            loop {
                let Some((due, place)) = starts.next().await else {
                    tally.skipped();
                    continue;
                };
                let plan = mix.next(&mut random);
                tally.started(&plan);
                let (client, tally) = (client.clone(), tally.clone());
                tokio::spawn(async move {
                    client.flow(&plan, due, &tally).await;
                    drop(place);
                });
            }
        };
        let crasher = |every| Crasher::new(client.clone(), tally.clone(), every);
        let mut crasher = settings.crash.map(crasher);
        let crashing = async {
            match &mut crasher {
                Some(crasher) => crasher.run().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = starting => {}
            result = crashing => result?,
            () = sleep(settings.duration) => {}
            () = &mut stop => {}
        }
        let started = begin.elapsed();
        starts.all_ended(settings.patience).await;
        if let Some(crasher) = crasher {
            crasher.end().await;
        }
        Ok::<_, Error>(started)
    };
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let started = tokio::select! {
        started = load => started?,
        () = progress.show(&settings, &tally, begin) => unreachable!("it shows for ever"),
    };
    lose_the_rest(&tally, settings.patience);
    progress.print(&settings, &tally, begin);
    Ok(Summary::new(settings, started, tally.counts()))
}

/// What has not ended is lost.
fn lose_the_rest(tally: &Tally, patience: Duration) {
    for Open { plan, .. } in tally.open() {
        let text =
            format!("{} after POST {}: no end within {patience:?}", plan.inspection(), plan.path());
        tally.ended(&plan, End::Lost(text));
    }
}

/// When flows start.
struct Starts {
    places: Arc<Semaphore>,
    most: u32,
    /// With a rate.
    clock: Option<Interval>,
}

impl Starts {
    fn new(settings: &Settings) -> Self {
        let most = if settings.rate.is_some() { settings.most } else { settings.concurrency };
        Self {
            places: Arc::new(Semaphore::new(most)),
            most: most as u32,
            // Starts that are late are made up for.
            clock: settings.rate.map(|rate| interval(Duration::from_secs_f64(1.0 / rate))),
        }
    }

    /// Waits for the next start: when it was due, and its place among the open flows. None: with a
    /// rate, there is no place.
    async fn next(&mut self) -> Option<(Instant, OwnedSemaphorePermit)> {
        match &mut self.clock {
            Some(clock) => {
                let due = clock.tick().await;
                Some((due, self.places.clone().try_acquire_owned().ok()?))
            }
            None => {
                // The semaphore is never closed.
                let place = self.places.clone().acquire_owned().await.ok()?;
                Some((Instant::now(), place))
            }
        }
    }

    /// Waits until no flow is open, but not longer than this.
    async fn all_ended(&self, patience: Duration) {
        let _ = timeout(patience, self.places.acquire_many(self.most)).await;
    }
}

#[cfg(test)]
pub mod tests;
