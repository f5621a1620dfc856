//! Addresses of messages: `poll://any@group`, `poll://any@group/id`, `poll://uni@group/id`.

use std::{fmt, str::FromStr};

use url::Url;

/// Where the server sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Which connections of the group will do.
    pub cast: Cast,
    /// The group.
    pub group: String,
    /// The connection.
    pub id: Option<String>,
}

/// Which connections of a group will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// Only the one with the address's id.
    Uni,
    /// Any; the one with the address's id first, if it is connected.
    Any,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not an address.
    #[error("not an address of the Resonate Server")]
    Invalid,
    /// The official server pushes to it (HTTP, Pub/Sub, a shell); this crate knows poll streams.
    #[error("addresses other than poll:// are not supported")]
    Unsupported,
}

impl Address {
    /// Any connection of `group`.
    pub fn any(group: &str) -> Self {
        Self { cast: Cast::Any, group: group.to_owned(), id: None }
    }

    /// Any connection of `group`, with the hint that its first process should act, if it is there.
    ///
    /// To the server this is [`Address::any`]: no connection is called `~first`, because a name has
    /// no `~`. The hint is for the processes of the group. An address that named the process itself
    /// would have no fallback: the server sends to a connection with that id for as long as there is
    /// one, even if its process is frozen or cut off.
    pub fn first(group: &str) -> Self {
        Self { cast: Cast::Any, group: group.to_owned(), id: Some("~first".to_owned()) }
    }

    /// The connection `id` of `group` and no other.
    pub fn only(group: &str, id: &str) -> Self {
        Self { cast: Cast::Uni, group: group.to_owned(), id: Some(id.to_owned()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let cast = match self.cast {
            Cast::Uni => "uni",
            Cast::Any => "any",
        };
        write!(formatter, "poll://{cast}@{}", self.group)?;
        self.id.iter().try_for_each(|id| write!(formatter, "/{id}"))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|_| AddressError::Invalid)?;
        match url.scheme() {
            "poll" => {}
            "http" | "https" | "bash" => return Err(AddressError::Unsupported),
            "gcps" if url.host_str().is_some() && url.path().len() > 1 => {
                return Err(AddressError::Unsupported);
            }
            _ => return Err(AddressError::Invalid),
        }
        let cast = match url.username() {
            "uni" => Cast::Uni,
            "any" => Cast::Any,
            _ => return Err(AddressError::Invalid),
        };
        let group = url.host_str().ok_or(AddressError::Invalid)?.to_owned();
        let id = url.path().strip_prefix('/').filter(|id| !id.is_empty());
        Ok(Self { cast, group, id: id.map(str::to_owned) })
    }
}

/// The group in the target of a promise. A target that is not an address is the name of a group.
pub fn group(target: &str) -> &str {
    let group = target.split_once('@').map_or(target, |(_, group)| group);
    group.split('/').next().unwrap_or(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (address, text) in [
            (Address::any("g"), "poll://any@g"),
            (Address::first("service-b"), "poll://any@service-b/~first"),
            (Address::only("g", "i"), "poll://uni@g/i"),
        ] {
            assert_eq!(address.to_string(), text);
            assert_eq!(text.parse(), Ok(address.clone()));
            assert_eq!(group(text), address.group);
        }
        assert_eq!("poll://any@g/".parse::<Address>().unwrap().id, None);
        assert_eq!(group("service-b"), "service-b");
    }

    #[test]
    fn other_addresses_are_refused_by_reason() {
        for text in ["", "group", "poll://group", "poll://all@group", "ftp://any@group", "gcps://p"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Invalid), "{text}");
        }
        for text in ["http://h/path", "https://h", "bash://", "gcps://p/t"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Unsupported), "{text}");
        }
    }
}
