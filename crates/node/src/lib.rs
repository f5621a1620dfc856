//! The node runtime: what every process of the system shares.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`config`] | settings: defaults, file, environment |
//! | [`transport`] | requests and messages of the Resonate Server, repeated, fenced, drained |
//! | [`Service`] | a group and its functions, guarded against poison |
//! | [`step()`] | checkpointed steps, retried |
//! | [`Options`] | what a request may ask of a flow |
//! | [`health`] | `/healthz`, `/readyz` and the command that asks for them |
//! | [`lifecycle`] | start, signals, drain, exit codes |
//!
//! A service is its functions and `node::main`:
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
//!     node::main(Service::new("service-j").function(greet))
//! }
//! ```

pub mod config;
pub mod duration;
pub mod errors;
pub mod health;
pub mod lifecycle;
pub mod logging;
mod options;
mod service;
mod step;
pub mod transport;

pub use lifecycle::main;
pub use options::{Options, STEP};
pub use service::Service;
pub use step::step;

/// What a service's file uses.
pub mod prelude {
    pub use crate::{Options, Service, step};
    pub use resonate_sdk::{error::Result, prelude::Context};
}
