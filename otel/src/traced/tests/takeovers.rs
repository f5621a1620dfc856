//! Takeovers, the leases that dead runs lost, and runs that were released.

use super::*;

/// A mark that the run `version` of `instance` left.
fn mark(instance: &str, version: i64, released: bool) -> Value {
    let mut mark = step("f.0.mark", "rejected_timedout", instance, version);
    mark["tags"] = json!({"resonate:branch": "f"});
    mark["settledAt"] = 0.into();
    if released {
        mark["param"]["headers"][key::HEADER_RELEASED] = "true".into();
    }
    mark
}

/// A process that acquires version `version` and is shown `preload`.
fn rig(version: i64, preload: Value) -> Rig {
    Rig::new(move |kind, data| match kind {
        "task.acquire" => acquired(version, preload.clone()),
        "task.fence" => echo(data, "pending"),
        _ => Reply::Answer(200, json!({})),
    })
}

/// Each rule of a takeover: a step that an earlier run began and did not end.
#[tokio::test]
async fn a_takeover_shows_by_the_pending_steps_of_earlier_runs() {
    let mut call = step("f.0.0", "pending", "other", 1);
    call["tags"]["resonate:scope"] = "global".into();
    let by_other = |version| step("f.0.0", "pending", "other", version);
    let another = |state| step("f.0.1", state, "another", 2);
    for (what, version, preload, expected) in [
        ("the first run takes nothing over", 1, json!([by_other(1)]), None),
        ("no step", 2, json!([]), None),
        ("a step that was settled", 2, json!([step("f.0.0", "resolved", "other", 1)]), None),
        ("a call that is awaited", 2, json!([call]), None),
        ("a step of this very run", 2, json!([by_other(2)]), None),
        ("a step of the run before", 2, json!([by_other(1)]), Some("other")),
        ("two runs died, and the second has no name", 3, json!([by_other(1)]), Some("")),
        ("its mark names it", 3, json!([by_other(1), mark("another", 2, false)]), Some("another")),
        ("a step names it", 3, json!([by_other(1), another("resolved")]), Some("another")),
        ("two steps of two runs", 3, json!([by_other(1), another("pending")]), Some("another")),
        ("two steps of one run", 2, json!([by_other(1), by_other(1)]), Some("other")),
        ("a run that was released", 2, json!([by_other(1), mark("other", 1, true)]), None),
        (
            "a run that took over and was released",
            3,
            json!([by_other(1), mark("another", 2, false), mark("another", 2, true)]),
            None,
        ),
        (
            "a run after one that was released",
            3,
            json!([by_other(1), mark("other", 1, true), mark("another", 2, false)]),
            Some("another"),
        ),
    ] {
        let rig = rig(version, preload);
        rig.acquire(version).await;
        let lost = rig.spans();
        let name = match expected {
            Some("") => vec!["lease expired".to_owned()],
            Some(instance) => vec![format!("lease of {instance} expired")],
            None => Vec::new(),
        };
        let names: Vec<_> = lost.iter().map(|span| span.name.to_string()).collect();
        assert_eq!(names, name, "{what}");
        if let Some(lost) = lost.first() {
            let instance = attribute(lost, key::LEASE_INSTANCE);
            assert_eq!(instance.as_deref(), expected.filter(|name| !name.is_empty()), "{what}");
        }
        rig.release(version).await.unwrap();
        let run = rig.spans().pop().unwrap();
        let takeover = attribute(&run, key::TAKEOVER).is_some();
        assert_eq!(takeover, expected.is_some(), "{what}");
    }
}

/// A lost lease begins when the lease was last known to be held, and not before the promise.
#[tokio::test]
async fn a_lost_lease_begins_with_the_last_sign_of_its_run() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    for (created, begun, expected) in [
        (now - 60_000, now - 1_000, 1_000),
        (now - 2_000, now - 1_500, 1_500),
        (now - 60_000, now - 9_000, LEASE),
        (now - 500, now - 60_000, 500),
        (now, now + 900, 0),
    ] {
        let rig = Rig::new(move |kind, data| match kind {
            "task.acquire" => {
                let task = json!({"id": "f.0", "state": "acquired", "version": 2});
                let mut promise = invocation("pending", json!({}));
                promise["createdAt"] = created.into();
                let mut step = step("f.0.0", "pending", "other", 1);
                step["createdAt"] = begun.into();
                let data = json!({"task": task, "promise": promise, "preload": [step]});
                Reply::Answer(200, data)
            }
            _ => echo(data, "pending"),
        });
        rig.acquire(2).await;
        let lost = rig.spans().remove(0);
        let length = lost.end_time.duration_since(lost.start_time).unwrap().as_millis() as i64;
        assert!((expected..expected + 400).contains(&length), "{length}, not {expected}");
    }
}

/// What the process left in `f`, as (id, headers).
fn marks(rig: &Rig) -> Vec<(String, Value)> {
    let fences = rig.server.seen().into_iter().filter(|(kind, _)| kind == "task.fence");
    let created = fences.map(|(_, mut data)| data["action"]["data"].take());
    let marks = created.filter(|create| create["tags"]["resonate:branch"] == "f");
    marks.map(|mut mark| (mark["id"].as_str().unwrap().to_owned(), mark["param"].take())).collect()
}

async fn begin_step(rig: &Rig, version: i64) {
    let tags = json!({"resonate:scope": "local"});
    let create = json!({"id": "f.0.0", "timeoutAt": 9_000, "param": {}, "tags": tags});
    rig.fence(version, "promise.create", create).await.unwrap();
}

#[tokio::test]
async fn a_run_that_takes_over_leaves_its_name() {
    let rig = rig(2, json!([step("f.0.0", "pending", "other", 1)]));
    rig.acquire(2).await;
    tokio::task::yield_now().await;
    let headers = json!({key::HEADER_INSTANCE: "me", key::HEADER_VERSION: "2"});
    assert_eq!(marks(&rig), [("f.0.taken-over-2".to_owned(), json!({"headers": headers}))]);
}

#[tokio::test]
async fn a_run_that_is_released_in_the_middle_of_a_step_says_so() {
    let rig = rig(1, json!([]));
    rig.acquire(1).await;
    begin_step(&rig, 1).await;
    rig.release(1).await.unwrap();
    let headers = json!({key::HEADER_INSTANCE: "me", key::HEADER_VERSION: "1",
        key::HEADER_RELEASED: "true"});
    assert_eq!(marks(&rig), [("f.0.released-1".to_owned(), json!({"headers": headers}))]);
    assert_eq!(rig.server.kinds().last().map(String::as_str), Some("task.release"));
    assert_eq!(rig.names(), ["bar on me released"]);
}

/// A step that the run took over counts, and one that it settled does not.
#[tokio::test]
async fn only_a_run_in_the_middle_of_a_step_leaves_a_mark() {
    let taken_over = rig(2, json!([step("f.0.0", "pending", "other", 1), mark("other", 1, true)]));
    taken_over.acquire(2).await;
    taken_over.release(2).await.unwrap();
    let ids: Vec<_> = marks(&taken_over).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["f.0.released-2"]);

    let between = Rig::new(|kind, data| match (kind, data["action"]["kind"].as_str()) {
        ("task.acquire", _) => acquired(1, json!([])),
        ("task.fence", Some("promise.settle")) => echo(data, "resolved"),
        ("task.fence", _) => echo(data, "pending"),
        _ => Reply::Answer(200, json!({})),
    });
    between.acquire(1).await;
    begin_step(&between, 1).await;
    let settle = json!({"id": "f.0.0", "state": "resolved", "value": {}});
    between.fence(1, "promise.settle", settle).await.unwrap();
    between.release(1).await.unwrap();
    assert_eq!(marks(&between), []);
}

/// The release is what counts: it does not wait long for its mark.
#[tokio::test(start_paused = true)]
async fn a_mark_that_is_not_answered_does_not_keep_a_release() {
    struct HangsAtMarks(Scripted);

    #[async_trait::async_trait]
    impl Exchange for HangsAtMarks {
        async fn exchange(&self, request: Request) -> Answered {
            let hangs = request.text().contains("released-1");
            let answer = self.0.exchange(request).await;
            if hangs { std::future::pending().await } else { answer }
        }
    }
    let rig = Rig::with(
        |kind, data| match kind {
            "task.acquire" => acquired(1, json!([])),
            "task.fence" => echo(data, "pending"),
            _ => Reply::Answer(200, json!({})),
        },
        HangsAtMarks,
    );
    rig.acquire(1).await;
    begin_step(&rig, 1).await;
    let release = tokio::time::timeout(Duration::from_millis(300), rig.release(1));
    release.await.expect("the release is sent in time").unwrap();
    assert_eq!(rig.names().last().map(String::as_str), Some("bar on me released"));
}
