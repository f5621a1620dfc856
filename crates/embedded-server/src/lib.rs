//! An in-memory Resonate server: for `cargo run`, tests and simulation.
//!
//! It speaks the protocol of the official server v0.9.8 as far as the SDK, the gateway and the tests
//! use it: promises, tasks, leases, callbacks, listeners, searches, messages as server-sent events, and
//! tokens. It does not have schedules, `task.halt`, `task.continue`, or addresses other than `poll://`. A
//! request for one of these is refused with the reason.
//!
//! **State is lost on restart.** Use the official server wherever flows must survive that.
//!
//! | file | what it does |
//! | --- | --- |
//! | `http.rs` | the routes |
//! | `request.rs`, `data.rs`, `rules.rs`, `operation.rs` | from a body to an operation, or a refusal |
//! | `auth.rs` | tokens |
//! | `core.rs` | the state machine |
//! | `delivery.rs` | which connection gets a message |
//! | `server.rs` | state, connections and clock behind one lock |
//! | `serve.rs` | the life of a server |
//! | `settings.rs`, `config.rs`, `logging.rs`, `clock.rs` | what it can be told |

mod auth;
mod clock;
mod config;
mod core;
mod data;
mod delivery;
mod http;
mod json;
mod logging;
mod operation;
mod reply;
mod request;
mod rules;
mod serve;
mod server;
mod settings;

pub use self::{
    auth::{Auth, PublicKey},
    settings::Settings,
};
pub use clock::Clock;
pub use config::Config;
pub use serve::{run, warn_of_its_memory};
pub use server::Server;
