//! What the system tests share. It sees the system as a user does: executables, ports, logs, HTTP,
//! OTLP, containers. Of the other crates it knows the table of flows only.
//!
//! | module | provides |
//! | --- | --- |
//! | [`system`] | the whole system, started by its launcher |
//! | [`server`] | the embedded and the official Resonate Server as processes |
//! | [`auth`] | keys and tokens, and TLS in front of a server |
//! | [`cable`] | a connection to a server that can be cut |
//! | [`process`], [`log`] | a process, and the lines that processes print |
//! | [`http`], [`resonate`] | clients of the gateway and of the Resonate Server |
//! | [`collector`], [`span`], [`metric`] | an OTLP collector, and the spans and metrics that it received |
//! | [`deployment`], [`docker`] | the deployment in containers |
//! | [`flows`] | the table of flows |
//! | [`steps`] | whether a stored step has run again |
//! | [`stop`], [`shared`] | how a test ends what it started, alone or together with others |
//! | [`wait`] | [`until`], [`free_port`] |
#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

pub mod auth;
pub mod cable;
pub mod collector;
pub mod deployment;
pub mod docker;
pub mod flows;
pub mod http;
pub mod log;
pub mod metric;
pub mod process;
pub mod resonate;
pub mod server;
pub mod shared;
pub mod span;
pub mod steps;
pub mod stop;
pub mod system;
pub mod wait;

pub use self::{
    cable::Cable,
    collector::{Collector, Mode},
    deployment::Deployment,
    flows::FLOWS,
    http::{Answer, Http},
    log::{Line, Log},
    metric::Point,
    process::Process,
    resonate::Resonate,
    server::Server,
    shared::{Pool, Shared},
    span::Span,
    stop::{Stop, Stopped},
    system::System,
    wait::{DEADLINE, free_port, until},
};

/// Turns each of these functions, `async fn(Server) -> Stopped`, into one test on the embedded
/// server and one on the official server. A function that does not stop what it started has no
/// [`Stopped`] to return.
#[macro_export]
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $name() {
                    let _: $crate::Stopped = super::$name($crate::Server::Embedded).await;
                }
            )*
        }
        $crate::on_the_official_server!($($name),*);
    };
}

/// The same, on the official server only: for tests that restart a server and expect it to
/// remember everything.
#[macro_export]
macro_rules! on_the_official_server {
    ($($name:ident),* $(,)?) => {
        mod official {
            $(
                #[tokio::test]
                async fn $name() {
                    if $crate::Server::official_is_here(stringify!($name)) {
                        let _: $crate::Stopped = super::$name($crate::Server::Official).await;
                    }
                }
            )*
        }
    };
}
