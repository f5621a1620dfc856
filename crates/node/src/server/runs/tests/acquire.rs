//! Acquires that are refused, repeated or concurrent.

use super::*;
use crate::test_log::Recorded;

#[tokio::test(start_paused = true)]
async fn a_task_whose_acquire_answer_was_lost_is_released() {
    for (pid, version, held, released) in [
        ("me#1", 1, false, true),
        ("me#1", 2, false, false),
        ("other#1", 1, false, false),
        // A process with the same name.
        ("me#2", 1, false, false),
        // A run of this very process: another acquire of it was answered meanwhile.
        ("me#1", 1, true, false),
    ] {
        let (runs, server) = rig(move |kind, _| match kind {
            "task.acquire" => Reply::Repeated(409, json!("Task is not pending")),
            "task.get" => {
                let task =
                    json!({"id": "x.0", "state": "acquired", "version": version, "pid": pid});
                Reply::Answer(200, json!({"task": task}))
            }
            _ => ok(),
        });
        let acquiring = {
            let runs = runs.clone();
            tokio::spawn(async move { acquire(&runs, "x.0").await })
        };
        if held {
            // It begins after the acquire was sent.
            let answered = acquiring.await.unwrap();
            assert_eq!(answered.unwrap().status(), 409);
            hold(&runs);
            let before = server.kinds().len();
            runs.release_if_ours("x.0", 1).await;
            assert_eq!(server.kinds()[before..], ["task.get"]);
            continue;
        }
        assert_eq!(acquiring.await.unwrap().unwrap().status(), 409);
        let last = server.kinds().pop().unwrap();
        assert_eq!(last == "task.release", released, "{pid} {version}");
        assert_eq!(runs.twin_reported.load(Ordering::Relaxed), pid == "me#2");
    }
}

/// A proxy may send a request twice, and answer with what the second one got.
#[tokio::test(start_paused = true)]
async fn a_task_that_a_doubled_acquire_took_is_released() {
    let (runs, server) = rig(|kind, _| match kind {
        "task.acquire" => Reply::Answer(409, json!("Task is not pending")),
        "task.get" => {
            let task = json!({"id": "x.0", "state": "acquired", "version": 1, "pid": "me#1"});
            Reply::Answer(200, json!({"task": task}))
        }
        _ => ok(),
    });
    assert_eq!(acquire(&runs, "x.0").await.unwrap().status(), 409);
    assert_eq!(server.kinds(), ["task.acquire", "task.get", "task.release"]);
}

/// While the server is slow, it announces a task again: a second acquire would release the first.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_being_acquired_is_not_acquired_again() {
    let (runs, server) = rig(|_, _| acquired(&call_of_foo()));
    let first = runs.leases.acquiring("x.0");
    assert!(matches!(acquire(&runs, "x.0").await, Err(ExchangeError::Withheld(_))));
    assert_eq!(server.kinds(), Vec::<String>::new());
    drop(first);
    assert_eq!(acquire(&runs, "x.0").await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_second_run_of_a_task_waits_for_the_first_one() {
    let (runs, server) = rig(|_, _| acquired(&call_of_foo()));
    hold(&runs);
    let second = {
        let runs = runs.clone();
        tokio::spawn(async move { acquire(&runs, "x.0").await })
    };
    sleep(LEASE).await;
    assert_eq!(server.kinds(), Vec::<String>::new());
    runs.leases.end("x.0", 1);
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
}

/// A layer in which requests wait before they are sent.
struct Queue(Scripted, Duration);

#[async_trait::async_trait]
impl Exchange for Queue {
    async fn exchange(&self, request: Request) -> Answered {
        sleep(self.1).await;
        let sent = Instant::now();
        let mut answer = self.0.exchange(request).await?;
        answer.sent = Some(sent);
        Ok(answer)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_begins_when_its_request_is_sent() {
    let (mut runs, server) = rig(|kind, _| match kind {
        "task.acquire" => acquired(&call_of_foo()),
        _ => ok(),
    });
    let start = Instant::now();
    let ends = |runs: &Runs| *runs.leases.check("x.0", 1).unwrap().borrow() - start;
    Arc::get_mut(&mut runs).unwrap().next = Arc::new(Queue(server.clone(), LEASE * 2));
    acquire(&runs, "x.0").await.unwrap();
    assert_eq!(ends(&runs), LEASE * 3);

    Arc::get_mut(&mut runs).unwrap().next = Arc::new(Queue(server, LEASE / 8));
    tokio::time::advance(LEASE / 2).await;
    heartbeat(&runs, &["x.0"]).await.unwrap();
    assert_eq!(ends(&runs), LEASE * 21 / 8 + LEASE);
}

/// The server announces a task again for as long as the body of an abandoned run still runs here, perhaps as
/// another version.
#[tokio::test(start_paused = true)]
async fn the_last_acquire_of_a_task_waits_for_the_end_of_its_run() {
    let (runs, server) = rig(|_, _| acquired(&call_of_foo()));
    hold(&runs);
    runs.leases.abandon("x.0", 1, Abandoned::Expired);
    let [first, last] = [0, 1].map(|_| {
        let runs = runs.clone();
        tokio::spawn(async move { acquire(&runs, "x.0").await })
    });
    assert_eq!(withheld(first.await.unwrap()), "the task was announced again");
    assert!(!last.is_finished());
    assert_eq!(server.kinds(), [""; 0]);
    runs.leases.end("x.0", 1);
    assert_eq!(last.await.unwrap().unwrap().status(), 200);
}

/// What loses the answers, such as a proxy with a limit of size, may lose all of them.
#[tokio::test(start_paused = true)]
async fn a_task_whose_acquire_answers_are_lost_again_and_again_is_released_more_and_more_slowly() {
    let (runs, server) = rig(|kind, _| match kind {
        "task.acquire" => Reply::Repeated(409, json!("Task is not pending")),
        "task.get" => {
            let task = json!({"id": "x.0", "state": "acquired", "version": 1, "pid": "me#1"});
            Reply::Answer(200, json!({"task": task}))
        }
        _ => ok(),
    });
    for delay in [0, 200, 400, 800, 1_500, 1_500] {
        let start = Instant::now();
        acquire(&runs, "x.0").await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_millis(delay));
        assert_eq!(server.kinds().pop().unwrap(), "task.release");
    }
}

#[tokio::test(start_paused = true)]
async fn acquires_that_nobody_answers_are_logged_once() {
    let mut count = 0;
    let (runs, _) = rig(move |_, _| {
        count += 1;
        if count <= 5 { Reply::Lost } else { acquired(&call_of_foo()) }
    });
    let log = Recorded::start();
    let lines = || log.lines().len();
    for logged in [0, 0, 1, 1, 1] {
        acquire(&runs, "x.0").await.unwrap_err();
        assert_eq!(lines(), logged);
    }
    acquire(&runs, "x.0").await.unwrap();
    let lines = log.lines();
    assert!(lines[0].contains("WARN") && lines[0].contains("cannot acquire tasks"), "{lines:?}");
    assert!(lines[1].contains("INFO") && lines[1].contains("again"), "{lines:?}");
}

/// The SDK stops its heartbeats by the id of the task when a run has ended: those of the next run too.
#[tokio::test(start_paused = true)]
async fn the_next_run_of_a_task_is_not_acquired_before_the_last_one_has_its_answer() {
    let moment = Duration::from_millis(100);
    let (runs, server) = slow_rig(moment, |kind, _| match kind {
        "task.acquire" => acquired(&call_of_foo()),
        "promise.get" => {
            Reply::Answer(200, json!({"promise": promise(PromiseState::Resolved, "")}))
        }
        _ => Reply::Repeated(409, json!("stale")),
    });
    hold(&runs);
    let next = {
        let runs = runs.clone();
        tokio::spawn(async move { acquire(&runs, "x.0").await })
    };
    fulfill(&runs).await.unwrap();
    assert_eq!(server.kinds(), ["task.fulfill", "promise.get"]);
    next.await.unwrap().unwrap();
}
