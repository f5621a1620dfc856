//! The names under which the gateway may be asked.
//!
//! A page of another site can make its own name resolve to this machine (DNS rebinding). Then the
//! browser treats the gateway as that site, and [`crate::origin`] sees a same-origin request: only
//! the host name differs. An IP address cannot be rebound.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header::HOST, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{problem::Problem, settings::Settings};

/// Any name, in `GATEWAY_HOSTS`.
const ANY: &str = "*";

/// The names besides `localhost`; none: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(Option<Arc<[String]>>);

impl Hosts {
    /// The names that the settings allow. By default any, unless the gateway listens on loopback only:
    /// then nobody has another name for it.
    pub fn of(settings: &Settings) -> Self {
        match &settings.hosts {
            Some(hosts) => hosts.clone(),
            None if settings.listen.ip().is_loopback() => Self(Some(Arc::new([]))),
            None => Self(None),
        }
    }

    /// Reads a list of names.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        let is_name = |name: &String| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            is_address || !name.is_empty() && name.chars().all(fits)
        };
        if !names.iter().all(|name| name == ANY || is_name(name)) {
            return Err(
                "expected host names without ports, such as a.example,b.example, or *".into()
            );
        }
        let is_any = names.iter().any(|name| name == ANY);
        Ok(Self((!is_any).then(|| names.into())))
    }

    fn allow(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = host == "localhost" || host.ends_with(".localhost");
        let listed = || self.0.as_ref().is_none_or(|names| names.contains(&host));
        is_own || address.parse::<IpAddr>().is_ok() || listed()
    }
}

/// A middleware that refuses requests for another name.
pub async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    // HTTP/1.0 clients, which are no browsers, send none.
    match host(request.uri(), request.headers()).filter(|host| !hosts.allow(host)) {
        Some(host) => Problem::WrongHost(host).into_response(),
        None => next.run(request).await,
    }
}

/// The name that a request is for, without a port.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if let Some(host) = uri.host() {
        return Some(host.to_owned());
    }
    let text = headers.get(HOST)?;
    let text = String::from_utf8_lossy(text.as_bytes());
    let authority = text.parse::<Authority>();
    Some(authority.map_or_else(|_| text.into_owned(), |authority| authority.host().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn settings(arguments: &[&str]) -> Settings {
        let command = Settings::augment_args(clap::Command::new("gateway"));
        let matches = command.get_matches_from(["gateway"].iter().chain(arguments));
        Settings::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_name_must_be_known_and_an_address_need_not() {
        let listed = Hosts::parse("Gateway, a.example").unwrap();
        for (host, allowed) in [
            ("localhost:5000", true),
            ("app.localhost", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("10.0.0.7", true),
            ("gateway:5000", true),
            ("A.EXAMPLE.", true),
            ("evil.example:5000", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            let found = host_of(&headers);
            assert_eq!(listed.allow(&found), allowed, "{host}");
            assert!(Hosts(None).allow(&found), "{host}");
        }
    }

    fn host_of(headers: &HeaderMap) -> String {
        host(&Uri::from_static("/"), headers).unwrap()
    }

    #[test]
    fn by_default_a_gateway_on_loopback_has_no_other_name() {
        assert!(!Hosts::of(&settings(&[])).allow("evil.example"));
        assert!(Hosts::of(&settings(&["--listen=0.0.0.0:1"])).allow("a.example"));
        for any in ["*", "gateway,*"] {
            assert!(Hosts::of(&settings(&["--hosts", any])).allow("a.example"), "{any}");
        }
        let listed = Hosts::of(&settings(&["--listen=0.0.0.0:1", "--hosts=a.example"]));
        assert!(listed.allow("a.example") && !listed.allow("evil.example"));
        // Compose adds PUBLIC_HOST, which may be an address.
        for address in ["gateway,[fd00::5],localhost", "fd00::5", "10.0.0.7"] {
            assert!(Hosts::parse(address).is_ok(), "{address}");
        }
        for bad in ["", "a,,b", "http://a", "a:80", "*,a:80"] {
            assert!(Hosts::parse(bad).is_err(), "{bad}");
        }
    }
}
