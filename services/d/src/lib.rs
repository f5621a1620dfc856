//! service-d: `qux` starts `quz` on service-e and does not wait for it.

use node::prelude::*;

/// The first link of the detached chain.
#[resonate_sdk::function]
async fn qux(ctx: &Context, n: i64, options: Options) -> Result<()> {
    // Detached: `qux` ends as soon as the call is stored, and `quz` runs on its own.
    let quz = ctx.detached("quz", (n + 1, options)).target(&options.target("service-e"));
    quz.spawn()?;
    Ok(())
}

/// The group `service-d` and its function.
pub fn service() -> Service {
    Service::new("service-d").function(qux)
}
