//! service-c: `baz` returns 1. It is the last function of the await chain.

use flows::Options;
use node::prelude::*;

/// The last function of the await chain.
#[resonate_sdk::function]
async fn baz(ctx: &Context, options: Options) -> Result<i64> {
    options.sleep(ctx).await?;
    options.fail(ctx).await?;
    Ok(1)
}

/// The group `service-c` and its function.
pub fn service() -> Service {
    flows::service("service-c").function(baz)
}
