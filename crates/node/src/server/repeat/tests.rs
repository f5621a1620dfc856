use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use futures_util::future::join_all;
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use wire::{
    Deadline,
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
        unanswered: Duration::from_secs(9),
        requests: ClientRequests::default(),
        places: Semaphore::new(UNDER_WAY),
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
    let (result, ()) = tokio::join!(repeat.exchange(release().with_deadline(deadline)), renewal);
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
    let waited = |error: &ExchangeError| error.to_string().contains("requests are not answered");
    assert!(errors.into_iter().any(|answer| waited(&answer.unwrap_err())));
}

/// A deadline that is a lease away and moves as a lease does that is renewed.
fn renewed_lease() -> Deadline {
    let lease = Duration::from_secs(3);
    let (renew, deadline) = watch::channel(Instant::now() + lease);
    tokio::spawn(async move {
        while !renew.is_closed() {
            sleep(lease / 2).await;
            renew.send_replace(Instant::now() + lease);
        }
    });
    deadline
}

/// Heartbeats are confirmed, so the lease lasts; but another process may reach the server.
#[tokio::test(start_paused = true)]
async fn a_request_of_a_run_is_not_repeated_for_ever_although_heartbeats_pass() {
    let failing = Reply::Answer(503, json!("store"));
    let (failing, _) = rig(vec![failing]);
    let (mut silent, _) = rig(Vec::new());
    silent.next = Arc::new(Silent);
    for repeat in [failing, silent] {
        let start = Instant::now();
        let request = release().with_deadline(renewed_lease());
        let error = repeat.exchange(request).await.unwrap_err();
        assert_eq!(error, ExchangeError::Unanswered);
        assert!((9_000..=9_200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

/// A server that takes its time for each request.
struct Slow;

#[async_trait::async_trait]
impl Exchange for Slow {
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError> {
        sleep(Duration::from_millis(700)).await;
        Ok(Answer::local(&request, 200, &json!({})))
    }
}

/// A busy server: the last request waits for almost four leases, but keeps its turn, and loses no lease by it.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_place_costs_no_run() {
    let (mut repeat, _) = rig(Vec::new());
    repeat.next = Arc::new(Slow);
    let start = Instant::now();
    let requests = 16 * UNDER_WAY;
    let lease = renewed_lease();
    let exchange = async |_| {
        let request = release().with_deadline(lease.clone());
        (repeat.exchange(request).await.unwrap(), start.elapsed())
    };
    let answers = join_all((0..requests).map(exchange)).await;
    for (n, (answer, after)) in answers.iter().enumerate() {
        let rounds = 1 + n as u32 / UNDER_WAY as u32;
        assert_eq!(*after, Duration::from_millis(700) * rounds, "{n}");
        let sent = start + *after - Duration::from_millis(700);
        assert_eq!(answer.sent, Some(sent), "the lease begins when the request is sent");
    }
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
    assert!(answer.repeated && start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
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
