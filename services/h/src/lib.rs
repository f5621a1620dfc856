//! service-h: `rax` returns 1. It is one half of the fan-out workflow.

use flows::Options;
use node::prelude::*;

/// One of the two functions that `zim` calls.
#[resonate_sdk::function]
async fn rax(ctx: &Context, options: Options) -> Result<i64> {
    options.sleep(ctx).await?;
    Ok(1)
}

/// The group `service-h` and its function.
pub fn service() -> Service {
    flows::service("service-h").function(rax)
}
