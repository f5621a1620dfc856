//! The envelope around each request and reply.
//!
//! A request is read twice at most: once straight into the type its kind asks for, and, only if
//! that fails, a second time as the official server reads it (everything into a JSON value first),
//! so that what is refused is refused in the same words.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::request::Request;

/// The one protocol version there is.
pub(crate) const VERSION: &str = "2026-04-01";

/// What a request comes to: a status and the JSON text of the reply's `data`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) data: String,
}

impl Reply {
    pub(crate) fn ok(data: String) -> Self {
        Self { status: 200, data }
    }

    /// The reply of operations that have nothing to tell.
    pub(crate) fn empty() -> Self {
        Self::ok("{}".to_owned())
    }

    pub(crate) fn refuse(status: u16, reason: &str) -> Self {
        Self { status, data: json_string(reason) }
    }
}

/// A request that could be read, with what its reply must repeat.
pub(crate) struct Envelope<'a> {
    pub(crate) kind: Cow<'a, str>,
    pub(crate) corr_id: Cow<'a, str>,
    /// The request, or the reply that refuses it.
    pub(crate) request: Result<Request, Reply>,
}

#[derive(Deserialize)]
struct RequestEnvelope<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    head: RequestHead<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct RequestHead<'a> {
    #[serde(borrow, rename = "corrId")]
    corr_id: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(rename = "auth")]
    _auth: Option<Cow<'a, str>>,
    #[serde(rename = "resonate:debug_time")]
    _debug_time: Option<i64>,
}

/// The second reading: `data` as a value.
#[derive(Deserialize)]
#[serde(expecting = "struct RequestEnvelope")]
struct ValueEnvelope<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    head: RequestHead<'a>,
    data: Value,
}

/// A request's data, readable as any type.
pub(super) struct Data<'a> {
    body: &'a [u8],
    raw: Option<&'a RawValue>,
    value: Option<Value>,
}

impl Data<'_> {
    /// Reads the data as a `T`.
    ///
    /// # Errors
    /// The reply (400) that says what is wrong with it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        if let Some(read) = self.raw.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
            return Ok(read);
        }
        let value = match &self.value {
            Some(value) => value.clone(),
            None => match serde_json::from_slice::<ValueEnvelope>(self.body) {
                Ok(envelope) => envelope.data,
                Err(error) => return Err(bad_envelope(&error)),
            },
        };
        serde_json::from_value(value)
            .map_err(|error| Reply::refuse(400, &format!("Invalid request: {error}")))
    }
}

fn bad_envelope(error: &serde_json::Error) -> Reply {
    Reply::refuse(400, &format!("Invalid request envelope: {error}"))
}

/// Reads the body of a `POST /`.
pub(crate) fn parse(body: &[u8]) -> Envelope<'_> {
    // Raw values must be UTF-8; what is not takes the second reading, which says where.
    let fast = std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_json::from_str::<RequestEnvelope>(text).ok());
    let (kind, head, raw, value) = match fast {
        Some(read) => (read.kind, read.head, Some(read.data), None),
        None => match serde_json::from_slice::<ValueEnvelope>(body) {
            Ok(read) => (read.kind, read.head, None, Some(read.data)),
            Err(error) => return unreadable(body, &error),
        },
    };
    let is_object = match (raw, &value) {
        (Some(raw), _) => raw.get().starts_with('{'),
        (None, Some(value)) => value.is_object(),
        (None, None) => false,
    };
    let request = if kind.is_empty() {
        let reason = "Missing or invalid 'kind' field — must be a non-empty string";
        Err(Reply::refuse(400, reason))
    } else if !is_object {
        let reason = "Invalid 'data' field — must be an object";
        Err(Reply::refuse(400, reason))
    } else if head.version != VERSION {
        let version = head.version;
        Err(Reply::refuse(
            400,
            &format!("Unsupported protocol version '{version}', supported versions: [{VERSION:?}]"),
        ))
    } else {
        Request::read(&kind, &head.corr_id, &Data { body, raw, value })
    };
    Envelope { kind, corr_id: head.corr_id, request }
}

/// A body that is no envelope is still answered with its kind and correlation id, if it has them.
fn unreadable(body: &[u8], error: &serde_json::Error) -> Envelope<'static> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: Option<&Value>, default: &str| {
        let text = value.and_then(Value::as_str).unwrap_or(default);
        Cow::Owned(text.to_owned())
    };
    Envelope {
        kind: text(value.get("kind"), "unknown"),
        corr_id: text(value.get("head").and_then(|head| head.get("corrId")), "0"),
        request: Err(bad_envelope(error)),
    }
}

/// The body of the reply.
pub(crate) fn respond(kind: &str, corr_id: &str, reply: &Reply) -> String {
    let mut body = String::with_capacity(reply.data.len() + kind.len() + corr_id.len() + 96);
    push_envelope(&mut body, kind, corr_id, reply);
    body
}

/// Appends `{"kind": …, "head": …, "data": …}`.
pub(crate) fn push_envelope(body: &mut String, kind: &str, corr_id: &str, reply: &Reply) {
    body.push_str("{\"kind\":");
    push_string(body, kind);
    body.push_str(",\"head\":{\"corrId\":");
    push_string(body, corr_id);
    body.push_str(",\"status\":");
    body.push_str(&reply.status.to_string());
    body.push_str(",\"version\":\"");
    body.push_str(VERSION);
    body.push_str("\"},\"data\":");
    body.push_str(&reply.data);
    body.push('}');
}

/// Appends a JSON string; ids and kinds rarely need escapes, so the common case is a copy.
pub(crate) fn push_string(json: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&json_string(text));
    }
}

fn json_string(text: &str) -> String {
    Value::from(text).to_string()
}
