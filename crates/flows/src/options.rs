//! What a request may ask of a flow, passed as an argument from function to function.

use std::time::Duration;

use resonate_sdk::{
    error::{Error, Result},
    prelude::Context,
};
use serde::{Deserialize, Serialize};
use settings::duration;
use wire::Address;

/// The length of one checkpointed step of `work`; the last one takes what is left.
pub const STEP: Duration = Duration::from_secs(1);

/// The longest `work` and `sleep`.
pub const LONGEST: Duration = Duration::from_secs(600);

/// The highest value of `fail`.
pub const MOST_FAILURES: u32 = 10;

/// Options of a flow. Without any it serializes as null, and no function runs a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Fields>", into = "Option<Fields>")]
pub struct Options {
    /// `bar`, `quz` or `zim` works this long, in steps of [`STEP`].
    pub work: Option<Duration>,
    /// `baz`, `cog` or `rax` starts with a durable timer of this length.
    pub sleep: Option<Duration>,
    /// `baz`, `cog` or `dop` fails this many times before it succeeds.
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
    /// Whether a request could have asked for this. Other clients of the server can store anything.
    pub fn are_allowed(&self) -> bool {
        let durations = [self.work, self.sleep];
        durations.into_iter().flatten().all(|it| it <= LONGEST)
            && self.fail.is_none_or(|failures| failures <= MOST_FAILURES)
    }

    /// Each option's name, and its value as a person writes it.
    pub fn named(&self) -> [(&'static str, Option<String>); 3] {
        [
            ("work", self.work.map(duration::format)),
            ("sleep", self.sleep.map(duration::format)),
            ("fail", self.fail.map(|failures| failures.to_string())),
        ]
    }

    /// Where to send the call of a function that works: to any process of `group`. With `work`,
    /// its first process gets it, if it is there: `docker kill service-b` hits the one that works.
    pub fn target(&self, group: &str) -> String {
        let address = match self.work {
            Some(_) => Address::first(group),
            None => Address::any(group),
        };
        address.to_string()
    }

    /// The lengths of the steps that `work` consists of.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = Duration> + use<> {
        let work = self.work.unwrap_or_default();
        let steps = work.as_millis().div_ceil(STEP.as_millis()) as u32;
        (0..steps).map(move |done| STEP.min(work - STEP * done))
    }

    /// Works in checkpointed steps. A completed step never runs again, whichever process crashes.
    ///
    /// # Errors
    /// The run was abandoned: this process is draining, or it lost the lease.
    pub async fn work(&self, ctx: &Context) -> Result<()> {
        let steps = self.steps();
        let total = steps.len();
        for (done, length) in steps.enumerate() {
            let name = format!("work {}/{total}", done + 1);
            node::step(ctx, name, move |_| async move {
                tokio::time::sleep(length).await;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits for a durable timer. No process holds the flow while it runs.
    ///
    /// # Errors
    /// The SDK's suspension: pass it on with `?`.
    pub async fn sleep(&self, ctx: &Context) -> Result<()> {
        match self.sleep {
            Some(length) => ctx.sleep(length).await,
            None => Ok(()),
        }
    }

    /// Fails as often as requested, in a step that is retried.
    ///
    /// # Errors
    /// Every attempt of the step failed.
    pub async fn fail(&self, ctx: &Context) -> Result<()> {
        let Some(failures) = self.fail else { return Ok(()) };
        node::step(ctx, "unreliable".to_owned(), move |attempt| async move {
            if attempt > failures {
                return Ok(());
            }
            let message = format!("failed as requested (attempt {attempt}, fail={failures})");
            Err(Error::Application { message })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_options_are_null_and_null_is_no_options() {
        assert_eq!(serde_json::to_string(&Options::default()).unwrap(), "null");
        assert_eq!(serde_json::from_str::<Options>("null").unwrap(), Options::default());
        let options = Options { work: Some(Duration::from_secs(6)), sleep: None, fail: Some(2) };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(text, r#"{"work":"6s","fail":2}"#);
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
        assert!(serde_json::from_str::<Options>(r#"{"wrok":"6s"}"#).is_err());
    }

    #[test]
    fn work_is_split_into_steps() {
        let steps = |work| {
            Options { work: Some(Duration::from_millis(work)), ..Options::default() }
                .steps()
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(2_500), [STEP, STEP, Duration::from_millis(500)]);
        assert_eq!(steps(6_000), [STEP; 6]);
        assert_eq!(Options::default().steps().len(), 0);
    }

    #[test]
    fn work_asks_for_the_first_process_of_the_group() {
        let work = Options { work: Some(STEP), ..Options::default() };
        assert_eq!(work.target("service-b"), "poll://any@service-b/~first");
        assert_eq!(Options::default().target("service-b"), "poll://any@service-b");
    }
}
