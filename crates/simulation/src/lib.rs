//! A whole system in one thread, in virtual time, under faults that follow from a seed.
//!
//! Real are the functions, the SDK, all layers of a process but the lowest, the tracing crate, and the
//! Resonate Server (the embedded one). Simulated are time, random numbers, the network, and the life
//! and death of processes. An hour passes in milliseconds, and the same seed gives the same history.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`simulate`] | enters virtual time |
//! | [`World`] | processes and the server, stepped in turn |
//! | [`faults`] | what can happen to them, as data |
//! | [`Record`] | what happened, and what must not have happened |
//!
//! Each process is a host with a Tokio runtime of its own, whose time is paused. In each tick, each
//! host runs until the tick's end. A kill drops the runtime with all its tasks, a freeze skips its
//! ticks and lets its clock jump at the end.

mod call;
pub mod faults;
mod host;
mod network;
mod observe;
mod protocol;
mod record;
mod server;
mod settings;
mod transport;
mod world;

use std::thread;

pub use host::Process;
pub use observe::USER_CODE;
pub use record::{Exported, Record};
pub use settings::settings;
pub use world::{Stuck, World, identity};

/// Runs `story` with a new world in virtual time, in a thread of its own.
///
/// The same seed gives the same history in each process that simulates nothing else before: Tokio
/// counts some things for the whole process.
///
/// # Panics
/// `story` panics.
pub fn simulate<T: Send>(seed: u64, story: impl FnOnce(World) -> T + Send) -> T {
    let simulation = || {
        virtual_time::enter(seed);
        fastrand::seed(seed);
        let result = story(World::new(seed));
        virtual_time::leave();
        result
    };
    thread::scope(|scope| {
        let thread = scope.spawn(simulation);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The code of docs/testing.md, which is run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Testing;
