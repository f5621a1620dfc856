//! service-d: `qux` starts `quz` on service-e and does not wait for it.

use flows::Options;
use node::prelude::*;

/// The first function of the detached chain.
#[resonate_sdk::function]
async fn qux(ctx: &Context, n: i64, options: Options) -> Result<()> {
    // A detached call: `qux` ends as soon as the call is stored, and `quz` runs on its own.
    ctx.detached("quz", (n + 1, options)).target(&options.target("service-e")).spawn()?;
    Ok(())
}

/// The group `service-d` and its function.
pub fn service() -> Service {
    flows::service("service-d").function(qux)
}
