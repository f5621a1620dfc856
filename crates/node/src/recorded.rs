//! What a step's promise holds: the step's name beside its result.
//!
//! The SDK finds a step by its position in the function, and takes a stored result without asking
//! the server. A function that was changed while a flow runs would take the result of another step.
//! The name tells.

use resonate_sdk::error::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::errors;

/// A step that succeeded.
#[derive(Serialize, Deserialize)]
struct Recorded<S, V> {
    step: S,
    value: V,
}

/// What `step` stores for its result.
///
/// # Errors
/// The result cannot be written as JSON.
pub(crate) fn result(step: &str, value: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(Recorded { step, value })?)
}

/// What `step` stores for its error: a rejected promise holds a message and nothing else.
pub(crate) fn error(step: &str, error: &Error) -> Error {
    errors::application(format!("step {step:?}: {}", errors::message(&error.to_string())))
}

/// The result of `step`, read from what is stored in its position.
///
/// # Errors
/// The error of the step; or something else than this step is stored.
pub(crate) fn read<T: DeserializeOwned>(step: &str, stored: Result<Value>) -> Result<T> {
    match stored {
        Ok(value) => match serde_json::from_value::<Recorded<String, Value>>(value) {
            Ok(recorded) if recorded.step == step => Ok(serde_json::from_value(recorded.value)?),
            Ok(recorded) => Err(changed(step, &format!("{:?}", recorded.step))),
            Err(_) => Err(changed(step, "something else than a step")),
        },
        Err(Error::Application { message }) => Err(read_error(step, errors::message(&message))),
        Err(other) => Err(other),
    }
}

fn read_error(step: &str, message: &str) -> Error {
    if let Some(message) = message.strip_prefix(&format!("step {step:?}: ")) {
        return errors::application(message);
    }
    let named = message.strip_prefix("step \"").and_then(|rest| rest.split_once("\": "));
    match named {
        Some((recorded, _)) => changed(step, &format!("\"{recorded}\"")),
        None => errors::application(message),
    }
}

fn changed(step: &str, recorded: &str) -> Error {
    let message = errors::changed(recorded, &format!("{step:?}"));
    tracing::error!(step, error = message, "step not run");
    errors::application(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message<T>(result: Result<T>) -> String {
        match result {
            Err(Error::Application { message }) => message,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it is taken"),
        }
    }

    #[test]
    fn a_step_takes_its_own_result_and_no_other() {
        let stored = || result("work 1/20", &(1, "x"));
        assert_eq!(read::<(i64, String)>("work 1/20", stored()).unwrap(), (1, "x".to_owned()));
        // Of another type too: the name is compared first.
        let refused = message(read::<bool>("check", stored()));
        assert!(refused.ends_with(r#": recorded "work 1/20", code asks for "check""#), "{refused}");
        let refused = message(read::<i64>("check", Ok(json!(3))));
        assert!(refused.contains("recorded something else than a step"), "{refused}");
    }

    #[test]
    fn a_step_takes_its_own_error_and_no_other() {
        // As it comes from the step, and as it comes from a stored promise.
        for passed in [0, 1] {
            let stored = || {
                let mut stored = error("a \"b\": c", &Error::Timeout);
                for _ in 0..passed {
                    stored = errors::application(stored.to_string());
                }
                Err(stored)
            };
            assert_eq!(message(read::<()>("a \"b\": c", stored())), "timeout");
            let refused = message(read::<()>("check", stored()));
            assert!(refused.contains(r#"code asks for "check""#), "{refused}");
        }
        // The error of a promise that no step settled, such as a time-out.
        let other = || Err(errors::application("unknown error: null"));
        assert_eq!(message(read::<()>("check", other())), "unknown error: null");
    }
}
