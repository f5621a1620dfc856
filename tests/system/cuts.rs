//! Processes that are cut off from the Resonate Server without FIN or RST.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::{FLOWS, Server, Stopped, System};

use crate::flow::{ALLOWANCE, LEASE, LUCK, Running, expect_no_stored_step_again, taken_over};

testkit::on_each_server!(
    a_holder_that_is_cut_off_is_replaced_and_its_stored_steps_do_not_run_again,
    requests_at_a_gateway_with_dead_connections_are_answered,
);

/// How long a flow that has ended may stay unnoticed by the requests that wait for it: the gateway asks
/// every 5 s. TCP keep-alive needs 11 s to close the message stream, and the idle connections.
const NOTICED: Duration = Duration::from_secs(5);

/// How long the flows of a dead gateway work.
const WORK: Duration = Duration::from_secs(2);

async fn a_holder_that_is_cut_off_is_replaced_and_its_stored_steps_do_not_run_again(
    server: Server,
) -> Stopped {
    let system = System::start_cabled(server, &[]).await;
    join_all(FLOWS.map(async |flow| {
        let id = format!("cut-{}", flow.name);
        let mut flow = Running::start(&system, flow.name, &id, "work=5s").await;
        let holder = flow.at(&system, "step started", 2).await.instance().to_owned();
        let cut = Instant::now();
        system.cable(&holder).cut();
        let after = taken_over(&system, &flow.worker, &holder, cut).await;
        println!(
            "{server:?}, lease {LEASE:?}: {id} taken over {after:.3?} after {holder} was cut off"
        );
        assert!(after <= LEASE + ALLOWANCE + LUCK, "{after:?}");
        system.cable(&holder).heal();
        flow.finish(&system).await;
    }))
    .await;
    expect_no_stored_step_again(&system).await;
    system.stop().await
}

async fn requests_at_a_gateway_with_dead_connections_are_answered(server: Server) -> Stopped {
    let system = System::start_cabled(server, &[]).await;
    let flows = ["await-chain", "fan-out-workflow"].map(async |name| {
        let flow = Running::start(&system, name, &format!("dead-{name}"), "work=2s").await;
        flow.at(&system, "step started", 1).await;
        flow
    });
    let mut flows = join_all(flows).await;
    // As by a firewall that has forgotten them: the message that a flow has ended is lost.
    system.cable("gateway").heal_forgetting();
    let dead = Instant::now();
    join_all(flows.iter_mut().map(async |flow| {
        flow.finish(&system).await;
        let after = dead.elapsed();
        println!("{server:?}: {} answered {after:.3?} after the connections died", flow.id);
        assert!(after <= WORK + NOTICED + ALLOWANCE, "{after:?}");
    }))
    .await;
    system.stop().await
}
