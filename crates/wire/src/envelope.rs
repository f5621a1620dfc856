//! What surrounds every request, answer and message: `{"kind": …, "head": …, "data": …}`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};

use crate::VERSION;

/// An envelope with head `H` and data `D`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "struct RequestEnvelope")]
pub struct Envelope<'a, H, D> {
    /// The kind of request, the same in its answer.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// About the exchange.
    pub head: H,
    /// Its content.
    pub data: D,
}

/// The head of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestHead<'a> {
    /// Chosen by the client; the answer repeats it.
    #[serde(borrow, rename = "corrId")]
    pub corr_id: Cow<'a, str>,
    /// The protocol's version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// A JWT.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Cow<'a, str>>,
}

/// The head of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnswerHead<'a> {
    /// That of the request.
    #[serde(borrow, rename = "corrId")]
    pub corr_id: Cow<'a, str>,
    /// What came of it; the answer's HTTP status is the same.
    pub status: u16,
    /// The protocol's version.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
}

impl<'a> AnswerHead<'a> {
    /// The head of an answer with `status`.
    pub fn new(corr_id: impl Into<Cow<'a, str>>, status: u16) -> Self {
        Self { corr_id: corr_id.into(), status, version: VERSION.into() }
    }
}

/// An operation inside another one, in an envelope of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Action<'a, D> {
    /// Its kind.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Whether it has a head, whatever is in it: nobody reads it. It is written as null.
    #[serde(default, deserialize_with = "present")]
    pub head: Option<()>,
    /// Its data.
    pub data: D,
}

/// For `#[serde(deserialize_with)]`: any JSON, null too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<()>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| Some(()))
}

/// Writes an envelope as text.
pub fn to_text<H: Serialize, D: Serialize + ?Sized>(kind: &str, head: H, data: &D) -> String {
    // It fails for maps whose keys are no strings, which the protocol does not have.
    serde_json::to_string(&Envelope { kind: kind.into(), head, data }).unwrap_or_default()
}
