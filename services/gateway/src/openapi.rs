//! `GET /openapi.json`: the description of this interface.
//!
//! `openapi.json` is generated from the types of this crate by a test, which fails if it is not what
//! they say. So the executable has the text and nothing that makes it.

#[cfg(test)]
mod generate;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};

#[cfg(test)]
pub use self::generate::{PerhapsHeld, state, state_or_null};

const DOCUMENT: &str = include_str!("../openapi.json");

/// Handles `GET /openapi.json`.
pub async fn document() -> impl axum::response::IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT)
}
