//! `embedded-server`: the in-memory Resonate server as a process of its own.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use embedded_server::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing_subscriber::EnvFilter;

/// A configuration that cannot work (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;

/// An in-memory Resonate server. A restart forgets everything.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: String,
    /// How long a task that nobody acquired waits until its group is told again.
    #[arg(long, default_value = "2s", value_parser = duration)]
    retry_timeout: Duration,
    /// How long a settled flow is remembered.
    #[arg(long, default_value = "10m", value_parser = duration)]
    retention: Duration,
    /// How many settled flows are remembered at most.
    #[arg(long, default_value_t = Config::default().max_settled_flows)]
    max_settled_flows: usize,
    /// How many poll streams may be open at once.
    #[arg(long, default_value_t = Config::default().max_connections)]
    max_connections: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask the server on port 8001 of this machine for its health; the exit code tells
    Healthcheck {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:8001")]
        address: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_CONFIG } else { 0 });
        }
    };
    if let Some(Command::Healthcheck { address }) = args.command {
        return match tokio::time::timeout(Duration::from_secs(2), healthy(&address)).await {
            Ok(Ok(true)) => ExitCode::SUCCESS,
            _ => {
                eprintln!("no Resonate server answers on {address}");
                ExitCode::FAILURE
            }
        };
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let bound = TcpListener::bind(&args.listen).await;
    let (listener, address) = match bound.and_then(|bound| Ok((bound.local_addr()?, bound))) {
        Ok((address, listener)) => (listener, address),
        Err(error) => {
            eprintln!("cannot listen on {}: {error}", args.listen);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on http://{address}");
    let config = Config {
        retry_timeout: args.retry_timeout,
        retention: args.retention,
        max_settled_flows: args.max_settled_flows,
        max_connections: args.max_connections,
        url: Some(format!("http://{address}")),
        ..Config::default()
    };
    match embedded_server::run(listener, config, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the server failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `GET /health` is answered with 200: for containers, which have no curl.
async fn healthy(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}

/// Resolves with the first SIGTERM or SIGINT; from the call on, neither ends the process by itself.
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

/// Resolves with the first Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// An integer with `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a positive integer with ms, s, m or h, as in 500ms or 10m".into())
}
