//! JSON text that is stored or passed on as it is.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// `{}`: a promise's value before it has one, and what an operation answers that has nothing to say.
pub(crate) static EMPTY: LazyLock<Box<RawValue>> =
    LazyLock::new(|| raw(&serde_json::Map::<String, serde_json::Value>::new()));

/// Writes a value as JSON text.
pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    // Only maps whose keys are not strings fail, and the protocol has none.
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
