//! Function calls and errors inside promises: base64 of JSON, as all SDKs of Resonate have it.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

/// A call: what a promise with a task holds in `param.data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call<A> {
    /// The function's name.
    pub func: String,
    /// A single argument is bare if the Rust SDK wrote it; several are an array, none is null.
    #[serde(default)]
    pub args: A,
}

/// Why `data` is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not base64.
    #[error("not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// It is base64 of something else.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Writes `value` as `data`.
pub fn encode_value(value: &impl Serialize) -> String {
    // It fails for maps whose keys are no strings, which no value of this project has.
    BASE64_STANDARD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// Reads `data` as a `T`.
///
/// # Errors
/// It is not base64, or not JSON of a `T`.
pub fn decode_value<T: DeserializeOwned>(data: &str) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(&BASE64_STANDARD.decode(data)?)?)
}

/// Writes a call as `data`.
pub fn encode(func: &str, args: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Borrowed<'a, A> {
        func: &'a str,
        args: &'a A,
    }
    encode_value(&Borrowed { func, args })
}

/// The name of the function that `data` calls. The arguments are not read.
///
/// # Errors
/// It is not a call.
pub fn function(data: &str) -> Result<String, DecodeError> {
    #[derive(Deserialize)]
    struct Name {
        func: String,
        #[serde(rename = "args")]
        _args: Option<IgnoredAny>,
    }
    Ok(decode_value::<Name>(data)?.func)
}

/// The arguments of a call as JSON text; null where it has none.
///
/// # Errors
/// It is not a call.
pub fn arguments(data: &str) -> Result<(String, Box<RawValue>), DecodeError> {
    let Call { func, args } = decode_value::<Call<Option<Box<RawValue>>>>(data)?;
    Ok((func, args.unwrap_or_else(|| RawValue::NULL.to_owned())))
}

/// An error, as `value.data` of a rejected promise.
#[derive(Serialize, Deserialize)]
struct Rejection<'a> {
    #[serde(rename = "__type", default)]
    kind: &'a str,
    message: String,
}

/// Writes an error as `data`, in the form that the SDKs read.
pub fn encode_error(message: &str) -> String {
    encode_value(&Rejection { kind: "error", message: message.to_owned() })
}

/// The message of an error in `data`.
pub fn error_message(data: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    decode_value::<Message>(data).ok().map(|error| error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_passes_through_data() {
        let data = encode("foo", &(1, "x"));
        assert_eq!(function(&data).unwrap(), "foo");
        let call: Call<(i64, String)> = decode_value(&data).unwrap();
        assert_eq!((call.func.as_str(), call.args), ("foo", (1, "x".to_owned())));
        assert_eq!(arguments(&data).unwrap().1.get(), r#"[1,"x"]"#);
        let none = encode_value(&serde_json::json!({"func": "foo"}));
        assert_eq!(arguments(&none).unwrap().1.get(), "null");
    }

    #[test]
    fn what_is_no_call_says_why() {
        let no_function = encode_value(&serde_json::json!({"args": 1}));
        for (data, reason) in
            [("", "EOF"), ("%", "not base64"), (no_function.as_str(), "missing field `func`")]
        {
            let error = function(data).unwrap_err().to_string();
            assert!(error.contains(reason), "{data}: {error}");
        }
    }

    #[test]
    fn an_error_passes_through_data() {
        assert_eq!(error_message(&encode_error("no")).as_deref(), Some("no"));
        assert_eq!(error_message(&encode_value(&1)), None);
    }
}
