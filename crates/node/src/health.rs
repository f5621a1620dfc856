//! `/healthz` and `/readyz`, and the command that asks for them.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use tokio::sync::watch;

use crate::{launched::tell_launcher, life};

/// `GET /healthz`: the process is alive. `GET /readyz`: its message stream is up; 503 otherwise.
pub fn routes<S: Clone + Send + Sync + 'static>(up: watch::Receiver<bool>) -> Router<S> {
    let ready = move || {
        let up = *up.borrow();
        std::future::ready(match up {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not connected to the Resonate Server\n"),
        })
    };
    Router::new().route("/healthz", get(async || "alive\n")).route("/readyz", get(ready))
}

/// Asks the process that listens on `address` whether it is ready.
///
/// # Errors
/// It is not there, not ready, or does not answer within two seconds.
pub async fn check(address: SocketAddr) -> Result<(), String> {
    let url = format!("http://{address}/readyz");
    let client = reqwest::Client::builder()
        .no_proxy()
        // Each container asks every few seconds. Reading the system's certificates, for a request
        // without TLS, would be most of the work.
        .tls_certs_only([])
        .timeout(Duration::from_secs(2))
        .build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("{url}: {}", answer.text().await.unwrap_or_default().trim())),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

/// Reports once that the process is ready: to the log, or to a launcher, which prints it. Then prints
/// the greeting.
pub async fn report_ready(
    mut up: watch::Receiver<bool>,
    address: SocketAddr,
    instance: &str,
    greeting: Option<&str>,
) {
    if up.wait_for(|up| *up).await.is_ok() {
        life::ready(instance, address);
        tell_launcher(address);
        if let Some(greeting) = greeting {
            // To the same place as the log, so that it comes after it.
            eprintln!("{}", greeting.trim_end());
        }
    }
}
