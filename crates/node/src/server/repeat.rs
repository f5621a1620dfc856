//! Repeats requests until they are answered or their time is over.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use resonate_otel::{Attempt, ClientRequests};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout},
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

/// Most requests of a process that are under way. The server answers one after the other: more would only
/// wait there, until their attempts time out and are repeated, and heartbeats would wait behind them.
const UNDER_WAY: usize = 32;

/// The layer that repeats. Statuses from 500 are no answers: a proxy or a failing store sends them.
pub(super) struct Repeat {
    next: Arc<dyn Exchange>,
    server: String,
    attempt_timeout: Duration,
    /// How long a request without a deadline of its own is repeated.
    patience: Duration,
    requests: ClientRequests,
    slots: Semaphore,
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
            requests,
            slots: Semaphore::new(UNDER_WAY),
        }
    }

    fn unreachable(&self, reason: String) -> ExchangeError {
        ExchangeError::Unreachable { server: self.server.clone(), reason }
    }

    /// A place among the requests that are under way, for which the request waits until `until`.
    /// Heartbeats need none: a lease must not wait for other requests.
    async fn slot(
        &self,
        request: &Request,
        until: Instant,
    ) -> Result<Option<SemaphorePermit<'_>>, ExchangeError> {
        if let Operation::TaskHeartbeat(_) = request.operation() {
            return Ok(None);
        }
        let longest = SHORTEST_ATTEMPT.max(until.saturating_duration_since(Instant::now()));
        match timeout(longest, self.slots.acquire()).await {
            Ok(slot) => Ok(slot.ok()),
            Err(_) => Err(self.unreachable(format!("{UNDER_WAY} requests are not answered"))),
        }
    }

    /// `patience`: when the time of the request is over if it has no deadline.
    async fn attempt(
        &self,
        request: &Request,
        repeated: bool,
        patience: Instant,
    ) -> Result<Answer, ExchangeError> {
        let deadline = || request.deadline().map(|deadline| *deadline.borrow());
        let _slot = self.slot(request, deadline().unwrap_or(patience)).await?;
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let limit = match deadline().map(left) {
            None => left(patience),
            // One attempt is all it gets.
            Some(Duration::ZERO) => self.attempt_timeout,
            Some(left) => SHORTEST_ATTEMPT.max(left / 2),
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
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no answer within {limit:.1?}"))),
        }
    }
}

#[async_trait::async_trait]
impl Exchange for Repeat {
    /// Sends the request at least once, and again until its deadline, which is read after each
    /// attempt: a lease may have been renewed.
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        let patience = Instant::now() + self.patience;
        let mut backoff = backoff();
        let mut repeated = false;
        loop {
            let error = match self.attempt(&request, repeated, patience).await {
                Ok(mut answer) => {
                    answer.repeated = repeated;
                    return Ok(answer);
                }
                Err(error @ ExchangeError::TooLarge { .. }) => return Err(error),
                // Whoever waits for it must hear that now; a run has time until its lease ends.
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
            let deadline = request.deadline().map_or(patience, |deadline| *deadline.borrow());
            if next >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, kind = request.kind(), "retrying a request");
            sleep_until(next).await;
            repeated = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use futures_util::future::join_all;
    use serde_json::json;
    use tokio::{sync::watch, time::sleep};
    use wire::{
        operation::{TaskHeartbeat, TaskRef},
        scripted::{Reply, Scripted},
    };

    fn release() -> Request {
        Request::new("task.release", &TaskRef { id: "x".into(), version: 1 })
    }

    /// The layer above a server that gives these replies in turn, the last one again and again.
    fn rig(replies: Vec<Reply>) -> (Repeat, Scripted) {
        let mut replies = replies.into_iter();
        let mut last = Reply::Lost;
        let server = Scripted::new(move |_, _| {
            last = replies.next().unwrap_or(last.clone());
            last.clone()
        });
        let repeat = Repeat {
            next: Arc::new(server.clone()),
            server: "http://server".to_owned(),
            attempt_timeout: Duration::from_secs(2),
            patience: Duration::from_secs(3),
            requests: ClientRequests::default(),
            slots: Semaphore::new(UNDER_WAY),
        };
        (repeat, server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer_and_only_a_later_attempt_is_marked_as_repeated() {
        let refused = Reply::Answer(409, json!("stale"));
        let (repeat, _) = rig(vec![refused.clone()]);
        let answer = repeat.exchange(release()).await.unwrap();
        assert_eq!((answer.status(), answer.repeated), (409, false));
        let failing = Reply::Answer(503, json!("store"));
        let (repeat, server) = rig(vec![failing, Reply::Lost, refused]);
        let answer = repeat.exchange(release()).await.unwrap();
        assert_eq!((answer.status(), answer.repeated), (409, true));
        assert_eq!(server.kinds().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_repeated_until_its_deadline_wherever_that_moves() {
        let (repeat, _) = rig(vec![Reply::Lost]);
        let start = Instant::now();
        repeat.exchange(release()).await.unwrap_err();
        assert!((2_800..=3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());

        let (repeat, server) = rig(vec![Reply::Lost]);
        repeat.exchange(release().until(Instant::now())).await.unwrap_err();
        assert_eq!(server.kinds().len(), 1, "a deadline that has passed means one attempt");

        let (repeat, _) = rig(vec![Reply::Lost]);
        let start = Instant::now();
        let (renew, deadline) = watch::channel(start + Duration::from_secs(1));
        let renewal = async {
            sleep(Duration::from_millis(500)).await;
            renew.send_replace(start + Duration::from_secs(5));
        };
        let (result, ()) =
            tokio::join!(repeat.exchange(release().with_deadline(deadline)), renewal);
        assert!(result.unwrap_err().to_string().contains("lost"));
        assert!((4_800..=5_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }

    /// A server that never answers.
    struct Silent;

    #[async_trait::async_trait]
    impl Exchange for Silent {
        async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_answer_ends() {
        let (mut repeat, _) = rig(Vec::new());
        repeat.next = Arc::new(Silent);
        let start = Instant::now();
        let error = repeat.exchange(release()).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    }

    /// A server that never answers and counts its requests.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait::async_trait]
    impl Exchange for Counting {
        async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Silent.exchange(request).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_do_not_wait_for_other_requests_and_those_wait_for_a_place() {
        let (mut repeat, _) = rig(Vec::new());
        let server = Arc::new(Counting::default());
        repeat.next = server.clone();
        let others = join_all((0..100).map(|_| repeat.exchange(release())));
        let heartbeat = TaskHeartbeat { pid: "b".into(), tasks: Vec::new() };
        let heartbeat = repeat.exchange(Request::new("task.heartbeat", &heartbeat));
        let beginning = sleep(Duration::from_millis(1));
        tokio::select! {
            _ = futures_util::future::join(others, heartbeat) => panic!("an answer"),
            () = beginning => {}
        }
        assert_eq!(server.0.load(Ordering::Relaxed), UNDER_WAY + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_place_ends_with_its_time() {
        let (mut repeat, _) = rig(Vec::new());
        repeat.next = Arc::new(Silent);
        let start = Instant::now();
        let errors = join_all((0..100).map(|_| repeat.exchange(release()))).await;
        assert!(start.elapsed() <= Duration::from_millis(3_200), "{:?}", start.elapsed());
        let waited =
            |error: &ExchangeError| error.to_string().contains("requests are not answered");
        assert!(errors.into_iter().any(|answer| waited(&answer.unwrap_err())));
    }

    /// A server that does not answer the first request.
    struct LosesOne(AtomicBool);

    #[async_trait::async_trait]
    impl Exchange for LosesOne {
        async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
            if !self.0.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(Answer::local(&request, 200, &json!({})))
        }
    }

    /// Half of the lease is over when a heartbeat is due, and the first one is lost.
    #[tokio::test(start_paused = true)]
    async fn a_lost_request_leaves_time_for_another_one() {
        let (mut repeat, _) = rig(Vec::new());
        repeat.next = Arc::new(LosesOne(AtomicBool::new(false)));
        let start = Instant::now();
        let lease_ends = start + Duration::from_millis(1_500);
        let answer = repeat.exchange(release().until(lease_ends)).await.unwrap();
        assert!(
            answer.repeated && start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_too_large_is_sent_once() {
        let (repeat, server) = rig(vec![Reply::TooLarge]);
        let error = repeat.exchange(release()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TooLarge { .. }));
        assert_eq!(server.kinds().len(), 1);
    }

    /// A server that refuses the token, and counts its requests.
    #[derive(Default)]
    struct Refusing(AtomicUsize);

    #[async_trait::async_trait]
    impl Exchange for Refusing {
        async fn exchange(&self, _: Request) -> Result<Answer, ExchangeError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (server, reason) = ("http://server".to_owned(), "expired".to_owned());
            Err(ExchangeError::Unauthorized { server, reason })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_tried_slowly_for_a_run_and_once_for_a_client() {
        let (mut repeat, _) = rig(Vec::new());
        let server = Arc::new(Refusing::default());
        repeat.next = server.clone();
        let start = Instant::now();
        let error = repeat.exchange(release()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unauthorized { .. }));
        assert_eq!((server.0.swap(0, Ordering::Relaxed), start.elapsed()), (1, Duration::ZERO));
        let lease_ends = start + Duration::from_secs(10);
        repeat.exchange(release().until(lease_ends)).await.unwrap_err();
        let count = server.0.load(Ordering::Relaxed);
        assert!((8..=13).contains(&count), "{count} requests in ten seconds");
    }
}
