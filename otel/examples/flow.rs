//! A traced flow on the embedded server: `cargo run -p resonate-otel --example flow`.
//!
//! Set `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318` to see it in Jaeger. It prints
//! `hello, twice: 40`.

use std::sync::Arc;

use resonate_otel::{Identity, Telemetry, TracedFunction, TracedNetwork, TracedStep};
use resonate_sdk::prelude::*;

#[resonate_sdk::function]
async fn double(n: i64) -> Result<i64> {
    Ok(2 * n)
}

#[resonate_sdk::function]
async fn greet(ctx: &Context, n: i64) -> Result<String> {
    // A step is named, and what it does is below it in the trace.
    let n: i64 = ctx.run(TracedStep::new("half the way", double), n).await?;
    let twice: i64 = ctx.rpc("double", n).await?;
    Ok(format!("hello, twice: {twice}"))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(embedded_server::run(listener, Default::default(), std::future::pending()));

    let telemetry = Telemetry::start(Identity {
        name: "example".to_owned(),
        instance: format!("example-{}", std::process::id()),
        namespace: "resonate-otel".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })?;
    let network = HttpNetwork::new(url, None, Some("example".to_owned()), None);
    let traced = Arc::new(TracedNetwork::new(Arc::new(network), &telemetry));
    let resonate =
        Resonate::new(ResonateConfig { network: Some(traced.clone()), ..Default::default() })
            .with_dependency(traced.traced().clone());
    resonate.register(TracedFunction::new(double))?;
    resonate.register(TracedFunction::new(greet))?;

    let answer: String = resonate.rpc("flow", "greet", 10).await?;
    println!("{answer}");
    resonate.stop().await?;
    // It blocks until the queued spans are sent.
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    Ok(())
}
