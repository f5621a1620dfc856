//! Errors of functions, as they pass through durable promises.

use resonate_sdk::error::Error;

/// The SDK puts this before the message each time an error passes through a promise.
const PREFIX: &str = "application error: ";

/// An error of a function.
pub fn application(message: impl Into<String>) -> Error {
    Error::Application { message: message.into() }
}

/// The message of the failing function, without what the SDK put before it.
pub fn message(text: &str) -> &str {
    let mut text = text;
    while let Some(rest) = text.strip_prefix(PREFIX) {
        text = rest;
    }
    text
}

/// The message for a function that was changed while a flow runs.
pub(crate) fn changed(recorded: &str, asked: &str) -> String {
    format!(
        "the function was changed while this flow ran: recorded {recorded}, code asks for {asked}"
    )
}

/// The same error without those prefixes.
pub(crate) fn plain(error: Error) -> Error {
    match error {
        Error::Application { message: text } => application(message(&text)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_passes_through_promises_unchanged() {
        let passed = application(application(application("no").to_string()).to_string());
        assert_eq!(plain(passed).to_string(), "application error: no");
        assert_eq!(message("application error: application error: no"), "no");
    }
}
