//! The result of an operation, without the envelope around it.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::json::{self, EMPTY};

/// A status, and the `data` of the answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) data: Box<RawValue>,
}

impl Reply {
    pub(crate) fn new(status: u16, data: &(impl Serialize + ?Sized)) -> Self {
        Self { status, data: json::raw(data) }
    }

    pub(crate) fn ok(data: &impl Serialize) -> Self {
        Self::new(200, data)
    }

    /// For operations that answer nothing but their success.
    pub(crate) fn empty() -> Self {
        Self { status: 200, data: EMPTY.clone() }
    }

    pub(crate) fn refuse(status: u16, reason: &str) -> Self {
        Self::new(status, reason)
    }
}
