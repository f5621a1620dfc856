//! Repeats requests until they are answered or their time is over.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use resonate_otel::{Attempt, ClientRequests};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use wire::{Answer, Exchange, ExchangeError, Operation, Request};

use crate::config::Config;

/// Delays between attempts: short, because the server usually answers as soon as it is back.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(100))
        .without_max_times()
        .with_jitter()
        .build()
}

/// The delay after the server has refused this process's token: somebody has to replace it first.
pub(super) fn refused_delay() -> Duration {
    Duration::from_secs(2).mul_f64(rand::random_range(0.8..1.2))
}

/// An attempt of a request with a deadline gets half of the time that is left, but at least this long:
/// a lease must survive a request that was lost.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(200);

/// Most requests of a process in flight. The server handles one at a time: more would only queue
/// there until they time out and are repeated, with heartbeats behind them.
const UNDER_WAY: usize = 16;

/// A run is abandoned if one of its requests is not answered for this many leases while heartbeats
/// are.
const UNANSWERED_LEASES: u32 = 3;

/// The layer that repeats. Statuses from 500 are no answers: a proxy or a failing store sends them.
pub(super) struct Repeat {
    next: Arc<dyn Exchange>,
    server: String,
    attempt_timeout: Duration,
    /// How long a request without a deadline of its own is repeated.
    patience: Duration,
    /// How long a request of a run is repeated, without the time that it waits for a place.
    unanswered: Duration,
    requests: ClientRequests,
    places: Semaphore,
}

impl Repeat {
    /// The layer above `next`, which asks `server`, an address for people.
    pub fn new(
        next: Arc<dyn Exchange>,
        server: &str,
        config: &Config,
        patience: Duration,
        requests: ClientRequests,
    ) -> Self {
        Self {
            next,
            server: server.to_owned(),
            attempt_timeout: config.attempt_timeout(),
            patience,
            unanswered: config.lease * UNANSWERED_LEASES,
            requests,
            places: Semaphore::new(UNDER_WAY),
        }
    }

    fn unreachable(&self, reason: String) -> ExchangeError {
        ExchangeError::Unreachable { server: self.server.clone(), reason }
    }

    /// Waits for a place among the requests in flight, until the deadline. If that moves, the
    /// request keeps its turn. Heartbeats need no place: a lease must not wait for others.
    async fn place(
        &self,
        request: &Request,
        patience: Instant,
    ) -> Result<Option<SemaphorePermit<'_>>, ExchangeError> {
        if let Operation::TaskHeartbeat(_) = request.operation() {
            return Ok(None);
        }
        let shortest = Instant::now() + SHORTEST_ATTEMPT;
        let turn = self.places.acquire();
        tokio::pin!(turn);
        loop {
            let until = shortest.max(deadline(request).unwrap_or(patience));
            match timeout_at(until, &mut turn).await {
                Ok(place) => return Ok(place.ok()),
                Err(_) if deadline(request).is_some_and(|moved| moved > until) => {}
                Err(_) => {
                    return Err(self.unreachable(format!("{UNDER_WAY} requests are not answered")));
                }
            }
        }
    }

    /// `patience`: when a request without a deadline ends. `longest`: the time left for a request
    /// of a run.
    async fn attempt(
        &self,
        request: &Request,
        repeated: bool,
        patience: Instant,
        longest: Duration,
    ) -> Result<Answer, ExchangeError> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let limit = match deadline(request).map(left) {
            None => left(patience),
            // One attempt is all it gets.
            Some(Duration::ZERO) => self.attempt_timeout,
            Some(left) => SHORTEST_ATTEMPT.max(left / 2).min(longest),
        };
        let limit = limit.min(self.attempt_timeout);
        let start = Instant::now();
        let answered = timeout(limit, self.next.exchange(request.clone())).await;
        let attempt = match &answered {
            Ok(Ok(answer)) => Attempt::Answered(answer.status()),
            Ok(Err(_)) => Attempt::Failed,
            Err(_) => Attempt::TimedOut,
        };
        self.requests.ended(request.kind(), repeated, attempt, start.elapsed());
        match answered {
            Ok(Ok(answer)) if answer.status() >= 500 => {
                let (status, reason) = (answer.status(), answer.reason());
                Err(self.unreachable(format!("it answered {status}: {reason}")))
            }
            Ok(Ok(mut answer)) => {
                (answer.sent, answer.repeated) = (Some(start), repeated);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.unreachable(format!("no answer within {limit:.1?}"))),
        }
    }
}

/// Until when a request is repeated, if it says so.
fn deadline(request: &Request) -> Option<Instant> {
    request.deadline().map(|deadline| *deadline.borrow())
}

#[async_trait::async_trait]
impl Exchange for Repeat {
    /// Sends the request at least once, and again until its deadline, which is read after each
    /// attempt: a lease may have been renewed.
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let start = Instant::now();
        let patience = start + self.patience;
        let mut waited = Duration::ZERO;
        let mut backoff = backoff();
        let mut repeated = false;
        loop {
            let before = Instant::now();
            let place = self.place(&request, patience).await;
            waited += before.elapsed();
            let longest = self.unanswered.saturating_sub(start.elapsed() - waited);
            let answered = match place {
                Ok(_place) => self.attempt(&request, repeated, patience, longest).await,
                Err(error) => Err(error),
            };
            let error = match answered {
                Ok(answer) => return Ok(answer),
                Err(error @ ExchangeError::TooLarge { .. }) => return Err(error),
                // A client must learn this at once; a run can wait until its lease ends.
                Err(error @ ExchangeError::Unauthorized { .. }) if request.deadline().is_none() => {
                    return Err(error);
                }
                Err(error) => error,
            };
            let delay = match error {
                ExchangeError::Unauthorized { .. } => refused_delay() / 2,
                _ => backoff.next().unwrap_or_default(),
            };
            let next = Instant::now() + delay;
            if next >= deadline(&request).unwrap_or(patience) {
                return Err(error);
            }
            if request.deadline().is_some() && start.elapsed() - waited >= self.unanswered {
                return Err(ExchangeError::Unanswered);
            }
            tracing::debug!(%error, kind = request.kind(), "retrying a request");
            sleep_until(next).await;
            repeated = true;
        }
    }
}

#[cfg(test)]
mod tests;
