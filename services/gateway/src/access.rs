//! Who may use the gateway: with `GATEWAY_TOKENS_FILE`, clients that know one of the tokens in that file.
//!
//! A program sends it as a bearer token. A browser asks its user for a name and a password: the password
//! is the token, and the name does not matter. Health checks need none.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse, Response},
};
use headers::{
    Authorization, HeaderMapExt,
    authorization::{Basic, Bearer},
};
use settings::{Secret, SecretFile, SettingError};
use subtle::{Choice, ConstantTimeEq};

use crate::{problem::Problem, settings::Settings};

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// The tokens of a file, one a line. Lines that begin with `#` are comments.
pub struct Tokens(Vec<Secret>);

/// The tokens that clients may use; none: they need none.
pub type Access = Option<Arc<SecretFile<Tokens>>>;

/// Reads the tokens that the settings name.
///
/// # Errors
/// They cannot be used.
pub fn open(settings: &Settings) -> Result<Access, SettingError> {
    let Some(path) = &settings.tokens_file else { return Ok(None) };
    let file = SecretFile::open(path, Tokens::parse);
    let file = file.map_err(|reason| SettingError::new("GATEWAY_TOKENS_FILE", path, reason))?;
    Ok(Some(Arc::new(file)))
}

impl Tokens {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let lines = lines.map(|(n, line)| (n + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let tokens: Vec<_> = lines
            .map(|(n, line)| {
                let token =
                    settings::token(line).map_err(|reason| format!("line {n}: {reason}"))?;
                match line.len() < SHORTEST {
                    true => Err(format!("line {n}: a token has {SHORTEST} characters or more")),
                    false => Ok(token),
                }
            })
            .collect::<Result<_, String>>()?;
        match tokens.is_empty() {
            true => Err("it is empty; expected tokens, one a line".to_owned()),
            false => Ok(Self(tokens)),
        }
    }

    /// Whether `given` is one of these tokens, in constant time.
    fn have(&self, given: &str) -> bool {
        let equal = |token: &Secret| token.expose().as_bytes().ct_eq(given.as_bytes());
        self.0.iter().map(equal).fold(Choice::from(0), |found, equal| found | equal).into()
    }
}

/// A middleware that refuses clients without a token.
pub async fn check(
    State(tokens): State<Arc<SecretFile<Tokens>>>,
    request: Request,
    next: Next,
) -> Response {
    match token(request.headers()) {
        // A token that is new in the file may be used at once.
        Some(token) if tokens.get().have(&token) || tokens.reread().have(&token) => {
            next.run(request).await
        }
        token => Problem::Unauthorized { unknown: token.is_some() }.into_response(),
    }
}

/// The token that a client has sent.
fn token(headers: &HeaderMap) -> Option<String> {
    if let Some(Authorization(bearer)) = headers.typed_get::<Authorization<Bearer>>() {
        return Some(bearer.token().to_owned());
    }
    let Authorization(basic) = headers.typed_get::<Authorization<Basic>>()?;
    Some(basic.password().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210-two";

    #[test]
    fn a_file_has_one_token_a_line_and_no_error_shows_one() {
        let tokens = Tokens::parse(&format!("# old\n{ONE}\r\n\n  {TWO}\n")).map_err(drop).unwrap();
        for (token, known) in
            [(ONE, true), (TWO, true), ("", false), ("# old", false), (&ONE[1..], false)]
        {
            assert_eq!(tokens.have(token), known, "{token}");
        }
        assert!(!tokens.have(&format!("{ONE}0")));
        for (text, expected) in [
            ("", "it is empty"),
            ("# none\n", "it is empty"),
            ("0123456789abcdef\nsh0rt\n", "line 2: a token has 16 characters or more"),
            ("# one\n0123456789 sh0rt\n", "line 2: it has spaces"),
        ] {
            let error = Tokens::parse(text).err().unwrap();
            assert!(error.starts_with(expected) && !error.contains("sh0rt"), "{error}");
        }
    }

    #[test]
    fn a_token_is_a_bearer_token_or_a_password() {
        let sent = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            token(&headers)
        };
        assert_eq!(sent("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(sent("bearer abc").as_deref(), Some("abc"));
        // "any:abc"
        assert_eq!(sent("Basic YW55OmFiYw==").as_deref(), Some("abc"));
        for none in ["Basic !", "Digest abc", "abc", ""] {
            assert_eq!(sent(none), None, "{none}");
        }
    }
}
