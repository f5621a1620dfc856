//! Addresses of messages: `poll://any@group`, `poll://any@group/id`, `poll://uni@group/id`.

use url::Url;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) cast: Cast,
    pub(crate) group: String,
    pub(crate) id: Option<String>,
}

/// Which connections of a group will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Only the one with the address's id.
    Uni,
    /// Any; the one with the address's id first, if it is connected.
    Any,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The official server refuses it too.
    Invalid,
    /// The official server pushes to it (HTTP, Pub/Sub, a shell); this one only holds poll streams.
    /// Accepting it would leave the flow waiting for ever without a word.
    Unsupported,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Refused> {
        let url = Url::parse(text).map_err(|_| Refused::Invalid)?;
        match url.scheme() {
            "poll" => {}
            "http" | "https" | "bash" => return Err(Refused::Unsupported),
            "gcps" if url.host_str().is_some() && url.path().len() > 1 => {
                return Err(Refused::Unsupported);
            }
            _ => return Err(Refused::Invalid),
        }
        let cast = match url.username() {
            "uni" => Cast::Uni,
            "any" => Cast::Any,
            _ => return Err(Refused::Invalid),
        };
        let group = url.host_str().ok_or(Refused::Invalid)?.to_owned();
        let id = url.path().strip_prefix('/').filter(|id| !id.is_empty());
        Ok(Self { cast, group, id: id.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_groups_and_ids_are_read() {
        let preferred = Address::parse("poll://any@service-b/service-b").unwrap();
        assert_eq!(preferred.cast, Cast::Any);
        assert_eq!(preferred.group, "service-b");
        assert_eq!(preferred.id.as_deref(), Some("service-b"));
        assert_eq!(Address::parse("poll://any@g/").unwrap().id, None);
        assert_eq!(Address::parse("poll://uni@g/i").unwrap().cast, Cast::Uni);
    }

    #[test]
    fn other_addresses_are_refused_by_reason() {
        for text in ["", "group", "poll://group", "poll://all@group", "ftp://any@group", "gcps://p"]
        {
            assert_eq!(Address::parse(text), Err(Refused::Invalid), "{text}");
        }
        for text in ["http://h/path", "https://h", "bash://", "gcps://p/t"] {
            assert_eq!(Address::parse(text), Err(Refused::Unsupported), "{text}");
        }
    }
}
