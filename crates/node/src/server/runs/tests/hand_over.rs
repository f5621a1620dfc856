//! A process of group `g` gets a fresh task, and hands it over to the first process, `g`.

use futures_util::future::join_all;
use wire::{Address, tag};

use super::*;

const MOMENT: Duration = Duration::from_millis(300);

/// What the server knows of the promise `x.0`, and of its messenger.
#[derive(Clone, Copy)]
struct Promises {
    target: &'static str,
    state: PromiseState,
    messenger: PromiseState,
}

const ASKS: Promises = Promises {
    target: "poll://any@g/~first",
    state: PromiseState::Pending,
    messenger: PromiseState::Pending,
};

/// The layer of the instance `me`, on the layer that traces, which acquires, and on the one below
/// it.
fn rig(promises: Promises) -> (Arc<Runs>, Scripted, Scripted) {
    let (mut runs, traced) = super::rig(|_, _| acquired(&call_of_foo()));
    let below = Scripted::new(move |kind, data| {
        let state = match kind {
            "promise.get" => promises.state,
            _ => promises.messenger,
        };
        let mut promise = promise(state, "");
        promise["id"] = data["id"].clone();
        promise["tags"] = json!({tag::TARGET: promises.target});
        Reply::Answer(200, json!({"promise": promise}))
    });
    let hand_over = HandOver::new(Arc::new(below.clone()), "g", "me");
    Arc::get_mut(&mut runs).unwrap().hand_over = Some(hand_over);
    (runs, traced, below)
}

async fn acquire_version(runs: &Runs, version: i64) -> Answered {
    let data = TaskAcquire { id: "x.0".into(), version, pid: "me".into(), ttl: 3_000 };
    runs.exchange(Request::new("task.acquire", &data)).await
}

#[tokio::test(start_paused = true)]
async fn a_task_that_nobody_takes_is_run_after_a_moment() {
    assert_eq!(Address::first("g").to_string(), ASKS.target);
    let (runs, traced, below) = rig(ASKS);
    let start = Instant::now();
    assert_eq!(acquire(&runs, "x.0").await.unwrap().status(), 200);
    assert_eq!(start.elapsed(), MOMENT);
    assert_eq!(runs.leases.version("x.0"), Some(1));
    // The layer that traces sees nothing of it.
    assert_eq!(traced.kinds(), ["task.acquire"]);
    assert_eq!(below.kinds(), ["promise.get", "promise.create"]);
    let messenger = &below.seen()[1].1;
    assert_eq!(messenger["id"], "x.0.hand-over");
    assert_eq!(messenger["tags"], json!({tag::TARGET: "poll://uni@g/g"}));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = messenger["timeoutAt"].as_i64().unwrap() - now.as_millis() as i64;
    assert!(left <= 300 && left > -10_000, "{left}");
}

/// The first process has the task: the acquire of this one is refused, and nothing else happens.
#[tokio::test(start_paused = true)]
async fn a_task_that_the_first_process_takes_is_left_to_it() {
    let (mut runs, _, _) = rig(ASKS);
    let traced = Scripted::new(|_, _| Reply::Answer(409, json!("Task is not pending")));
    Arc::get_mut(&mut runs).unwrap().next = Arc::new(traced.clone());
    assert_eq!(acquire(&runs, "x.0").await.unwrap().status(), 409);
    assert_eq!(traced.kinds(), ["task.acquire"]);
    assert_eq!(runs.leases.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_ask_for_it_is_run_at_once() {
    let settled = Promises { state: PromiseState::Resolved, ..ASKS };
    for promises in [Promises { target: "poll://any@g", ..ASKS }, settled] {
        let (runs, traced, below) = rig(promises);
        let start = Instant::now();
        acquire(&runs, "x.0").await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!((traced.kinds().len(), below.kinds()), (1, vec!["promise.get".to_owned()]));
    }
}

/// The server has sent this task before, or is slow.
#[tokio::test(start_paused = true)]
async fn a_messenger_that_has_timed_out_is_not_waited_for() {
    let (runs, traced, _) = rig(Promises { messenger: PromiseState::RejectedTimedout, ..ASKS });
    let start = Instant::now();
    acquire(&runs, "x.0").await.unwrap();
    assert_eq!((start.elapsed(), traced.kinds().len()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn only_fresh_tasks_are_handed_over_and_not_by_the_first_process() {
    let (runs, _, below) = rig(ASKS);
    acquire_version(&runs, 1).await.unwrap();
    assert_eq!(below.kinds().len(), 0);
    let (mut runs, traced, below) = rig(ASKS);
    let first = HandOver::new(Arc::new(below.clone()), "g", "g");
    Arc::get_mut(&mut runs).unwrap().hand_over = Some(first);
    acquire_version(&runs, 0).await.unwrap();
    assert_eq!((traced.kinds().len(), below.kinds().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_process_without_room_hands_nothing_over() {
    let (runs, traced, below) = rig(ASKS);
    (0..MAX_RUNS).for_each(|n| runs.leases.begin(&n.to_string(), 1, Instant::now(), LEASE));
    withheld(acquire(&runs, "x.0").await);
    assert_eq!((traced.kinds().len(), below.kinds().len()), (0, 0));
}

/// A burst of messages may not take more room than there is.
#[tokio::test(start_paused = true)]
async fn offers_take_room_until_they_are_answered() {
    let (runs, traced, below) = rig(ASKS);
    let acquiring: Vec<_> = (0..MAX_RUNS + 5)
        .map(|n| {
            let runs = runs.clone();
            tokio::spawn(async move { acquire(&runs, &format!("x.{n}")).await.is_ok() })
        })
        .collect();
    let acquired = join_all(acquiring).await.into_iter().filter(|it| *it.as_ref().unwrap());
    assert_eq!(acquired.count(), MAX_RUNS);
    assert_eq!((traced.kinds().len(), below.kinds().len()), (MAX_RUNS, 2 * MAX_RUNS));
    assert_eq!(runs.hand_over.as_ref().unwrap().count(), 0);
}

/// A drain does not wait for the moment, and the task is not acquired after it.
#[tokio::test(start_paused = true)]
async fn a_drain_leaves_a_task_that_is_being_handed_over() {
    let (runs, traced, below) = rig(ASKS);
    let acquiring = {
        let runs = runs.clone();
        tokio::spawn(async move { acquire(&runs, "x.0").await })
    };
    let start = Instant::now();
    while below.kinds().len() < 2 {
        tokio::task::yield_now().await;
    }
    runs.drain().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(withheld(acquiring.await.unwrap()), Abandoned::Draining.to_string());
    assert_eq!(traced.kinds().len(), 0);
}
