//! The runtime of a process: what every service and the gateway share.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`Service`] | a group and its functions |
//! | [`Worker`] | a process of a service, without what belongs to the operating system |
//! | [`step()`] | checkpointed steps, with retries |
//! | [`crash`] | the function that kills its process, for demonstrations |
//! | [`server`] | the way to the Resonate Server, layer by layer |
//! | [`config`] | the settings of every process |
//! | [`cli`], [`runtime`] | command lines; the Tokio runtime and listeners of a process |
//! | [`stop`], [`launched`] | signals; the socket to the launcher |
//! | [`memory`] | how much a process may hold at once |
//! | [`connections`], [`descriptors`] | HTTP connections: bounds and time-outs; open files |
//! | [`health`] | `/healthz`, `/readyz` and the command that asks for them |
//! | [`logging`], [`life`] | log lines; those about the life of a process |
//! | [`error`] | why a process ended, and its exit code |
//! | [`errors`] | errors of functions |
//!
//! It knows no flow. A service is its functions and `node::main`:
//!
//! ```no_run
//! use node::prelude::*;
//!
//! #[resonate_sdk::function]
//! async fn greet(name: String) -> Result<String> {
//!     Ok(format!("hello {name}"))
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     node::main(Service::new("greeter").function(greet))
//! }
//! ```

pub mod cli;
pub mod config;
pub mod connections;
pub mod crash;
pub mod descriptors;
pub mod error;
pub mod errors;
mod guard;
pub mod health;
pub mod launched;
pub mod life;
pub mod logging;
pub mod memory;
mod process;
mod recorded;
pub mod runtime;
pub mod server;
mod service;
mod step;
pub mod stop;
#[cfg(test)]
mod test_log;
mod watchdog;
mod worker;

/// Reading and writing JSON is mostly allocation: glibc's allocator took a quarter of the CPU of a
/// process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use cli::main;
pub use service::Service;
pub use step::step;
pub use worker::Worker;

/// What a service's file uses.
pub mod prelude {
    pub use crate::{Service, step};
    pub use resonate_sdk::{error::Result, prelude::Context};
}
