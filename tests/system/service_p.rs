//! service-p, whose functions panic. This test executable is also the process of service-p: a test
//! starts it with [`command`].

use std::process::Command;

use node::{lifecycle::Overrides, prelude::*};
use testkit::process;

/// Tells the process of service-p the URL of the Resonate Server.
const SERVER: &str = "ASYNC_RPC_TEST_SERVER";

/// The command that starts a process of service-p.
pub fn command(server_url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["service_p::process", "--exact", "--ignored", "--nocapture"]);
    process::set(&mut command, &[(SERVER, server_url), ("NODE_LEASE", "1s")]);
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

#[test]
#[ignore = "not a test: the process of service-p, which a test starts"]
fn process() {
    let server = std::env::var(SERVER).expect("only a test starts this process");
    let service = Service::new("service-p").function(greets).function(panics);
    let service = service.function(panics_after_a_step);
    let overrides = Overrides {
        server: Some(server),
        health_listen: Some(([127, 0, 0, 1], 0).into()),
        ..Overrides::default()
    };
    node::lifecycle::run(service, &overrides).unwrap();
}
