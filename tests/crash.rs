//! What crashes, stops and outages do to flows: nothing but a delay, which is measured.
//!
//! `cargo test -p local --test crash -- --nocapture` prints the measured times.

#[path = "crash/drain.rs"]
mod drain;
#[path = "crash/flow.rs"]
mod flow;
#[path = "crash/groups.rs"]
mod groups;
#[path = "crash/kills.rs"]
mod kills;
#[path = "crash/outage.rs"]
mod outage;
#[allow(dead_code, reason = "each of the test binaries uses a part of it")]
mod support;

use drain::{
    a_second_signal_ends_a_process_at_once, a_step_longer_than_the_drain_is_released,
    a_stopped_process_finishes_its_step_and_hands_over,
};
use groups::{
    a_flow_waits_for_a_group_without_processes, a_gateway_that_was_killed_finds_its_flows_again,
};
use kills::{
    kill_9_at_fifteen_moments_of_the_work, kill_9_at_the_edges_of_steps_and_amid_retries,
    kill_9_of_all_that_held_a_flow_while_it_sleeps,
};

on_each_server!(
    kill_9_at_fifteen_moments_of_the_work,
    kill_9_at_the_edges_of_steps_and_amid_retries,
    kill_9_of_all_that_held_a_flow_while_it_sleeps,
    a_flow_waits_for_a_group_without_processes,
    a_gateway_that_was_killed_finds_its_flows_again,
    a_stopped_process_finishes_its_step_and_hands_over,
    a_second_signal_ends_a_process_at_once,
    a_step_longer_than_the_drain_is_released,
);
