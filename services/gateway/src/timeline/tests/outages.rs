//! The gateway could not reach the server for a while.

use super::*;

const GONE: &str = "From here on, the gateway could not reach the Resonate Server: \
    only what was stored is known";
const BACK: &str = "The gateway reached the Resonate Server again";

impl Rig {
    /// The gateway could not reach the server between these moments after the start.
    fn away(&mut self, from: i64, to: i64) {
        let outage = outage::Outage { from: START + from, to: START + to };
        self.known.as_mut().unwrap().was_away(outage);
    }
}

/// The kinds of the moments that are marked.
fn marks(view: &Value) -> Vec<&str> {
    view["marks"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_process_that_could_not_renew_its_lease_is_neither_dead_nor_slow() {
    for (pid, who, took) in [
        ("b#1-x@host", "b", "b, still the same process, went on"),
        ("b#2-y@host", "b", "b (restarted) took over"),
        ("b2#1-x@host", "b2", "b2 took over"),
    ] {
        let mut rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        rig.look(1_500).await;
        // The server comes back; a process takes the function before the next look.
        rig.task("f.0", "acquired", 2, Some(pid));
        rig.away(1_500, 45_000);
        let view = rig.look(44_990).await;
        let again = format!("run b 1030..1500, away - 1500..45000, run {who} 45000..");
        assert_eq!(row(&view, "f.0.1"), format!("runs again: {again}"));
        assert_eq!(marks(&view), ["takeover"]);
        assert_eq!(view["gone"], json!([]));
        let took = format!(
            "44990 The lease of b was not renewed while the server was unreachable, and ran out. \
            {took} with step 2 of 3; step 1 is stored and did not run again"
        );
        let expected = [format!("1500 {GONE}"), took, format!("45000 {BACK}")];
        assert_eq!(story(&view)[2..], expected);
        // Later, the process itself says when it began.
        rig.settled("f.0.1", 45_800, (who, 2), json!(null));
        rig.header("f.0.1", HEADER_BEGUN, START + 44_800);
        let view = rig.look(46_000).await;
        let again = format!("run b 1030..1500, away - 1500..44800, run {who} 44800..45800");
        assert_eq!(row(&view, "f.0.1"), format!("✓ ran again: {again}"));
    }
}

#[tokio::test]
async fn a_lease_that_is_over_after_an_outage_is_no_death() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    rig.task("f.0", "pending", 1, None);
    rig.away(1_500, 10_000);
    let view = rig.look(10_400).await;
    let expected =
        "interrupted: run b 1030..1500, away - 1500..10000, silent b 10000..10400, queue - 10400..";
    assert_eq!(row(&view, "f.0.1"), expected);
    assert_eq!(view["holders"][0]["expired"], 10_400);
    assert_eq!((marks(&view), &view["gone"]), (vec![], &json!([])));
    let over = "10400 The lease of b was not renewed while the server was unreachable, and ran out: \
        a process of group service-b may take over";
    assert_eq!(story(&view).last().unwrap(), over);
    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    let view = rig.look(12_000).await;
    let took = "12000 b2 took over with step 2 of 3; step 1 is stored and did not run again";
    assert_eq!(story(&view).last().unwrap(), took);
}

#[tokio::test]
async fn a_step_that_ended_with_an_outage_has_not_worked_for_so_long() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    rig.settled("f.0.1", 20_000, ("b", 1), json!(null));
    rig.created("f.0.2", 20_010, ("b", 1));
    rig.away(1_500, 20_300);
    let view = rig.look(20_290).await;
    assert_eq!(row(&view, "f.0.1"), "✓ stored: run b 1030..1500, away - 1500..20000");
    assert_eq!(row(&view, "f.0.2"), "runs: run b 20010..");
    let bar = "runs: run b 10..1500, away - 1500..20000, run b 20000..";
    assert_eq!(row(&view, "f.0"), bar);
    assert_eq!(row(&view, "f"), "waits for bar: run a 0..10, wait - 10..", "a wait is no work");
    assert_eq!(marks(&view), [""; 0]);
}

#[tokio::test]
async fn a_short_wait_after_an_outage_is_not_drawn() {
    let mut rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    rig.look(1_500).await;
    rig.away(1_500, 10_000);
    rig.task("f.0", "acquired", 2, Some("b2#2-y@host"));
    let view = rig.look(10_200).await;
    let again = "runs again: run b 1030..1500, away - 1500..10200, run b2 10200..";
    assert_eq!(row(&view, "f.0.1"), again);
}

#[tokio::test]
async fn what_the_server_stored_while_only_the_gateway_could_not_reach_it_is_known() {
    let mut rig = Rig::new("await-chain", work(8));
    in_step_2(&rig);
    rig.look(1_500).await;
    for n in 1..6 {
        rig.settled(&format!("f.0.{n}"), n * 1_010 + 1_020, ("b", 1), json!(null));
        rig.created(&format!("f.0.{}", n + 1), n * 1_010 + 1_030, ("b", 1));
    }
    rig.away(1_500, 6_500);
    let view = rig.look(6_490).await;
    assert_eq!(row(&view, "f.0"), "runs: run b 10..");
    assert_eq!(story(&view)[2..], [format!("1500 {GONE}"), format!("6500 {BACK}")]);
}

#[tokio::test]
async fn a_process_that_died_long_after_an_outage_or_by_the_button_is_dead() {
    for button in [false, true] {
        let mut rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        rig.look(1_200).await;
        if button {
            rig.crashes.push(crash("b", 1_300));
        }
        rig.away(1_200, 3_000);
        if !button {
            rig.look(8_000).await;
        }
        rig.task("f.0", "pending", 1, None);
        let view = rig.look(if button { 4_300 } else { 9_000 }).await;
        assert_eq!(marks(&view), ["death"], "{button}");
        assert_eq!(view["gone"][0]["instance"], "b");
    }
}
