//! service-a: `foo` awaits `bar` on service-b and adds 1 to its result.

use flows::Options;
use node::prelude::*;

/// The first function of the await chain.
#[resonate_sdk::function]
async fn foo(ctx: &Context, options: Options) -> Result<i64> {
    // This call is a durable promise, which survives a crash of either process. While it is pending
    // for longer than a moment, no process holds `foo`: once it is settled, any process of service-a
    // resumes here.
    // Arguments are a tuple, even a single one, so that SDKs of other languages can read them.
    let n: i64 = ctx.rpc("bar", (options,)).target(&options.target("service-b")).await?;
    Ok(n + 1)
}

/// The group `service-a` and its function.
pub fn service() -> Service {
    flows::service("service-a").function(foo)
}
