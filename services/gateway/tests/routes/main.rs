//! The routes of the gateway, called without a connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod page;

use clap::{Args, FromArgMatches};
use gateway::{Gateway, Settings};
use resonate_otel::{Identity, Telemetry};
use tokio::net::TcpListener;

/// A gateway on an embedded server that no service is connected to, so that each flow stays pending.
/// `options` are those of its command line.
async fn gateway_with(options: &[&str]) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = embedded_server::Config::default();
    tokio::spawn(embedded_server::run(listener, config, std::future::pending()));
    let command = Settings::augment_args(clap::Command::new("gateway"));
    let matches = command.get_matches_from([&["gateway", "--server", &server], options].concat());
    let settings = Settings::from_arg_matches(&matches).unwrap();
    let identity = Identity {
        name: gateway::GROUP.to_owned(),
        instance: gateway::GROUP.to_owned(),
        namespace: flows::NAMESPACE.to_owned(),
        version: "test".to_owned(),
    };
    let transport = node::server::http(&settings.node).unwrap();
    let telemetry = Telemetry::start(identity).unwrap();
    let mut gateway = Gateway::connect(settings, transport, &telemetry).unwrap();
    gateway.up.wait_for(|up| *up).await.unwrap();
    gateway
}
