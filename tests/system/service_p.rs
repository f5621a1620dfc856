//! service-p, whose functions panic or are changed. This test executable is also the process of service-p: a test
//! starts it with [`command`].

use std::process::Command;

use clap::Args;
use node::{cli, config::ServiceSettings, prelude::*};
use testkit::process;

/// The command that starts a process of service-p.
pub fn command(server_url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["service_p::process", "--exact", "--ignored", "--nocapture"]);
    let settings = [
        ("NODE_SERVER_URL", server_url),
        ("NODE_HEALTH_LISTEN", "127.0.0.1:0"),
        ("NODE_LEASE", "1s"),
        // Resolving the symbols of a debug build blocks the process for longer than the lease.
        ("RUST_BACKTRACE", "0"),
    ];
    process::set(&mut command, &settings);
    command
}

#[resonate_sdk::function]
async fn greets(whom: String) -> Result<String> {
    Ok(format!("hello {whom}"))
}

#[resonate_sdk::function]
async fn panics(why: String) -> Result<i64> {
    panic!("{why}")
}

#[resonate_sdk::function]
async fn panics_after_a_step(ctx: &Context, why: String) -> Result<i64> {
    let done = step(ctx, "a step".to_owned(), async |_| Ok("after a step".to_owned())).await?;
    panic!("{done}, {why}")
}

/// Set in the environment of a process that runs a later version of [`changes`].
pub const CHANGED: &str = "CHANGED";

/// A step, then a call that nobody answers until the test does. `how` is what a later version does
/// differently.
#[resonate_sdk::function]
async fn changes(ctx: &Context, how: String) -> Result<i64> {
    let how = if std::env::var_os(CHANGED).is_some() { how.as_str() } else { "nothing" };
    if how == "insert a step" {
        step(ctx, "check".to_owned(), async |_| Ok("fine".to_owned())).await?;
    }
    if how != "remove the step" {
        step(ctx, "work".to_owned(), async |_| Ok(1)).await?;
    }
    match how {
        "insert a timer" => ctx.sleep(std::time::Duration::ZERO).await?,
        "insert a call" => ctx.rpc("other", ()).target("nobody").await?,
        _ => {}
    }
    ctx.rpc("call", ()).target("nobody").await
}

#[test]
#[ignore = "not a test: the process of service-p, which a test starts"]
fn process() {
    // Its command line is that of a test: all settings come from the environment.
    let command = ServiceSettings::augment_args(clap::Command::new("service-p"));
    let parsed = settings::parse(command, &["NODE"], ["service-p".into()]).unwrap();
    let settings: ServiceSettings = parsed.read().unwrap();
    let service = Service::new("service-p").function(greets).function(panics);
    let service = service.function(panics_after_a_step).function(changes);
    cli::run(service, settings, &parsed.unknown).unwrap();
}
