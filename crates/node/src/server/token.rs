//! The token of this process for the server's `auth` section, and what is said when it is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Url;
use settings::{Secret, SecretFile, SettingError};

use crate::config::Config;

const VALUE: &str = "NODE_SERVER_TOKEN";
const FILE: &str = "NODE_SERVER_TOKEN_FILE";

/// Where the token comes from.
#[derive(Debug)]
pub(crate) enum Token {
    /// There is none.
    Missing,
    /// There is none, but the server's URL has a user or a password, for a proxy in front of it.
    InUrl,
    /// A setting holds it.
    Value(Secret),
    /// A file holds it, which is read again when it changes.
    File(SecretFile<Secret>),
}

impl Token {
    /// The token that the settings name.
    ///
    /// # Errors
    /// They name two, or one that cannot be used. The error does not hold it.
    pub fn of(config: &Config) -> Result<Self, SettingError> {
        let has_credentials = Url::parse(&config.server_url)
            .is_ok_and(|url| !url.username().is_empty() || url.password().is_some());
        let twice = |name, other| {
            Err(SettingError::of_secret(name, format!("{other} is set too; set only one of them")))
        };
        match (&config.server_token, &config.server_token_file) {
            (Some(_), Some(_)) => twice(VALUE, FILE),
            (Some(_), None) if has_credentials => twice(VALUE, "a user or password in the URL"),
            (None, Some(_)) if has_credentials => twice(FILE, "a user or password in the URL"),
            (Some(token), None) => match settings::token(token.expose()) {
                Ok(token) => Ok(Self::Value(token)),
                Err(reason) => Err(SettingError::of_secret(VALUE, reason)),
            },
            (None, Some(path)) => match SecretFile::open(path, settings::token) {
                Ok(file) => Ok(Self::File(file)),
                Err(reason) => Err(SettingError::new(FILE, path, reason)),
            },
            (None, None) if has_credentials => Ok(Self::InUrl),
            (None, None) => Ok(Self::Missing),
        }
    }

    /// The token, if there is one.
    pub fn get(&self) -> Option<Secret> {
        match self {
            Self::Missing | Self::InUrl => None,
            Self::Value(token) => Some(token.clone()),
            Self::File(file) => Some((*file.get()).clone()),
        }
    }

    /// The token that has replaced the `refused` one in its file.
    pub fn newer(&self, refused: Option<&Secret>) -> Option<Secret> {
        let Self::File(file) = self else { return None };
        let token = (*file.reread()).clone();
        (Some(&token) != refused).then_some(token)
    }

    /// What is wrong with the token that the server has refused, and what to do.
    pub fn refusal(&self) -> String {
        let (token, place, remedy) = match self {
            Self::Missing => return format!("it asks for a token; set {FILE}"),
            Self::InUrl => return "the user or password in its URL is wrong".to_owned(),
            Self::Value(token) => {
                (token.clone(), VALUE.to_owned(), "set another one and restart".to_owned())
            }
            Self::File(file) => {
                let remedy = "write another one to this file".to_owned();
                ((*file.get()).clone(), file.path().to_owned(), remedy)
            }
        };
        let wrong = match expiry(token.expose()) {
            None => "is no JWT with an exp claim".to_owned(),
            Some(expiry) if expiry <= SystemTime::now() => {
                format!("expired on {}", httpdate::fmt_http_date(expiry))
            }
            Some(_) => {
                "is wrong: signed with another key, or for another issuer or audience".into()
            }
        };
        format!("the token of {place} {wrong}; {remedy}")
    }
}

/// When a JWT expires.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    // Dates beyond the year 9999 have no text.
    let since = Duration::try_from_secs_f64(exp.clamp(0.0, 253_402_300_799.0)).ok()?;
    UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn config(arguments: &[&str]) -> Config {
        let command = Config::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from(["test"].iter().chain(arguments));
        Config::from_arg_matches(&matches).unwrap()
    }

    fn jwt(claims: &str) -> String {
        format!("head.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn settings_that_cannot_be_used_are_named_without_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (good, lines) = (path("good", "s3cret\n"), path("lines", "s3cret\ns3cret\n"));
        let (empty, missing) = (path("empty", "\n"), "/nowhere/token".to_owned());
        let file = |path: &str| format!("--server-token-file={path}");
        let (value, url) = ("--server-token=s3cret", "--server=http://user:pass@127.0.0.1:1");
        for (arguments, expected) in [
            (
                vec![value, &file(&good)],
                "invalid NODE_SERVER_TOKEN: NODE_SERVER_TOKEN_FILE is set too; set only one of them"
                    .to_owned(),
            ),
            (vec![value, url], "invalid NODE_SERVER_TOKEN: a user or password".to_owned()),
            (
                vec!["--server-token=s3cret s3cret"],
                "invalid NODE_SERVER_TOKEN: it has spaces".to_owned(),
            ),
            (
                vec![&file(&missing)],
                format!("invalid NODE_SERVER_TOKEN_FILE {missing:?}: it cannot be read: No such"),
            ),
            (vec![&file(&empty)], format!("invalid NODE_SERVER_TOKEN_FILE {empty:?}: it is empty")),
            (
                vec![&file(&lines)],
                format!("invalid NODE_SERVER_TOKEN_FILE {lines:?}: it has several lines"),
            ),
        ] {
            let config = config(&arguments);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(&expected), "{error}");
            assert!(!format!("{error} {config:?}").contains("s3cret"), "{error} {config:?}");
        }
        for arguments in [vec![value], vec![&file(&good)]] {
            let token = Token::of(&config(&arguments)).unwrap();
            assert_eq!(token.get().unwrap().expose(), "s3cret");
            assert!(!format!("{token:?}").contains("s3cret"), "{token:?}");
        }
        assert!(Token::of(&config(&[url])).unwrap().get().is_none());
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_to_do() {
        let refusal = |arguments: &[&str]| Token::of(&config(arguments)).unwrap().refusal();
        assert_eq!(refusal(&[]), "it asks for a token; set NODE_SERVER_TOKEN_FILE");
        let url = refusal(&["--server=http://user:s3cret@127.0.0.1:1"]);
        assert_eq!(url, "the user or password in its URL is wrong");
        let value = |claims: &str| refusal(&[&format!("--server-token={}", jwt(claims))]);
        assert_eq!(
            value(r#"{"exp":1000000000}"#),
            "the token of NODE_SERVER_TOKEN expired on Sun, 09 Sep 2001 01:46:40 GMT; \
             set another one and restart"
        );
        let wrong = value(r#"{"exp":4000000000}"#);
        assert!(wrong.contains("is wrong: signed with another key"), "{wrong}");
        assert!(value("{}").contains("is no JWT with an exp claim"));
        assert!(value(r#"{"exp":1e300}"#).contains("is wrong"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "opaque").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(
            refusal(&[&format!("--server-token-file={path}")]),
            format!(
                "the token of {path} is no JWT with an exp claim; write another one to this file"
            )
        );
    }
}
