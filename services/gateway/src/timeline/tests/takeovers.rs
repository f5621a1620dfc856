//! Runs that end in the middle of a step.

use super::*;

#[tokio::test]
async fn a_takeover_that_somebody_watched() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    let view = rig.look(1_500).await;
    let work = "waits for bar: run a 0..10, wait - 10..";
    assert_eq!(row(&view, "f"), work);
    assert_eq!(row(&view, "f.0"), "runs: run b 10..");
    assert_eq!(view["holders"][0]["instance"], "b");
    assert_eq!(view["holders"][0]["step"], "work 2/3");
    assert_eq!(view["holders"][0]["lease"], 3_000);

    // The lease is over: its last heartbeat was a lease before.
    rig.task("f.0", "pending", 1, None);
    let view = rig.look(4_000).await;
    let lost = "silent b 1030..4000, queue - 4000..";
    assert_eq!(row(&view, "f.0.1"), format!("interrupted: {lost}"));
    assert_eq!(row(&view, "f.0"), format!("waits for a process: run b 10..1030, {lost}"));
    assert_eq!(
        (&view["holders"][0]["died"], &view["holders"][0]["expired"]),
        (&json!(1_030), &json!(4_000))
    );

    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    let view = rig.look(4_100).await;
    let again = "runs again: silent b 1030..4100, run b2 4100..";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(view["holders"][0]["instance"], "b2");
    assert_eq!(view["takeovers"], 1);

    // The process itself knows better when it began.
    ended(&rig, 2);
    let view = rig.look(6_200).await;
    let again = "✓ ran again: silent b 1030..4090, run b2 4090..5100";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(
        story(&view),
        [
            "0 foo started on a and called bar",
            "10 bar started on b",
            "1030 Last sign of life of b, in step 2 of 3; not known whether it still worked",
            "4000 The lease of b ran out: a process of group service-b may take over",
            "4090 b2 took over with step 2 of 3; step 1 is stored and did not run again",
            "6120 baz started on c",
            "6150 The answer is 3",
        ]
    );
}

#[tokio::test]
async fn a_takeover_that_nobody_watched() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    ended(&rig, 2);
    let view = rig.look(10_000).await;
    let again = "✓ ran again: silent b 1030..4090, run b2 4090..5100";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(view["marks"][1], json!({"at": 4_090, "kind": "takeover", "text": "takeover"}));
    assert!(view["complete"].as_bool().unwrap());
    // When the lease ran out is not known, but that it did.
    let took = "4090 Its lease ran out. b2 took over with step 2 of 3; \
        step 1 is stored and did not run again";
    assert!(story(&view).contains(&took.to_owned()), "{view}");
}

/// The other process takes over 20 seconds later.
fn ended_late(rig: &Rig) {
    ended(rig, 2);
    for id in ["f.0.1", "f.0.2", "f.0.3", "f.0", "f"] {
        let late = |time: &mut Value| *time = (time.as_i64().unwrap() + 20_000).into();
        rig.change(id, |promise| {
            late(&mut promise["settledAt"]);
            if ["f.0.2", "f.0.3"].contains(&id) {
                late(&mut promise["createdAt"]);
            }
        });
    }
    rig.header("f.0.1", HEADER_BEGUN, START + 24_090);
}

#[tokio::test]
async fn a_long_wait_for_a_process_is_no_part_of_the_lease_during_the_flow_and_after_it() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    rig.task("f.0", "pending", 1, None);
    let during = rig.look(4_000).await;
    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    rig.look(24_100).await;
    ended_late(&rig);
    let after = rig.look(30_000).await;
    let again = "✓ ran again: silent b 1030..4000, queue - 4000..24090, run b2 24090..25100";
    assert_eq!(row(&after, "f.0.1"), again);
    let (during, after) = (story(&during), story(&after));
    assert_eq!(during[..], after[..during.len()]);
    assert_eq!(
        during[3],
        "4000 The lease of b ran out: a process of group service-b may take over"
    );
    let took = "24090 b2 took over with step 2 of 3; step 1 is stored and did not run again";
    assert_eq!(after[4], took);
}

#[tokio::test]
async fn a_long_wait_that_nobody_watched_is_told_from_the_length_of_the_lease() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    ended_late(&rig);
    let view = rig.look(30_000).await;
    let again = "✓ ran again: silent b 1030..4030, queue - 4030..24090, run b2 24090..25100";
    assert_eq!(row(&view, "f.0.1"), again);
    let ran_out = "4030 The lease of b ran out at about this time: \
        a process of group service-b may take over";
    assert!(story(&view).contains(&ran_out.to_owned()), "{view}");
}

#[tokio::test]
async fn a_process_that_takes_over_from_one_of_its_name_was_restarted_if_that_is_known() {
    // Whether the button killed it, and the process before and after, if somebody watched.
    let slow = "b took over from itself, for it had only been slow,";
    let unknown = "b took over from itself, restarted or after it had been slow,";
    for (button, watched, took, sign) in [
        (false, Some("b#2-y@host"), "b (restarted) took over", "takeover (restarted)"),
        (false, Some("b#1-x@host"), slow, "takeover (same name)"),
        (false, None, unknown, "takeover (same name)"),
        (true, None, "b (restarted) took over", "takeover (restarted)"),
    ] {
        let mut rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        if button {
            rig.crashes.push(crash("b", 1_600));
        }
        if let Some(pid) = watched {
            rig.look(1_500).await;
            rig.task("f.0", "acquired", 2, Some(pid));
            rig.look(4_100).await;
        }
        ended(&rig, 2);
        rig.settled("f.0.1", 5_100, ("b", 2), json!(null));
        rig.header("f.0.1", HEADER_BEGUN, START + 4_090);
        let view = rig.look(10_000).await;
        let expected = format!("{took} with step 2 of 3; step 1 is stored");
        assert!(story(&view)[3].contains(&expected), "{expected}: {view}");
        assert_eq!(view["marks"][1]["text"], sign);
        assert_eq!(view["gone"], json!([]), "it is alive");
    }
}

#[tokio::test]
async fn a_process_that_died_before_the_last_takeover_is_called_restarted_too() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    for (instance, at) in [("b", 1_600), ("b2", 4_500)] {
        rig.crashes.push(crash(instance, at));
    }
    rig.look(1_700).await;
    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    rig.look(4_100).await;
    rig.task("f.0", "acquired", 3, Some("b#3-z@host"));
    rig.look(7_100).await;
    ended(&rig, 3);
    rig.settled("f.0.1", 8_100, ("b", 3), json!(null));
    rig.header("f.0.1", HEADER_BEGUN, START + 7_090);
    let view = rig.look(10_000).await;
    let took: Vec<_> = story(&view).into_iter().filter(|line| line.contains("took")).collect();
    assert!(took[0].contains("ran out. b2 took over with step 2 of 3;"), "{took:?}");
    assert!(took[1].contains("b (restarted) took over with step 2 of 3;"), "{took:?}");
    assert_eq!(view["gone"][0]["instance"], "b2", "the one that was not seen again");
}

#[tokio::test]
async fn runs_that_nobody_saw_are_not_drawn_as_a_wait() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    ended_late(&rig);
    rig.settled("f.0.1", 25_100, ("b2", 4), json!(null));
    rig.header("f.0.1", HEADER_BEGUN, START + 24_090);
    let view = rig.look(30_000).await;
    let lost = "silent b 1030..4030, unknown - 4030..24090";
    let again = format!("✓ ran again: {lost}, run b2 24090..25100");
    assert_eq!(row(&view, "f.0.1"), again);
    let took = "24090 b2 took over with step 2 of 3, after 2 runs that nobody saw; \
        step 1 is stored and did not run again";
    assert!(story(&view).contains(&took.to_owned()), "{view}");
}

#[tokio::test]
async fn the_dead_are_listed_until_they_are_seen_again() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    rig.crashes.push(crash("other", -500));
    rig.crashes.push(crash("b", 1_600));
    let gone = |view: &Value| {
        let names = view["gone"].as_array().unwrap().iter();
        names
            .map(|it| format!("{} {}", it["instance"].as_str().unwrap(), it["at"]))
            .collect::<Vec<_>>()
    };
    // Nothing waits for a process yet, so deaths of other flows do not matter.
    assert_eq!(gone(&rig.look(1_700).await), ["b 1600"]);
    rig.task("f.0", "pending", 1, None);
    let view = rig.look(4_000).await;
    assert_eq!(gone(&view), ["other -500", "b 1600"]);
    assert_eq!(view["gone"][0]["start"], "start other");
    rig.task("f.0", "acquired", 2, Some("b#2-y@host"));
    assert_eq!(gone(&rig.look(9_000).await), [""; 0]);
    // It is stopped, which is no death, and has lived since the crash.
    rig.promise(&resonate_otel::released_mark("f.0", 2), -START, json!({}));
    rig.task("f.0", "pending", 2, None);
    assert_eq!(gone(&rig.look(9_500).await), ["other -500"]);
}

#[tokio::test]
async fn a_call_that_waited_long_for_its_process_was_not_run_meanwhile() {
    for watched in [true, false] {
        let mut rig = Rig::new("await-chain", work(1));
        rig.task("f", "suspended", 1, None);
        rig.created("f.0", 10, ("a", 1));
        rig.task("f.0", "pending", 0, None);
        if watched {
            rig.crashes.push(crash("b", -500));
            let view = rig.look(100).await;
            assert_eq!(row(&view, "f.0"), "waits for a process: queue - 10..");
            let line = "10 bar was called; it waits for a process of group service-b";
            assert_eq!(story(&view)[1], line);
            assert_eq!(view["gone"][0]["instance"], "b");
        }
        rig.created("f.0.0", 20_000, ("b", 1));
        rig.settled("f.0.0", 21_000, ("b", 1), json!(null));
        rig.created("f.0.1", 21_010, ("b", 1));
        rig.settled("f.0.1", 41_010, ("c", 1), json!(1));
        rig.settled("f.0", 41_020, ("b", 1), json!(2));
        rig.settled("f", 41_030, ("a", 2), json!(3));
        rig.task("f.0", "fulfilled", 1, None);
        rig.task("f", "fulfilled", 2, None);
        let view = rig.look(50_000).await;
        let bar = "✓ returned 2: queue - 10..20000, run b 20000..21010, wait - 21010..41010, run b 41010..41020";
        assert_eq!(row(&view, "f.0"), bar, "{watched}");
        assert_eq!(row(&view, "f.0.1"), "✓ returned 1: queue - 21010..41010, run c 41010..41010");
        let expected = [
            "0 foo started on a and called bar",
            "10 bar was called; it waits for a process of group service-b",
            "20000 bar started on b",
            "21010 baz was called; it waits for a process of group service-c",
            "41010 baz started on c",
            "41030 The answer is 3",
        ];
        assert_eq!(story(&view), expected);
    }
}

#[tokio::test]
async fn a_run_that_was_released_has_not_died() {
    for (watched, released) in [(true, 1_600), (false, 1_030)] {
        let mut rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        rig.promise(&resonate_otel::released_mark("f.0", 1), -START, json!({}));
        if watched {
            rig.look(1_500).await;
            rig.task("f.0", "pending", 1, None);
            let view = rig.look(1_600).await;
            assert_eq!(view["holders"][0]["stopped"], true);
            assert_eq!(row(&view, "f.0.1"), "interrupted: run b 1030..1600, queue b 1600..");
        }
        ended(&rig, 2);
        let view = rig.look(10_000).await;
        assert_eq!(view["takeovers"], 0);
        let expected = format!(
            "✓ ran again: run b 1030..{released}, queue b {released}..4090, run b2 4090..5100"
        );
        assert_eq!(row(&view, "f.0.1"), expected);
        let line = format!("{released} b was stopped in step 2 of 3, and gave its work back");
        assert!(story(&view).contains(&line), "{view}");
    }
}

#[tokio::test]
async fn the_crash_button_shows_at_once() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    for (instance, at) in [("b", 500), ("other", 1_550), ("b", 1_600)] {
        rig.crashes.push(crash(instance, at));
    }
    let view = rig.look(1_700).await;
    assert_eq!(row(&view, "f.0.1"), "interrupted: run b 1030..1600, lost b 1600..");
    let holder = &view["holders"][0];
    assert_eq!((&holder["died"], &holder["expired"]), (&json!(1_600), &Value::Null));
    assert_eq!(holder["stopped"], false);
    assert_eq!(holder["lease"], 3_000);
    rig.task("f.0", "pending", 1, None);
    rig.look(4_000).await;
    ended(&rig, 2);
    let view = rig.look(6_200).await;
    let again = "✓ ran again: run b 1030..1600, lost b 1600..4090, run b2 4090..5100";
    assert_eq!(row(&view, "f.0.1"), again);
    assert!(story(&view).contains(&"1600 b was crashed in step 2 of 3".to_owned()), "{view}");
}

/// Nobody looked when it happened.
#[tokio::test]
async fn a_death_that_nobody_watched_has_no_time_of_its_own() {
    for (crashes, expected, lease) in [
        (vec![], "interrupted: silent b 1030..60000, queue - 60000..", "had run out by then"),
        (
            vec![crash("b", 2_000)],
            "interrupted: run b 1030..2000, lost b 2000..5000, queue - 5000..",
            "ran out",
        ),
    ] {
        let mut rig = Rig::new("await-chain", work(3));
        rig.crashes = crashes;
        in_step_2(&rig);
        rig.task("f.0", "pending", 1, None);
        let view = rig.look(60_000).await;
        assert_eq!(row(&view, "f.0.1"), expected);
        let story = story(&view).join(", ");
        assert!(story.contains(&format!("The lease of b {lease}: ")), "{story}");
    }
}

/// A page that is opened late does not know that a process took the call at once.
#[tokio::test]
async fn a_call_that_was_looked_at_too_late_waited_for_its_first_sign() {
    let mut rig = Rig::new("await-chain", work(3));
    rig.task("f", "suspended", 1, None);
    rig.created("f.0", 10, ("a", 1));
    rig.created("f.0.0", 20_000, ("b", 1));
    rig.task("f.0", "acquired", 1, Some("b#1-x@host"));
    let view = rig.look(20_500).await;
    assert_eq!(row(&view, "f.0"), "runs: queue - 10..20000, run b 20000..");
}

/// The process that would go on is away.
#[tokio::test]
async fn a_wait_for_a_process_after_a_timer_is_no_work() {
    for (watched, taken) in [(true, 64_000), (false, 64_040)] {
        let options = Options { sleep: Some(Duration::from_secs(4)), ..Options::default() };
        let mut rig = Rig::new("await-chain", options);
        rig.created("f.0", 10, ("a", 1));
        rig.created("f.0.0", 20, ("b", 1));
        rig.created("f.0.0.0", 30, ("c", 1));
        for id in ["f", "f.0", "f.0.0"] {
            rig.task(id, "suspended", 1, None);
        }
        rig.look(1_000).await;
        rig.settled("f.0.0.0", 4_030, ("", 0), json!(null));
        if watched {
            rig.task("f.0.0", "acquired", 2, Some("c2#1"));
            rig.look(64_000).await;
        }
        rig.settled("f.0.0", 64_040, ("c2", 2), json!(1));
        rig.task("f.0.0", "fulfilled", 2, None);
        let view = rig.look(64_100).await;
        let expected = format!(
            "✓ returned 1: run c 20..30, sleep - 30..4030, queue - 4030..{taken}, run c2 {taken}..64040"
        );
        assert_eq!(row(&view, "f.0.0"), expected);
    }
}

/// A cancel settles callers first.
#[tokio::test]
async fn a_canceled_flow_shows_no_work_after_its_end_and_no_timer_that_was_over() {
    let options = Options { sleep: Some(Duration::from_secs(4)), ..Options::default() };
    let mut rig = Rig::new("await-chain", options);
    rig.created("f.0", 10, ("a", 1));
    rig.created("f.0.0", 20, ("b", 1));
    rig.created("f.0.0.0", 30, ("c", 1));
    for (at, id) in ["f", "f.0", "f.0.0", "f.0.0.0"].into_iter().enumerate() {
        rig.settled(id, 1_000 + at as i64, ("", 0), json!(null));
        rig.change(id, |promise| {
            promise["state"] = "rejected_canceled".into();
            promise["value"] = json!({});
        });
    }
    let view = rig.look(1_100).await;
    let row = |id| row(&view, id).split_once(": ").map(|(_, bars)| bars.to_owned()).unwrap();
    assert_eq!(row("f"), "run a 0..10, wait - 10..1000");
    assert_eq!(row("f.0"), "run b 10..20, wait - 20..1001");
    assert_eq!(row("f.0.0"), "run c 20..30, sleep - 30..1002");
    let timer = &view["rows"][3];
    assert_eq!((&timer["id"], &timer["note"]), (&json!("f.0.0.0"), &json!("✗ ended")));
}
