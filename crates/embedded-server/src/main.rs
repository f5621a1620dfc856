//! `embedded-server`: the embedded Resonate server as a process of its own.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use embedded_server::Settings;
use settings::EXIT_SETTING;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// An in-memory Resonate server. All state is lost on restart.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the server that listens on this address for its health; exits with 0 if it answers
    Healthcheck,
}

#[tokio::main]
async fn main() -> ExitCode {
    let parsed = settings::parse(Cli::command(), &["EMBEDDED_SERVER"], std::env::args_os());
    let parsed = parsed.and_then(|parsed| Ok((parsed.read()?, parsed.unknown)));
    let (Cli { settings, command }, unknown) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return error.report(),
    };
    match command {
        None => serve(settings, &unknown).await,
        Some(Command::Healthcheck) => check_health(settings::reachable(settings.listen)).await,
    }
}

async fn serve(settings: Settings, unknown: &[String]) -> ExitCode {
    settings.start_logging();
    unknown.iter().for_each(|name| tracing::warn!(name, "unknown setting"));
    let bound = TcpListener::bind(settings.listen).await;
    let (listener, address) = match bound.and_then(|bound| Ok((bound.local_addr()?, bound))) {
        Ok((address, listener)) => (listener, address),
        Err(error) => {
            let listen = settings.listen;
            return settings::fail(
                EXIT_SETTING,
                &format!(
                    "cannot listen on {listen}: {error}; choose another address with EMBEDDED_SERVER_LISTEN"
                ),
            );
        }
    };
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return settings::fail(1, &format!("cannot wait for signals: {error}")),
    };
    embedded_server::warn_of_its_memory();
    println!("listening on http://{address}");
    match embedded_server::run(listener, settings.into(), stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => settings::fail(1, &error.to_string()),
    }
}

async fn check_health(address: SocketAddr) -> ExitCode {
    match tokio::time::timeout(Duration::from_secs(2), is_healthy(address)).await {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        _ => settings::fail(1, &format!("no Resonate server answers on {address}")),
    }
}

/// Whether `GET /health` is answered with 200. Container images have no curl.
async fn is_healthy(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}

/// Completes on the first SIGTERM or SIGINT. Once this is called, neither ends the process by itself.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes on the first Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
