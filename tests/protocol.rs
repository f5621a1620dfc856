//! The protocol, case by case, against any server by its URL.
//!
//! One list of cases runs against the embedded server always, and against the official one where
//! `RESONATE_SERVER_BIN` names its binary: what both pass, both do alike.

#[path = "protocol/client.rs"]
mod client;
#[path = "protocol/delivery.rs"]
mod delivery;
#[path = "protocol/embedded.rs"]
mod embedded;
#[path = "protocol/envelopes.rs"]
mod envelopes;
#[path = "protocol/fences.rs"]
mod fences;
#[path = "protocol/histories.rs"]
mod histories;
#[path = "protocol/promises.rs"]
mod promises;
#[path = "protocol/refusals.rs"]
mod refusals;
#[path = "protocol/servers.rs"]
mod servers;
#[path = "protocol/tasks.rs"]
mod tasks;
#[path = "protocol/times.rs"]
mod times;
#[path = "protocol/waits.rs"]
mod waits;

use std::pin::Pin;
use std::time::Duration;

use client::Context;
use embedded_server::Config;
use servers::{Embedded, Official};
use tokio::task::JoinSet;

/// A named case.
pub type Case = (&'static str, fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Makes the list of a module's cases out of its functions.
#[macro_export]
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// The cases of this module.
        pub const CASES: &[$crate::Case] = &[
            $((stringify!($case), |context| Box::pin($case(context)))),*
        ];
    };
}

/// How many cases run at once: they wait more than they work.
const AT_ONCE: usize = 12;

fn all_cases() -> impl Iterator<Item = &'static Case> {
    let lists = [
        envelopes::CASES,
        refusals::CASES,
        promises::CASES,
        tasks::CASES,
        fences::CASES,
        waits::CASES,
        times::CASES,
        delivery::CASES,
    ];
    lists.into_iter().flatten()
}

/// Runs all cases, and fails with the names of those that failed.
async fn run_cases(server: &str, url: &str) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60));
    let http = http.build().expect("an HTTP client");
    let run = client::now().to_string();
    let mut waiting = all_cases();
    let mut running = JoinSet::new();
    let mut failures = Vec::new();
    let mut count = 0;
    loop {
        while running.len() < AT_ONCE
            && let Some((name, case)) = waiting.next()
        {
            count += 1;
            let context = Context::new(url, &http, name, &run);
            running.spawn(async move {
                let joined = tokio::spawn(case(context)).await;
                joined.map_err(|error| format!("{name}: {}", reason(error)))
            });
        }
        match running.join_next().await {
            Some(Ok(Err(failure))) => failures.push(failure),
            Some(_) => {}
            None => break,
        }
    }
    let failed = failures.len();
    assert!(failed == 0, "{failed} of {count} cases fail on {server}:\n{}", failures.join("\n"));
    eprintln!("{count} cases pass on {server}");
}

fn reason(error: tokio::task::JoinError) -> String {
    let panic = match error.try_into_panic() {
        Ok(panic) => panic,
        Err(error) => return error.to_string(),
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_server_passes_every_case() {
    let config = Config { retry_timeout: servers::RETRY, ..Config::default() };
    let server = Embedded::start(config).await;
    run_cases("the embedded server", &server.url).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_server_passes_every_case() {
    match Official::start().await {
        Some(server) => run_cases("the official server", &server.url).await,
        None => eprintln!("skipped: RESONATE_SERVER_BIN does not name the official server"),
    }
}
