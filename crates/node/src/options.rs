//! What a request may ask of a flow, travelling as an argument from function to function.

use std::time::Duration;

use resonate_sdk::{error::Result, prelude::Context};
use serde::{Deserialize, Serialize};

use crate::{duration, step};

/// How long one checkpointed step of `work` takes; the last one takes what is left.
pub const STEP: Duration = Duration::from_secs(1);

/// Options of a flow. None set serializes as null: then no function makes a step of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Fields>", into = "Option<Fields>")]
pub struct Options {
    /// `bar`, `quz` or `zim` works that long, in steps of [`STEP`].
    pub work: Option<Duration>,
    /// `baz`, `cog` or `rax` begins with a durable timer of that length.
    pub sleep: Option<Duration>,
    /// The last function of the flow fails that many times before it succeeds.
    pub fail: Option<u32>,
}

/// Options as they are stored in a durable promise: `{"work": "6s"}`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, with = "duration::text", skip_serializing_if = "Option::is_none")]
    work: Option<Duration>,
    #[serde(default, with = "duration::text", skip_serializing_if = "Option::is_none")]
    sleep: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail: Option<u32>,
}

impl From<Option<Fields>> for Options {
    fn from(fields: Option<Fields>) -> Self {
        fields.map_or_else(Self::default, |Fields { work, sleep, fail }| Self { work, sleep, fail })
    }
}

impl From<Options> for Option<Fields> {
    fn from(options: Options) -> Self {
        let Options { work, sleep, fail } = options;
        (options != Options::default()).then_some(Fields { work, sleep, fail })
    }
}

impl Options {
    /// Where to send a call of a function that may `work`: to any process of the group, and with
    /// `work` to its first one if that is connected, so that `docker kill service-b`, as typed,
    /// hits the process that holds the work.
    pub fn target(&self, group: &str) -> String {
        match self.work {
            Some(_) => format!("poll://any@{group}/{group}"),
            None => group.to_owned(),
        }
    }

    /// The lengths of the steps that `work` makes.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = Duration> + use<> {
        let work = self.work.unwrap_or_default();
        let steps = work.as_millis().div_ceil(STEP.as_millis()) as u32;
        (0..steps).map(move |done| STEP.min(work - STEP * done))
    }

    /// Works in checkpointed steps: one that is done is never run again, whoever dies.
    ///
    /// # Errors
    /// The run was given up: drained, or its lease lost.
    pub async fn work(&self, ctx: &Context) -> Result<()> {
        let steps = self.steps();
        let total = steps.len();
        for (done, length) in steps.enumerate() {
            let name = format!("work {}/{total}", done + 1);
            step(ctx, name, move |_| async move {
                tokio::time::sleep(length).await;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits for a durable timer: no process holds the flow meanwhile.
    ///
    /// # Errors
    /// The SDK's suspension, to be passed on with `?`.
    pub async fn sleep(&self, ctx: &Context) -> Result<()> {
        match self.sleep {
            Some(length) => ctx.sleep(length).await,
            None => Ok(()),
        }
    }

    /// Fails as often as it was told to, in a step that is retried.
    ///
    /// # Errors
    /// The step failed in each of its attempts.
    pub async fn fail(&self, ctx: &Context) -> Result<()> {
        let Some(failures) = self.fail else { return Ok(()) };
        step(ctx, "unreliable".to_owned(), move |attempt| async move {
            if attempt > failures {
                return Ok(());
            }
            Err(resonate_sdk::error::Error::Application {
                message: format!("failed as asked, attempt {attempt} (fail={failures})"),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_null_and_null_is_no_option() {
        assert_eq!(serde_json::to_string(&Options::default()).unwrap(), "null");
        assert_eq!(serde_json::from_str::<Options>("null").unwrap(), Options::default());
        let options = Options { work: Some(Duration::from_secs(6)), sleep: None, fail: Some(2) };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(text, r#"{"work":"6s","fail":2}"#);
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
        assert!(serde_json::from_str::<Options>(r#"{"wrok":"6s"}"#).is_err());
    }

    #[test]
    fn work_is_cut_into_steps() {
        let steps = |work| {
            Options { work: Some(Duration::from_millis(work)), ..Options::default() }
                .steps()
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(2_500), [STEP, STEP, Duration::from_millis(500)]);
        assert_eq!(steps(6_000), [STEP; 6]);
        assert_eq!(Options::default().steps().len(), 0);
    }
}
