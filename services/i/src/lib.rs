//! service-i: `dop` returns 1. It is the other half of the fan-out workflow.

use flows::Options;
use node::prelude::*;

/// One of the two functions that `zim` calls.
#[resonate_sdk::function]
async fn dop(ctx: &Context, options: Options) -> Result<i64> {
    options.fail(ctx).await?;
    Ok(1)
}

/// The group `service-i` and its function.
pub fn service() -> Service {
    flows::service("service-i").function(dop)
}
