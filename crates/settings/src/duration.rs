//! Durations as people type them: `500ms`, `6s`, `10m`, `24h`.

use std::time::Duration;

/// Reads a duration: an integer followed by `ms`, `s`, `m` or `h`.
///
/// # Errors
/// What is expected. The caller knows which setting it was.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as 500ms or 3s".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(expected)
}

/// Writes a duration as [`parse`] reads it, in the largest unit that is exact.
pub fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// Serializes a duration as [`format()`] writes it, for `#[serde(with = …)]`.
pub mod text {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes `Some` as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => to.serialize_str(&format(*duration)),
            None => to.serialize_none(),
        }
    }

    /// Reads text, or null as `None`.
    ///
    /// # Errors
    /// The text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        match Option::<String>::deserialize(from)? {
            Some(text) => parse(&text).map(Some).map_err(D::Error::custom),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_unit() {
        for text in ["1ms", "1500ms", "6s", "10m", "24h", "0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(parse("6000ms").unwrap()), "6s");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "6", "s", "-1s", "1.5s", " 1s", "1 s", "1S", "99999999999999999h", "1d"] {
            assert!(parse(text).unwrap_err().contains("duration"), "{text}");
        }
    }
}
