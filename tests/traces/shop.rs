//! service-s, whose step asks another service for a price. This test executable is also its process: a
//! test starts it with [`command`].

use std::{process::Command, sync::LazyLock, time::Duration};

use clap::{Args, FromArgMatches};
use node::{cli, config::ServiceSettings, prelude::*};
use opentelemetry::{
    global,
    trace::{TraceContextExt, Tracer},
};
use opentelemetry_http::HeaderInjector;
use reqwest::header::HeaderMap;
use settings::Parsed;
use testkit::process;
use tracing::Instrument;

/// The attribute that marks the shop's own spans.
pub const SHOP: &str = "shop";

static CLIENT: LazyLock<reqwest::Client> =
    LazyLock::new(|| reqwest::Client::builder().no_proxy().build().unwrap());

/// The command that starts a process of service-s.
pub fn command(server_url: &str, instance: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["shop::process", "--exact", "--ignored", "--nocapture"]);
    let mut all = vec![
        ("NODE_SERVER_URL", server_url),
        ("NODE_INSTANCE", instance),
        ("NODE_HEALTH_LISTEN", "127.0.0.1:0"),
        ("NODE_LEASE", "1s"),
        ("RUST_BACKTRACE", "0"),
        // At level debug, single requests have spans too.
        ("NODE_LOG", "info"),
    ];
    all.extend(settings);
    process::set(&mut command, &all);
    command
}

/// Asks another service for a price. The request carries the context, so that its spans join too.
async fn price(url: &str) -> Result<i64> {
    let span = tracing::info_span!("GET /price", otel.kind = "client", shop = true);
    let request = async {
        let mut headers = HeaderMap::new();
        global::get_text_map_propagator(|propagator| {
            propagator.inject(&mut HeaderInjector(&mut headers));
        });
        let answer = CLIENT.get(url).headers(headers).send().await?;
        tracing::info!("price received");
        Ok(answer.text().await?.len() as i64)
    };
    request.instrument(span).await
}

/// Two prices and their sum, in a step. It runs again if its process dies before the second answer.
#[resonate_sdk::function]
async fn order(ctx: &Context, url: String) -> Result<i64> {
    tracing::info_span!("look at the order", shop = true).in_scope(|| ());
    let sum = move |_| {
        let url = url.clone();
        async move {
            let (first, second) =
                (price(&format!("{url}/first")).await?, price(&format!("{url}/second")).await?);
            // Without the tracing crate.
            Ok(global::tracer("shop").in_span("add", |context| {
                context.span().set_attribute(opentelemetry::KeyValue::new(SHOP, true));
                tracing::debug_span!("too detailed", shop = true).in_scope(|| first + second)
            }))
        }
    };
    step(ctx, "ask for prices".to_owned(), sum).await
}

/// A step that is dropped before it ends.
#[resonate_sdk::function]
async fn hurry(ctx: &Context) -> Result<i64> {
    let slow = step(ctx, "slow".to_owned(), async |_| {
        tracing::info_span!("wait", shop = true).in_scope(|| ());
        std::future::pending::<()>().await;
        Ok(1)
    });
    tokio::select! {
        slow = slow => slow,
        () = tokio::time::sleep(Duration::from_millis(300)) => Ok(2),
    }
}

#[test]
#[ignore = "not a test: the process of service-s, which a test starts"]
fn process() {
    // In a debug build this takes a moment, in which no heartbeat would be sent.
    LazyLock::force(&CLIENT);
    // Its command line is that of a test: all settings come from the environment.
    let command = ServiceSettings::augment_args(clap::Command::new("service-s"));
    let Parsed { matches, unknown } =
        settings::parse(command, &["NODE"], ["service-s".into()]).unwrap();
    let settings = ServiceSettings::from_arg_matches(&matches).unwrap();
    let service = Service::new("service-s").namespace("async-rpc");
    cli::run(service.function(order).function(hurry), settings, &unknown).unwrap();
}
