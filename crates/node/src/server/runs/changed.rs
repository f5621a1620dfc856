//! A function that was changed while a flow runs asks for another promise than the recorded one.

use std::fmt;

use serde_json::value::RawValue;
use wire::{Operation, Pairs, Promise, PromiseValue, Request, call, operation::FencedAction, tag};

use crate::errors;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Step,
    Timer,
    Call,
    /// Somebody outside settles it.
    Promise,
}

/// What a function asks for in one position, or what is recorded there.
struct Child<'a> {
    kind: Kind,
    data: &'a str,
}

impl<'a> Child<'a> {
    fn new(tags: &Pairs, data: &'a str) -> Self {
        let kind = match (tags.get(tag::SCOPE), tags.get(tag::TIMER), tags.get(tag::TARGET)) {
            (Some("local"), ..) => Kind::Step,
            (_, Some("true"), _) => Kind::Timer,
            (.., Some(_)) => Kind::Call,
            _ => Kind::Promise,
        };
        Self { kind, data }
    }

    /// Arguments may differ. Steps compare their names themselves: most are found without a request.
    fn is_same(&self, other: &Self) -> bool {
        let function = |child: &Self| call::function(child.data).ok();
        self.kind == other.kind
            && (self.kind != Kind::Call
                || self.data == other.data
                || function(self) == function(other))
    }
}

impl fmt::Display for Child<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.kind {
            Kind::Step => match call::decode_value::<String>(self.data) {
                Ok(name) => write!(formatter, "the step {name:?}"),
                Err(_) => formatter.write_str("a step"),
            },
            Kind::Timer => formatter.write_str("a timer"),
            Kind::Call => {
                write!(formatter, "a call of {:?}", call::function(self.data).unwrap_or_default())
            }
            Kind::Promise => formatter.write_str("a promise"),
        }
    }
}

/// Why the promise that answers a fenced creation is not what `request` asks for.
pub(super) fn mismatch(request: &Request, recorded: &Promise) -> Option<String> {
    let Operation::TaskFence(fence) = request.operation() else { return None };
    let FencedAction::Create(create) = &fence.action else { return None };
    let param = create.param.map(RawValue::get);
    let param: PromiseValue =
        param.and_then(|param| serde_json::from_str(param).ok()).unwrap_or_default();
    let asked = Child::new(&create.tags, param.data());
    let recorded = Child::new(&recorded.tags, recorded.param.data());
    let same = asked.is_same(&recorded);
    (!same).then(|| errors::changed(&recorded.to_string(), &asked.to_string()))
}
