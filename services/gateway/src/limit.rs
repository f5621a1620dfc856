//! How many requests a client may send: a rate, off by default, by the client's address.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::ConnectInfo,
    http::{HeaderMap, Request},
    response::IntoResponse,
};
use tower_governor::{
    GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor,
};

use crate::{app::App, problem::Problem, settings::Settings};

/// How often clients that have sent nothing lately are forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Adds the limit to `routes`, if the settings have one. Call it within a Tokio runtime.
pub fn limited(routes: Router<App>, settings: &Settings) -> Router<App> {
    let Some(rate) = settings.rate_limit else { return routes };
    let config = GovernorConfigBuilder::default()
        .period(Duration::from_secs(1).div_f64(rate as f64))
        .burst_size(u32::try_from(settings.rate_burst).unwrap_or(u32::MAX))
        .key_extractor(Client { proxies: settings.proxies })
        .finish();
    // It fails for zeros, which the settings do not accept.
    let Some(config) = config.map(Arc::new) else { return routes };
    let limiter = Arc::downgrade(config.limiter());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(FORGET).await;
            let Some(limiter) = limiter.upgrade() else { return };
            limiter.retain_recent();
        }
    });
    routes.layer(GovernorLayer::new(config).error_handler(|error| {
        let seconds = match error {
            GovernorError::TooManyRequests { wait_time, .. } => wait_time,
            _ => 0,
        };
        // It is rounded down.
        Problem::TooManyRequests { seconds: seconds + 1 }.into_response()
    }))
}

/// Tells clients apart.
#[derive(Debug, Clone)]
struct Client {
    /// How many proxies of the operator's own are in front of the gateway.
    proxies: usize,
}

impl KeyExtractor for Client {
    type Key = IpAddr;

    fn extract<T>(&self, request: &Request<T>) -> Result<IpAddr, GovernorError> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(Ipv6Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip());
        Ok(network(forwarded(request.headers(), self.proxies).unwrap_or(peer)))
    }
}

/// The address that the outermost of the operator's proxies has seen. Each proxy appends one to the
/// header; earlier entries come from the client and are not trusted.
fn forwarded(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let lists = headers.get_all("x-forwarded-for").into_iter();
    let entries: Vec<_> =
        lists.flat_map(|list| list.to_str().unwrap_or_default().split(',')).collect();
    let entry = entries.get(entries.len().checked_sub(proxies)?)?.trim();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    entry.parse().ok().or_else(with_port)
}

/// What counts as one client: an IPv4 address, or a network of IPv6, of which each host has many addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(peer: &str, headers: &[&str], proxies: usize) -> String {
        let mut request = Request::new(());
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for value in headers {
            request.headers_mut().append("x-forwarded-for", value.parse().unwrap());
        }
        Client { proxies }.extract(&request).unwrap().to_string()
    }

    #[test]
    fn only_what_a_proxy_of_the_operator_says_counts() {
        let peer = "10.0.0.1:4711";
        for (headers, proxies, expected) in [
            // By default, nobody's word counts.
            (&[][..], 0, "10.0.0.1"),
            (&["1.1.1.1"][..], 0, "10.0.0.1"),
            (&["1.1.1.1"], 1, "1.1.1.1"),
            // The client has sent a header too, to look like somebody else.
            (&["6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1, 10.0.0.2"], 2, "1.1.1.1"),
            (&["1.1.1.1:99"], 1, "1.1.1.1"),
            (&["[2001:db8::1:2]:99"], 1, "2001:db8::"),
            // The proxies are not there, or say nothing that can be used.
            (&["1.1.1.1"], 2, "10.0.0.1"),
            (&[], 1, "10.0.0.1"),
            (&["unknown"], 1, "10.0.0.1"),
        ] {
            assert_eq!(key(peer, headers, proxies), expected, "{headers:?} {proxies}");
        }
    }

    #[test]
    fn a_host_with_many_addresses_is_one_client() {
        assert_eq!(key("[2001:db8::1]:1", &[], 0), key("[2001:db8::2:3]:1", &[], 0));
        assert_ne!(key("[2001:db8::1]:1", &[], 0), key("[2001:db8:0:1::1]:1", &[], 0));
        assert_eq!(key("[::ffff:10.0.0.1]:1", &[], 0), "10.0.0.1");
    }
}
