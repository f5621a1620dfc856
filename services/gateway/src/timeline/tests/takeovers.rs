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
    assert_eq!(row(&view, "f.0.1"), "interrupted: run b 1030..1030, lost b 1030..");
    assert_eq!(row(&view, "f.0"), "nobody runs it: run b 10..1030, lost b 1030..");
    assert_eq!(
        (&view["holders"][0]["died"], &view["holders"][0]["expired"]),
        (&json!(1_030), &json!(true))
    );

    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    let view = rig.look(4_100).await;
    let again = "runs again: run b 1030..1030, lost b 1030..4100, run b2 4100..";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(view["holders"][0]["instance"], "b2");
    assert_eq!(view["takeovers"], 1);

    // The process itself knows better when it began.
    ended(&rig, 2);
    let view = rig.look(6_200).await;
    let again = "✓ ran again: run b 1030..1030, lost b 1030..4090, run b2 4090..5100";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(
        story(&view),
        [
            "0 foo started on a",
            "10 bar started on b",
            "1030 Last sign of life of b, in step 2 of 3",
            "4090 Its lease ran out. b2 took over with step 2 of 3; step 1 is stored and did not run again",
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
    let again = "✓ ran again: run b 1030..1030, lost b 1030..4090, run b2 4090..5100";
    assert_eq!(row(&view, "f.0.1"), again);
    assert_eq!(view["marks"][1], json!({"at": 4_090, "kind": "takeover", "text": "takeover"}));
    assert!(view["complete"].as_bool().unwrap());
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
        rig.crashes.push(record::Crash { instance: instance.to_owned(), at: START + at });
    }
    let view = rig.look(1_700).await;
    assert_eq!(row(&view, "f.0.1"), "interrupted: run b 1030..1600, lost b 1600..");
    let holder = &view["holders"][0];
    assert_eq!((&holder["died"], &holder["expired"]), (&json!(1_600), &json!(false)));
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
