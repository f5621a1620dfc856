//! Poison, values that are too large, answers that come late or never, and more work than fits.

use std::time::SystemTime;

use super::{super::acquire::UNKNOWN_FUNCTION_RUNS, *};

/// Neither a call, nor one that the SDK can read.
#[tokio::test(start_paused = true)]
async fn a_promise_that_is_no_call_is_rejected_at_once() {
    let base64 = |text: &str| {
        use base64::{Engine, prelude::BASE64_STANDARD};
        BASE64_STANDARD.encode(text)
    };
    let deep = format!(r#"{{"func":"foo","args":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for data in [
        String::new(),
        base64("text"),
        base64(r#"{"args":[]}"#),
        base64(r#"{"func":"foo","args":"\ud83d"}"#),
        base64(r#"{"func":"foo","args":1e999}"#),
        base64(&deep),
        // What the SDK reads without a use for it.
        base64(r#"{"func":"foo","args":1,"x":"\ud83d"}"#),
        base64(r#"{"func":"foo","args":1,"x":1e999}"#),
    ] {
        let (runs, server) = rig({
            let data = data.clone();
            move |kind, _| match kind {
                "task.acquire" => acquired(&data),
                _ => Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")})),
            }
        });
        let reason = withheld(acquire(&runs, "x.0").await);
        assert!(reason.starts_with("the parameter of this promise is not a function call"));
        let (kind, fulfill) = server.seen().pop().unwrap();
        assert_eq!(
            (kind.as_str(), &fulfill["action"]["data"]["state"]),
            ("task.fulfill", &json!("rejected"))
        );
        let value = fulfill["action"]["data"]["value"]["data"].as_str().unwrap();
        assert_eq!(call::error_message(value), Some(reason));
        assert_eq!(runs.leases.all(), [], "{data}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_released_with_growing_delays_and_rejected_in_the_end() {
    let (runs, server) = rig(|kind, _| match kind {
        "task.acquire" => acquired(&call::encode("bar", &())),
        "task.fulfill" => {
            Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")}))
        }
        _ => ok(),
    });
    let mut last = Duration::ZERO;
    for run in 1..=UNKNOWN_FUNCTION_RUNS {
        let start = Instant::now();
        let reason = withheld(acquire(&runs, "x.0").await);
        assert!(reason.starts_with("no function \"bar\" in group g"), "{reason}");
        let kind = server.kinds().pop().unwrap();
        if run < UNKNOWN_FUNCTION_RUNS {
            assert_eq!(kind, "task.release");
            assert!(start.elapsed() > last, "run {run}");
            last = start.elapsed();
        } else {
            assert_eq!(kind, "task.fulfill");
        }
    }
}

/// A value that the server will never take: the run would be repeated for ever.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_large_rejects_the_promise() {
    let (runs, server) = rig(|kind, data| match kind {
        "task.fulfill" if data["action"]["data"]["state"] == "rejected" => {
            Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")}))
        }
        _ => Reply::TooLarge,
    });
    for too_large in [true, false] {
        hold(&runs);
        let reason = match too_large {
            true => withheld(fulfill(&runs).await),
            false => withheld(settle(&runs).await),
        };
        assert!(reason.contains("too large for the Resonate Server"), "{reason}");
        assert_eq!(server.kinds().pop().as_deref(), Some("task.fulfill"));
        assert_eq!(withheld(create(&runs, "x").await), Abandoned::Rejected.to_string());
        runs.leases.end("x.0", 1);
    }
    assert_eq!(runs.take_lost(), []);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_always_ends_in_nothing_is_rejected() {
    let (runs, server) = rig(|kind, _| match kind {
        "task.fulfill" => {
            Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")}))
        }
        _ => ok(),
    });
    for _ in 0..RELEASES {
        hold(&runs);
        release(&runs).await.unwrap();
    }
    let kinds = server.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "task.release").count(), RELEASES as usize - 1);
    assert_eq!(kinds.last().map(String::as_str), Some("task.fulfill"));
    assert_eq!(runs.leases.all(), []);
}

/// The answer lay in the socket of a frozen process: another one may have the task by now.
#[tokio::test(start_paused = true)]
async fn an_answer_after_the_end_of_the_lease_starts_nothing() {
    let (runs, server) = slow_rig(LEASE, |kind, data| match kind {
        "task.acquire" => acquired(&call_of_foo()),
        "task.fence" => fenced(data),
        _ => ok(),
    });
    assert_eq!(withheld(acquire(&runs, "x.0").await), Abandoned::Expired.to_string());
    assert_eq!(server.kinds(), ["task.acquire", "task.release"]);
    assert_eq!(runs.leases.all(), []);

    hold(&runs);
    assert_eq!(withheld(create(&runs, "x").await), Abandoned::Expired.to_string());
    assert_eq!(withheld(create(&runs, "x").await), Abandoned::Expired.to_string());
    assert_eq!(server.kinds().iter().filter(|kind| *kind == "task.fence").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_an_acquire_and_releases_what_it_brings() {
    let (runs, server) = slow_rig(Duration::from_secs(1), |kind, _| match kind {
        "task.acquire" => acquired(&call_of_foo()),
        _ => ok(),
    });
    let acquiring = {
        let runs = runs.clone();
        tokio::spawn(async move { acquire(&runs, "x.0").await })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    runs.drain().await;
    assert_eq!(start.elapsed(), Duration::from_secs(2), "the acquire, then the release");
    assert_eq!(withheld(acquiring.await.unwrap()), Abandoned::Draining.to_string());
    assert_eq!(server.kinds(), ["task.acquire", "task.release"]);
    assert_eq!(withheld(acquire(&runs, "x.0").await), Abandoned::Draining.to_string());
    assert_eq!(server.kinds().len(), 2, "nothing is acquired after that");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_soon_after_its_deadline_although_nothing_answers() {
    let (runs, server) = slow_rig(Duration::from_secs(60), |_, _| ok());
    (0..MAX_RUNS).for_each(|n| runs.leases.begin(&n.to_string(), 1, Instant::now(), LEASE));
    let start = Instant::now();
    runs.drain().await;
    assert_eq!(start.elapsed(), DRAIN + drain::LAST_RELEASE);
    assert_eq!(server.kinds(), ["task.release"; MAX_RUNS]);
}

#[tokio::test(start_paused = true)]
async fn a_process_at_its_bound_leaves_tasks_alone_until_it_has_room() {
    let (runs, server) = rig(|_, _| acquired(&call_of_foo()));
    (0..MAX_RUNS).for_each(|n| runs.leases.begin(&n.to_string(), 1, Instant::now(), LEASE));
    assert_eq!(withheld(acquire(&runs, "x.0").await), "this process holds 10 runs");
    assert_eq!(server.kinds(), Vec::<String>::new(), "nothing was acquired");
    runs.leases.end("0", 1);
    assert_eq!(acquire(&runs, "x.0").await.unwrap().status(), 200);
}

/// A caller that may take two days.
#[tokio::test(start_paused = true)]
async fn calls_and_steps_inherit_a_time_out_of_more_than_24_h() {
    const HOUR: i64 = 3_600_000;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    let callers = now + 48 * HOUR;
    for (asked, tags, sent) in [
        (now + 24 * HOUR, json!({"resonate:scope": "local"}), callers),
        (now + 24 * HOUR, json!({"resonate:target": "poll://any@g"}), callers),
        // Time-outs that the function sets, and a timer.
        (now + HOUR, json!({"resonate:target": "poll://any@g"}), now + HOUR),
        (now + 30 * HOUR, json!({"resonate:target": "poll://any@g"}), now + 30 * HOUR),
        (now + 24 * HOUR, json!({"resonate:timer": "true"}), now + 24 * HOUR),
    ] {
        let (runs, server) = rig(|_, data| fenced(data));
        hold(&runs);
        runs.leases.set_promise_timeout("x.0", 1, callers);
        let create = json!({"id": "x.0.0", "timeoutAt": asked, "param": {}, "tags": tags});
        let action = json!({"kind": "promise.create", "head": {}, "data": create});
        let fence = json!({"id": "x.0", "version": 1, "action": action});
        runs.exchange(Request::new("task.fence", &fence)).await.unwrap();
        assert_eq!(server.seen()[0].1["action"]["data"]["timeoutAt"], sent, "{tags}");
    }
}

/// A position is recorded as something else than the function asks for: it was changed meanwhile.
#[tokio::test(start_paused = true)]
async fn a_changed_function_does_not_take_the_result_of_another_call() {
    let step = json!({"resonate:scope": "local"});
    let call = json!({"resonate:scope": "global", "resonate:target": "poll://any@g"});
    let timer = json!({"resonate:scope": "global", "resonate:timer": "true"});
    let work = (&step, call::encode_value(&"work 1/2"));
    let check = (&step, call::encode_value(&"check"));
    let baz = (&call, call::encode("baz", &1));
    let baz_of_2 = (&call, call::encode("baz", &2));
    let bay = (&call, call::encode("bay", &1));
    let sleep = (&timer, String::new());
    for (recorded, asked, error) in [
        (&baz, &baz, None),
        (&baz, &baz_of_2, None),
        (&sleep, &sleep, None),
        // The step compares.
        (&work, &check, None),
        (&baz, &bay, Some(r#"recorded a call of "baz", code asks for a call of "bay""#)),
        (&baz, &check, Some(r#"recorded a call of "baz", code asks for the step "check""#)),
        (&sleep, &baz, Some(r#"recorded a timer, code asks for a call of "baz""#)),
        (&work, &sleep, Some(r#"recorded the step "work 1/2", code asks for a timer"#)),
    ] {
        let (tags, data) = recorded.clone();
        let (tags, data) = (tags.clone(), json!({"data": data}));
        let (runs, server) = rig(move |kind, request| match kind {
            "task.fence" => {
                let mut request = request.clone();
                request["action"]["data"]["tags"] = tags.clone();
                request["action"]["data"]["param"] = data.clone();
                fenced(&request)
            }
            _ => Reply::Answer(200, json!({"promise": promise(PromiseState::Rejected, "")})),
        });
        hold(&runs);
        let param = json!({"data": asked.1});
        let create = json!({"id": "x.0.0", "timeoutAt": 9_000, "param": param, "tags": asked.0});
        let action = json!({"kind": "promise.create", "head": {}, "data": create});
        let fence = json!({"id": "x.0", "version": 1, "action": action});
        let answered = runs.exchange(Request::new("task.fence", &fence)).await;
        let Some(error) = error else {
            assert_eq!(answered.unwrap().status(), 200);
            continue;
        };
        assert!(withheld(answered).ends_with(error), "{error}");
        let (kind, fulfill) = server.seen().pop().unwrap();
        assert_eq!((kind.as_str(), &fulfill["version"]), ("task.fulfill", &json!(1)));
        assert_eq!(withheld(settle(&runs).await), Abandoned::Rejected.to_string());
    }
}

/// A run is fenced: the process that has the task now may have the name of this one.
#[tokio::test(start_paused = true)]
async fn a_process_with_the_same_name_is_noticed() {
    for (pid, version, twin) in [
        ("me#2", 2, true),
        ("other#2", 2, false),
        // This process took it again, or a dead one with this name had it before.
        ("me#1", 2, false),
        ("me#2", 1, false),
    ] {
        let (runs, server) = rig(move |kind, _| match kind {
            "task.get" => {
                let task =
                    json!({"id": "x.0", "state": "acquired", "version": version, "pid": pid});
                Reply::Answer(200, json!({"task": task}))
            }
            _ => Reply::Answer(409, json!("stale")),
        });
        hold(&runs);
        settle(&runs).await.unwrap();
        assert_eq!(release(&runs).await.unwrap().status(), 409);
        assert_eq!(server.kinds(), ["task.fence", "promise.get", "task.get", "task.release"]);
        assert_eq!(runs.twin_reported.load(Ordering::Relaxed), twin, "{pid} {version}");
    }
}

/// The preload of a fence is all steps of the run. The SDK needs it only if it has lost some.
#[tokio::test(start_paused = true)]
async fn a_preload_is_passed_on_only_with_a_promise_that_was_settled_before() {
    for (state, passed_on) in [("pending", false), ("resolved", true)] {
        let (runs, _) = rig(move |_, data| {
            let Reply::Answer(status, mut answer) = fenced(data) else { unreachable!() };
            answer["action"]["data"]["promise"]["state"] = state.into();
            answer["preload"] = json!([answer["action"]["data"]["promise"]]);
            Reply::Answer(status, answer)
        });
        hold(&runs);
        let created: Value =
            serde_json::from_str(&create(&runs, "x").await.unwrap().into_text()).unwrap();
        let settled: Value =
            serde_json::from_str(&settle(&runs).await.unwrap().into_text()).unwrap();
        let preload = |answer: &Value| answer["data"]["preload"].as_array().unwrap().len();
        assert_eq!((preload(&created), preload(&settled)), (usize::from(passed_on), 0), "{state}");
    }
}
