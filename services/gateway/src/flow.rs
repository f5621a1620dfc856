//! The three flows: what each calls first, and the ids of all its invocations.

use std::hash::Hasher;

use node::Options;
use serde_json::{Value, json};

/// A flow that the gateway can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// `foo` awaits `bar`, which awaits `baz`.
    AwaitChain,
    /// `qux` starts `quz`, which starts `cog`; nobody waits.
    DetachedChain,
    /// `zim` calls `rax` and `dop` at the same time.
    FanOutWorkflow,
}

/// One function of a flow, with its promise.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The function's name.
    pub function: &'static str,
    /// The id of its durable promise.
    pub id: String,
}

impl Flow {
    /// Every flow.
    pub const ALL: [Self; 3] = [Self::AwaitChain, Self::DetachedChain, Self::FanOutWorkflow];

    /// The flow's route without its slash, and the id of a flow that was given none.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitChain => "await-chain",
            Self::DetachedChain => "detached-chain",
            Self::FanOutWorkflow => "fan-out-workflow",
        }
    }

    /// The function that the gateway calls.
    pub fn function(self) -> &'static str {
        match self {
            Self::AwaitChain => "foo",
            Self::DetachedChain => "qux",
            Self::FanOutWorkflow => "zim",
        }
    }

    /// The address that the first call goes to. `zim` is the one first function that can `work`.
    pub fn target(self, options: &Options) -> String {
        match self {
            Self::AwaitChain => "poll://any@service-a".to_owned(),
            Self::DetachedChain => "poll://any@service-d".to_owned(),
            Self::FanOutWorkflow if options.work.is_some() => options.target("service-g"),
            Self::FanOutWorkflow => "poll://any@service-g".to_owned(),
        }
    }

    /// The arguments of the first call, as a list.
    pub fn arguments(self, options: &Options) -> Value {
        match self {
            Self::AwaitChain => json!([options]),
            Self::DetachedChain | Self::FanOutWorkflow => json!([1, options]),
        }
    }

    /// The flow whose first call this is, and its options. `None` if it is none of ours.
    pub fn recognize(function: &str, arguments: &Value) -> Option<(Self, Options)> {
        let flow = Self::ALL.into_iter().find(|flow| flow.function() == function)?;
        let options = arguments.as_array()?.last()?;
        Some((flow, serde_json::from_value(options.clone()).ok()?))
    }

    /// All invocations of the flow `id`, the gateway's own call first. A function's children are
    /// numbered in the order of their creation, steps included, so their ids are known.
    pub fn invocations(self, id: &str, options: &Options) -> [Invocation; 3] {
        let steps = options.steps().len();
        let of = |function, id| Invocation { function, id };
        let first = of(self.function(), id.to_owned());
        match self {
            Self::AwaitChain => {
                let bar = format!("{id}.0");
                let baz = format!("{bar}.{steps}");
                [first, of("bar", bar), of("baz", baz)]
            }
            Self::DetachedChain => {
                let quz = detached(id, 0);
                let cog = detached(&quz, steps);
                [first, of("quz", quz), of("cog", cog)]
            }
            Self::FanOutWorkflow => {
                let rax = format!("{id}.{steps}");
                let dop = format!("{id}.{}", steps + 1);
                [first, of("rax", rax), of("dop", dop)]
            }
        }
    }
}

/// The id that the SDK gives to the detached call number `n` of the function with promise `id`.
fn detached(id: &str, n: usize) -> String {
    let mut hash = seahash::SeaHasher::new();
    hash.write(format!("{id}.{n}").as_bytes());
    format!("{id}.{:016x}", hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_first_call_is_recognized_with_its_options() {
        let options = Options { work: Some(Duration::from_secs(6)), sleep: None, fail: Some(1) };
        for flow in Flow::ALL {
            for options in [options, Options::default()] {
                let arguments = flow.arguments(&options);
                assert_eq!(Flow::recognize(flow.function(), &arguments), Some((flow, options)));
            }
        }
        assert_eq!(Flow::recognize("bar", &Value::Null), None);
        assert_eq!(Flow::recognize("zim", &json!([1])), None);
        assert_eq!(Flow::recognize("foo", &Value::Null), None);
    }

    #[test]
    fn steps_come_before_the_call_that_follows_them() {
        let options = Options { work: Some(Duration::from_millis(2_500)), ..Options::default() };
        let ids = |flow: Flow| flow.invocations("x", &options).map(|invocation| invocation.id);
        assert_eq!(ids(Flow::AwaitChain), ["x", "x.0", "x.0.3"]);
        assert_eq!(ids(Flow::FanOutWorkflow), ["x", "x.3", "x.4"]);
    }
}
