//! Answers that are lost.

use std::sync::atomic::Ordering;

use super::*;

/// A fulfil is refused although an attempt before may have settled the promise: the mark in its
/// value tells whose settlement it was.
#[tokio::test]
async fn the_mark_in_a_value_tells_who_settled_after_a_lost_answer() {
    for (settler, expected) in
        [("me 2", vec!["bar", "bar on me fulfilled"]), ("me 1", vec!["bar on me fenced"])]
    {
        let rig = Rig::new(move |kind, _| match kind {
            "task.acquire" => acquired(2, json!([])),
            "task.fulfill" => Reply::Repeated(409, json!("stale")),
            _ => {
                let value = json!({"headers": {key::HEADER_SETTLER: settler}});
                Reply::Answer(200, json!({"promise": invocation("resolved", value)}))
            }
        });
        rig.acquire(2).await;
        rig.fulfill(2).await.unwrap();
        assert_eq!(rig.names(), expected, "{settler}");
    }
}

/// A suspend is refused although an attempt before may have taken effect: the task tells.
#[tokio::test]
async fn the_task_tells_whether_a_suspend_with_a_lost_answer_took_effect() {
    for (state, version, resumes, outcome) in [
        ("suspended", 1, 0, "suspended"),
        ("pending", 1, 1, "suspended"),
        ("pending", 1, 0, "fenced"),
        ("acquired", 2, 0, "fenced"),
    ] {
        let rig = Rig::new(move |kind, _| match kind {
            "task.acquire" => acquired(1, json!([])),
            "task.suspend" => Reply::Repeated(409, json!("stale")),
            "task.get" => {
                let task =
                    json!({"id": "f.0", "state": state, "version": version, "resumes": resumes});
                Reply::Answer(200, json!({"task": task}))
            }
            _ => Reply::Answer(200, json!({"promise": invocation("pending", json!({}))})),
        });
        rig.acquire(1).await;
        rig.suspend(1).await.unwrap();
        assert_eq!(rig.names(), [format!("bar on me {outcome}")], "{state} {version} {resumes}");
    }
}

/// What a server says about a promise after it lost the answer to its creation.
#[derive(Clone, Copy, PartialEq)]
enum Created {
    ByUs,
    BySomebodyElse,
    Never,
}

#[tokio::test(start_paused = true)]
async fn a_creation_whose_answer_is_lost_is_looked_up() {
    for (who, in_a_run, expected) in [
        (Created::ByUs, false, "rpc foo"),
        (Created::ByUs, true, "rpc foo"),
        (Created::BySomebodyElse, false, ""),
        (Created::BySomebodyElse, true, ""),
        (Created::Never, false, ""),
    ] {
        let (mut created, mut lost_looks) = (Value::Null, 2);
        let rig = Rig::new(move |kind, data| match kind {
            "task.acquire" => acquired(1, json!([])),
            "promise.create" | "task.fence" => {
                created = if in_a_run { &data["action"]["data"] } else { data }.clone();
                Reply::Lost
            }
            "promise.get" if lost_looks > 0 => {
                lost_looks -= 1;
                Reply::Lost
            }
            "promise.get" if who == Created::Never => Reply::Answer(404, json!("no")),
            "promise.get" => {
                let mut promise = created.clone();
                promise["state"] = "resolved".into();
                promise["createdAt"] = 1.into();
                if who == Created::BySomebodyElse {
                    promise["param"]["headers"]["traceparent"] = CONTEXT.into();
                }
                Reply::Answer(200, json!({"promise": promise}))
            }
            _ => unreachable!("{kind}"),
        });
        rig.acquire(1).await;
        if in_a_run {
            let param = json!({"data": call::encode("foo", &())});
            let tags = json!({"resonate:scope": "global", "resonate:target": "poll://any@g"});
            let create = json!({"id": "f.0.0", "timeoutAt": 9, "param": param, "tags": tags});
            rig.fence(1, "promise.create", create).await.unwrap_err();
        } else {
            rig.traced.exchange(create()).await.unwrap_err();
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        let calls: Vec<_> =
            rig.names().into_iter().filter(|name| !name.starts_with("lease")).collect();
        assert_eq!(calls.concat(), expected, "in a run: {in_a_run}");
        let looks = rig.server.kinds().iter().filter(|kind| **kind == "promise.get").count();
        let few = if who == Created::Never { 10..30 } else { 3..4 };
        assert!(few.contains(&looks), "{looks} requests");
    }
}

/// A process that ends cannot look anything up. What is below the call has a parent all the same.
#[test]
fn a_call_without_an_answer_has_its_span_when_the_process_ends() {
    for hangs in ["", "promise.create"] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rig = runtime.block_on(async {
            let rig = Rig::with(|_, _| Reply::Lost, |server| Hangs(server, hangs));
            let created = rig.traced.exchange(create());
            let moment = tokio::time::timeout(Duration::from_millis(10), created).await;
            assert_eq!(moment.is_err(), !hangs.is_empty());
            assert_eq!(rig.names(), [""; 0]);
            rig
        });
        runtime.shutdown_background();
        assert_eq!(rig.names(), ["rpc foo error=not answered before the process ended"], "{hangs}");
        let span = &rig.spans()[0];
        assert_eq!(attribute(span, key::ERROR_TYPE).as_deref(), Some(key::UNANSWERED));
        assert_eq!(attribute(span, key::GROUP).as_deref(), Some("a"));
    }
}

/// A server that never answers a request of this kind.
struct Hangs(Scripted, &'static str);

#[async_trait::async_trait]
impl Exchange for Hangs {
    async fn exchange(&self, request: Request) -> Answered {
        let hangs = request.kind() == self.1;
        let answer = self.0.exchange(request).await;
        if hangs { std::future::pending().await } else { answer }
    }
}

/// The promise tells how a run ended whose fulfil was not answered, unless its release does.
#[tokio::test(start_paused = true)]
async fn a_fulfil_whose_answer_is_lost_is_looked_up() {
    let settled = |by: &str| invocation("resolved", json!({"headers": {key::HEADER_SETTLER: by}}));
    let fulfilled: &[&str] = &["bar", "bar on me fulfilled"];
    for (promise, release, expected) in [
        (settled("me 2"), 409, fulfilled),
        (settled("me 1"), 409, &["bar on me fenced"]),
        (settled("other 3"), 409, &["bar on me fenced"]),
        (invocation("pending", json!({})), 409, &["bar on me fenced"]),
        (invocation("pending", json!({})), 200, &["bar on me released"]),
    ] {
        for how in ["lost", "refused and lost", "dropped"] {
            let (answered, mut looks) = (promise.clone(), 0);
            let rig = Rig::with(
                move |kind, _| match kind {
                    "task.acquire" => acquired(2, json!([])),
                    "task.fulfill" if how == "refused and lost" => {
                        Reply::Repeated(409, json!("stale"))
                    }
                    "task.fulfill" => Reply::Lost,
                    "task.release" => Reply::Answer(release, json!("")),
                    _ => {
                        looks += 1;
                        if looks == 1 {
                            Reply::Lost
                        } else {
                            Reply::Answer(200, json!({"promise": answered}))
                        }
                    }
                },
                |server| Hangs(server, if how == "dropped" { "task.fulfill" } else { "" }),
            );
            rig.acquire(2).await;
            let asked = tokio::time::timeout(Duration::from_millis(50), rig.fulfill(2)).await;
            assert_eq!(asked.is_err(), how == "dropped");
            rig.release(2).await.unwrap();
            tokio::time::sleep(Duration::from_secs(600)).await;
            let names: Vec<_> =
                rig.names().into_iter().filter(|name| !name.starts_with("lease")).collect();
            assert_eq!(names, expected, "{how}: {promise}");
            assert_eq!(rig.traced.trace_id("f.0"), None, "the run is forgotten");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_of_a_step_whose_answer_is_lost_is_looked_up() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let late = now + LEASE + 1_000;
    for (state, settler, settled_at, expected) in [
        ("resolved", "me 1", now, Some("work 1/1")),
        // The answer was lost, and the lease has ended since.
        ("resolved", "me 1", late, Some("work 1/1")),
        // This run was released before its lease ended.
        ("resolved", "other 2", now, None),
        ("pending", "", 0, None),
        // Nobody's run has settled it. Another one may have begun it once the lease has ended.
        ("rejected_timedout", "", now, Some("work 1/1 error=timed out")),
        ("rejected_timedout", "", late, None),
    ] {
        let rig = Rig::new(move |kind, _| match kind {
            "task.acquire" => acquired(1, json!([])),
            "task.release" => Reply::Answer(409, json!("stale")),
            "task.fence" => Reply::Lost,
            _ => {
                let mut promise = step("f.0.0", state, "me", 1);
                if state != "pending" {
                    promise["settledAt"] = settled_at.into();
                    promise["value"] = json!({"headers": {key::HEADER_SETTLER: settler}});
                }
                Reply::Answer(200, json!({"promise": promise}))
            }
        });
        rig.acquire(1).await;
        rig.traced.name_step("f.0.0", "work 1/1");
        let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
        rig.fence(1, "promise.settle", settle).await.unwrap_err();
        rig.release(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let steps: Vec<_> =
            rig.names().into_iter().filter(|name| !name.contains(" on me")).collect();
        assert_eq!(
            steps,
            expected.into_iter().collect::<Vec<_>>(),
            "{state} {settler} {settled_at}"
        );
    }
}

/// The server confirms the heartbeat of a lost lease too, so it says nothing about who settled a step.
#[tokio::test(start_paused = true)]
async fn a_late_heartbeat_does_not_make_a_step_that_another_run_settled_ours() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let rig = Rig::new(move |kind, _| match kind {
        "task.acquire" => acquired(1, json!([])),
        "task.heartbeat" => Reply::Answer(200, json!({})),
        "task.fence" => Reply::Lost,
        _ => {
            let mut promise = step("f.0.0", "resolved", "me", 1);
            promise["settledAt"] = now.into();
            Reply::Answer(200, json!({"promise": promise}))
        }
    });
    rig.acquire(1).await;
    rig.traced.name_step("f.0.0", "work 1/1");
    tokio::time::advance(Duration::from_millis(LEASE as u64 + 1_000)).await;
    rig.heartbeat(1).await.unwrap();
    let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
    rig.fence(1, "promise.settle", settle).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!rig.names().contains(&"work 1/1".to_owned()), "{:?}", rig.names());
}

/// Its run would stay open for ever.
#[tokio::test(start_paused = true)]
async fn a_fulfil_that_is_one_lost_answer_too_many_ends_its_run() {
    let rig = Rig::new(|kind, _| match kind {
        "task.acquire" => acquired(1, json!([])),
        "task.release" => Reply::Answer(409, json!("stale")),
        _ => Reply::Lost,
    });
    rig.acquire(1).await;
    rig.traced.0.looked_up.store(1_000, Ordering::Relaxed);
    rig.fulfill(1).await.unwrap_err();
    rig.release(1).await.unwrap();
    assert_eq!(rig.names(), ["bar on me fenced"]);
}
