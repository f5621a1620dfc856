//! Maps from string to string, such as tags and headers.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

/// A JSON object whose values are strings. Promises have few of them, so a list is faster than a
/// map. Strings without escapes are borrowed from the text that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Pairs<'a> {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of `name`, if it is a part of the text that was read.
    pub(crate) fn borrowed(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        match value {
            Cow::Borrowed(value) => Some(value),
            Cow::Owned(_) => None,
        }
    }

    /// Sets `name`, whether it is there or not.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name, value)),
        }
    }

    /// All of them, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Pairs<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Pairs(self.0.into_iter().map(|(name, value)| (owned(name), owned(value))).collect())
    }
}

impl<'a, N: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> FromIterator<(N, V)> for Pairs<'a> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut all = Self::default();
        pairs.into_iter().for_each(|(name, value)| all.set(name, value));
        all
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Up to this many, searching a list is faster than hashing.
const FEW: usize = 32;

/// Serde borrows a `Cow` only as a field of its own that says so.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// For `#[serde(deserialize_with)]`: a string that may be missing or null.
pub(crate) fn optional_text<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(text)| text))
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Pairs(Vec::with_capacity(8));
                while pairs.0.len() < FEW {
                    let Some((Text(name), Text(value))) = map.next_entry()? else {
                        return Ok(pairs);
                    };
                    pairs.set(name, value);
                }
                // A hostile body holds enough of them to make a list quadratic.
                let mut places: HashMap<Cow<str>, usize> =
                    (0..).zip(&pairs.0).map(|(place, (name, _))| (name.clone(), place)).collect();
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    let place = *places.entry(name.clone()).or_insert(pairs.0.len());
                    match pairs.0.get_mut(place) {
                        Some((_, there)) => *there = value,
                        None => pairs.0.push((name, value)),
                    }
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_strings_are_borrowed_and_the_last_of_two_wins() {
        let text = r#"{"a": "1", "b": "\n", "a": "2"}"#;
        let pairs: Pairs = serde_json::from_str(text).unwrap();
        assert_eq!((pairs.get("a"), pairs.get("b"), pairs.get("c")), (Some("2"), Some("\n"), None));
        assert!(matches!(pairs.0[0], (Cow::Borrowed("a"), Cow::Borrowed("2"))));
        assert_eq!(serde_json::to_string(&pairs).unwrap(), r#"{"a":"2","b":"\n"}"#);
        assert!(serde_json::from_str::<Pairs>(r#"{"a": 1}"#).is_err());
    }

    #[test]
    fn many_are_read_as_few_are() {
        let count = 50_000;
        let part = |value: &str| {
            (0..count).map(|name| format!("\"{name}\":\"{value}\"")).collect::<Vec<_>>().join(",")
        };
        let text = format!("{{{},{}}}", part("old"), part("new"));
        let pairs: Pairs = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&pairs).unwrap(), format!("{{{}}}", part("new")));
    }
}
