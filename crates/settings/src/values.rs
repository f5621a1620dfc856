//! Checks of values.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::duration::{format, parse};

/// Reads a duration between two bounds.
pub fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = parse(text)?;
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        let (least, most) = (format(least), format(most));
        Err(format!("must be between {least} and {most}"))
    }
}

/// Reads `true` or `false`.
///
/// # Errors
/// What is expected.
pub fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

/// Reads an integer between two bounds.
pub fn integer(
    least: usize,
    most: usize,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("expected an integer from {least} to {most}"))
    }
}

/// Reads an address to listen on; port 0 takes a free one.
///
/// # Errors
/// What is expected.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an IP address with a port, such as 127.0.0.1:8080";
    text.parse().map_err(|_| expected.to_owned())
}

/// Reads an `http://` or `https://` address, and returns it as a browser would write it, without a slash
/// at its end.
///
/// # Errors
/// What is expected.
pub fn url(text: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        _ => Err("expected an address such as http://127.0.0.1:8001".to_owned()),
    }
}

/// A URL without user and password, for logs and errors. It need not be a valid one: a password that is not
/// escaped can have any of `/?#@`.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let is_valid = url::Url::parse(url).is_ok_and(|url| url.port_or_known_default().is_some());
    let end = if is_valid { rest.find(['/', '?', '#']) } else { None };
    match rest[..end.unwrap_or(rest.len())].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// Reads the name of a process or flow: it becomes part of addresses and log lines.
///
/// # Errors
/// What is expected.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=100).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 100 characters of A-Z a-z 0-9 - _".to_owned())
}

/// An address to reach a process at that listens on `listen`: if it listens on all addresses, that
/// of this host.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
