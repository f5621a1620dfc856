//! The spans of leases.

#[cfg(feature = "metrics")]
use super::metrics::{Measured, Spans};
use super::*;

fn leases(rig: &Rig) -> usize {
    rig.names().iter().filter(|name| **name == "lease on me").count()
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_span_stands_for_a_confirmed_heartbeat() {
    let mut heartbeats = 0;
    let rig = Rig::new(move |kind, data| match kind {
        "task.acquire" => acquired(1, json!([])),
        "task.fence" => echo(data, "pending"),
        "task.heartbeat" => {
            heartbeats += 1;
            match heartbeats {
                2 => Reply::Answer(400, json!("no")),
                3 => Reply::Lost,
                _ => Reply::Answer(200, json!({})),
            }
        }
        _ => Reply::Answer(200, json!({})),
    });
    rig.acquire(1).await;
    wait(199).await;
    assert_eq!(leases(&rig), 0);
    wait(2).await;
    assert_eq!(leases(&rig), 1, "after 200 ms");
    wait(1_000).await;
    rig.heartbeat(1).await.unwrap();
    assert_eq!(leases(&rig), 2, "a confirmed one");
    rig.heartbeat(1).await.unwrap();
    rig.heartbeat(1).await.unwrap_err();
    assert_eq!(leases(&rig), 2, "a refused one, and one without an answer");
    wait(LEASE as u64 + 1).await;
    rig.heartbeat(1).await.unwrap();
    assert_eq!(leases(&rig), 2, "the lease may have been lost in this gap");
    wait(1_000).await;
    rig.heartbeat(1).await.unwrap();
    assert_eq!(leases(&rig), 2, "the server confirms heartbeats of lost leases too");
    let create = json!({"id": "f.0.0", "timeoutAt": 9_000, "param": {}, "tags": {}});
    rig.fence(1, "promise.create", create).await.unwrap();
    rig.heartbeat(1).await.unwrap();
    assert_eq!(leases(&rig), 3, "the server takes writes of the holder only");
}

/// A server that takes this many milliseconds to answer one heartbeat after the other.
struct Slow(Scripted, std::sync::Mutex<std::vec::IntoIter<u64>>);

#[async_trait::async_trait]
impl Exchange for Slow {
    async fn exchange(&self, request: Request) -> Answered {
        let answer = self.0.exchange(request.clone()).await;
        if request.kind() == "task.heartbeat" {
            let delay = self.1.lock().unwrap().next().unwrap_or_default();
            wait(delay).await;
        }
        answer
    }
}

fn slow(delays: Vec<u64>) -> Rig {
    Rig::with(
        |kind, _| match kind {
            "task.acquire" => acquired(1, json!([])),
            _ => Reply::Answer(200, json!({})),
        },
        |server| Slow(server, delays.into_iter().into()),
    )
}

#[tokio::test(start_paused = true)]
async fn a_freeze_in_the_first_moments_of_a_run_has_no_lease_span() {
    let frozen = slow(Vec::new());
    frozen.acquire(1).await;
    wait(100).await;
    tokio::time::advance(Duration::from_millis(LEASE as u64)).await;
    wait(1).await;
    frozen.heartbeat(1).await.unwrap();
    assert_eq!(leases(&frozen), 0);
}

/// The lease lasts from the moment at which its last renewal was sent.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_after_the_end_of_the_lease_proves_nothing() {
    for (delays, expected) in [
        ([0, 0], 3),
        // 500 ms to 2,900 ms: within the lease that began at 0. Its end is at 3,500 ms.
        ([2_400, 500], 3),
        ([2_400, 700], 2),
        ([2_600, 0], 1),
    ] {
        let rig = slow(delays.to_vec());
        rig.acquire(1).await;
        wait(500).await;
        rig.heartbeat(1).await.unwrap();
        rig.heartbeat(1).await.unwrap();
        assert_eq!(leases(&rig), expected, "{delays:?}");
    }
}

/// How an attempt ended whose answer was lost is measured too, and depends on the lease.
#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn without_spans_a_heartbeat_renews_the_lease_too() {
    let Measured { rig, .. } = Measured::new(Spans::None, |kind, _| match kind {
        "task.acquire" => acquired(1, json!([])),
        _ => Reply::Answer(200, json!({})),
    });
    rig.acquire(1).await;
    let runs = &rig.traced.0.runs;
    wait(2_000).await;
    let before = runs.lease_end("f.0").unwrap();
    rig.heartbeat(1).await.unwrap();
    let after = runs.lease_end("f.0").unwrap();
    assert!(after > before + Duration::from_secs(1), "{before:?} {after:?}");
}
