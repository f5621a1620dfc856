//! The interface between two layers of a process's way to the server.

use crate::{Answer, Request};

/// A layer, or the server itself: it takes a request and gives its answer.
///
/// A layer does its part of the work on the way down and on the way up, and knows of the next one
/// only this trait.
#[async_trait::async_trait]
pub trait Exchange: Send + Sync {
    /// Sends a request and waits for its answer. A refusal is an answer too.
    ///
    /// # Errors
    /// There is no answer. The request may have taken effect all the same, unless it was withheld.
    async fn exchange(&self, request: Request) -> Result<Answer, ExchangeError>;
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The server did not answer in time, or something else answered in its place.
    #[error("the Resonate Server at {server} is unreachable: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What went wrong with the last attempt.
        reason: String,
    },
    /// The server does not accept the token of this process. The request had no effect.
    #[error("the Resonate Server at {server} refuses this process: {reason}")]
    Unauthorized {
        /// Its address.
        server: String,
        /// What is wrong with the token, and what to do. It does not hold the token.
        reason: String,
    },
    /// The server will never take it: it is too large.
    #[error("a request of {bytes} bytes is too large for the Resonate Server")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The server did not answer this request for too long, though it may answer others. The
    /// request may have taken effect.
    #[error("the Resonate Server does not answer this request")]
    Unanswered,
    /// A layer did not send it, for this reason.
    #[error("{0}")]
    Withheld(String),
}
