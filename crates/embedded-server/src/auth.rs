//! Tokens, as the official server's `auth` section knows them: JWTs that a private key has signed.
//!
//! A token with the claim `role: admin` may do everything. Any other needs a claim `prefix`, and covers the
//! ids that begin with it.

use std::{collections::HashSet, path::Path};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use crate::reply::Reply;

/// A public key that verifies tokens, and the algorithms that it is for.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const EC: &[Algorithm] = &[Algorithm::ES256, Algorithm::ES384];
const ED: &[Algorithm] = &[Algorithm::EdDSA];

impl PublicKey {
    /// Reads a PEM file with an RSA, EC (P-256, P-384) or Ed25519 public key.
    ///
    /// # Errors
    /// What is expected.
    pub fn read(path: &str) -> Result<Self, String> {
        let pem = std::fs::read(Path::new(path))
            .map_err(|error| format!("expected a PEM file with a public key ({error})"))?;
        Self::parse(&pem).ok_or_else(|| {
            "expected a PEM file with an RSA, EC (P-256, P-384) or Ed25519 public key".to_owned()
        })
    }

    fn parse(pem: &[u8]) -> Option<Self> {
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (key, RSA));
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| (key, EC));
        let ed = |_| DecodingKey::from_ed_pem(pem).map(|key| (key, ED));
        let (key, algorithms) = rsa.or_else(|_| ec()).or_else(ed).ok()?;
        Some(Self { key, algorithms })
    }
}

/// Which tokens are accepted.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Verifies their signature.
    pub key: PublicKey,
    /// Their issuer; none: any.
    pub iss: Option<String>,
    /// Who must be among their audience; none: anybody.
    pub aud: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Claims {
    role: Option<String>,
    prefix: Option<Value>,
    // Like the official server, it reads no audience that is not a list.
    #[serde(default, rename = "aud")]
    _aud: Option<Vec<String>>,
}

impl Auth {
    /// Checks the token of a message stream. Any valid one will do.
    pub(crate) fn accepts(&self, token: Option<&str>) -> bool {
        token.is_some_and(|token| self.claims(token).is_ok())
    }

    /// Checks the token of a request of this `kind` with `data`.
    ///
    /// # Errors
    /// 401: there is no valid token. 403: it does not cover the ids of the request.
    pub(crate) fn check(
        &self,
        token: Option<&str>,
        kind: &str,
        data: impl FnOnce() -> Value,
    ) -> Result<(), Reply> {
        let unauthorized = || Reply::refuse(401, "Unauthorized");
        let claims = self.claims(token.ok_or_else(unauthorized)?).map_err(|error| {
            tracing::debug!(kind, ?error, "token refused");
            unauthorized()
        })?;
        if claims.role.is_some_and(|role| role.to_lowercase() == "admin") {
            return Ok(());
        }
        let covered = match &claims.prefix {
            Some(Value::String(prefix)) => prefix.is_empty() || covers(prefix, kind, &data()),
            _ => false,
        };
        match covered {
            true => Ok(()),
            false => Err(Reply::refuse(403, "Forbidden")),
        }
    }

    fn claims(&self, token: &str) -> Result<Claims, ErrorKind> {
        let kind = |error: jsonwebtoken::errors::Error| error.kind().clone();
        let algorithm = decode_header(token).map_err(kind)?.alg;
        if !self.key.algorithms.contains(&algorithm) {
            return Err(ErrorKind::InvalidAlgorithm);
        }
        let mut validation = Validation::new(algorithm);
        let mut required = HashSet::from(["exp".to_owned()]);
        if let Some(iss) = &self.iss {
            required.insert("iss".to_owned());
            validation.set_issuer(&[iss]);
        }
        match &self.aud {
            Some(aud) => {
                required.insert("aud".to_owned());
                validation.set_audience(&[aud]);
            }
            None => validation.validate_aud = false,
        }
        validation.required_spec_claims = required;
        Ok(decode::<Claims>(token, &self.key.key, &validation).map_err(kind)?.claims)
    }
}

/// Whether each id that a request is about begins with `prefix`.
fn covers(prefix: &str, kind: &str, data: &Value) -> bool {
    let text = |path: &str| data.pointer(path).and_then(Value::as_str);
    let id = match kind {
        "task.heartbeat" => {
            let tasks = data["tasks"].as_array().into_iter().flatten();
            let mut ids = tasks.filter_map(|task| task["id"].as_str());
            return ids.all(|id| id.starts_with(prefix));
        }
        "promise.get" | "promise.create" | "promise.settle" | "task.get" | "task.acquire"
        | "task.release" | "task.fulfill" | "task.suspend" | "task.fence" | "task.halt"
        | "task.continue" | "schedule.get" | "schedule.delete" => text("/id"),
        "promise.register_callback" | "promise.register_listener" => text("/awaited"),
        "schedule.create" => text("/promiseId"),
        "task.create" => text("/action/data/id"),
        // A search finds any id.
        _ => Some(""),
    };
    // Without an id, the request is refused for that.
    id.is_none_or(|id| id.starts_with(prefix))
}
