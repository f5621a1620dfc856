//! Secrets: they are never shown, and read again when their file changes.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// How often a file is looked at: a change is noticed after this long.
const LOOK: Duration = Duration::from_secs(1);

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Reads a secret as a setting. It accepts any text: an error would show it. What is wrong with it is
/// for [`token`] to say.
///
/// # Errors
/// Never.
pub fn secret(text: &str) -> Result<Secret, String> {
    Ok(text.into())
}

/// Checks a token, without the line break at its end.
///
/// # Errors
/// What is expected. It does not hold the token.
pub fn token(text: &str) -> Result<Secret, String> {
    // Editors on Windows put a mark at the beginning.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err("it is empty; expected a token in one line".to_owned());
    }
    if text.lines().count() > 1 {
        return Err("it has several lines; expected a token in one line".to_owned());
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.into()),
        false => Err("it has spaces or special characters; expected a token".to_owned()),
    }
}

/// A file with secrets. It is read again when it changes; while it cannot be read, the last
/// contents stay in use.
pub struct SecretFile<T> {
    path: String,
    parse: fn(&str) -> Result<T, String>,
    read: Mutex<Read<T>>,
}

struct Read<T> {
    value: Arc<T>,
    /// Of the file that was read last. None: it could not be read.
    stamp: Option<Stamp>,
    looked: Instant,
    /// Whether the log says that the file cannot be read.
    failed: bool,
}

/// When a file was written, and its length.
type Stamp = (SystemTime, u64);

impl<T> SecretFile<T> {
    /// Reads the file at `path` with `parse`, whose errors must not hold what it reads.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: &str, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let stamp = stamp(path);
        let value = Arc::new(read(path, parse)?);
        let read = Read { value, stamp, looked: Instant::now(), failed: false };
        Ok(Self { path: path.to_owned(), parse, read: Mutex::new(read) })
    }

    /// Where the file is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the file holds, or held a second ago.
    pub fn get(&self) -> Arc<T> {
        let mut last = self.lock();
        if last.looked.elapsed() >= LOOK {
            last.looked = Instant::now();
            let stamp = stamp(&self.path);
            if stamp != last.stamp {
                self.read(&mut last, stamp);
            }
        }
        last.value.clone()
    }

    /// What the file holds now, if it can be read.
    pub fn reread(&self) -> Arc<T> {
        let mut last = self.lock();
        self.read(&mut last, stamp(&self.path));
        last.value.clone()
    }

    fn read(&self, last: &mut Read<T>, stamp: Option<Stamp>) {
        match read(&self.path, self.parse) {
            Ok(value) => {
                last.value = Arc::new(value);
                (last.stamp, last.failed) = (stamp, false);
            }
            Err(reason) => {
                // The cause may be elsewhere, such as in its permissions.
                last.stamp = None;
                if !std::mem::replace(&mut last.failed, true) {
                    let file = &*self.path;
                    tracing::warn!(
                        file,
                        reason,
                        "secret file is unusable; the last secret stays in use"
                    );
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read<T>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for SecretFile<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_tuple("SecretFile").field(&self.path).finish()
    }
}

fn stamp(path: &str) -> Option<Stamp> {
    let metadata = Path::new(path).metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read<T>(path: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => "it is not text in UTF-8".to_owned(),
        _ => format!("it cannot be read: {error}"),
    })?;
    parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = secret("s3cret").unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert_eq!(secret.expose(), "s3cret");
    }

    #[test]
    fn a_token_is_one_line_without_spaces_and_no_error_shows_it() {
        for good in ["s3cret", "s3cret\n", "\u{feff}s3cret\r\n", "  s3cret\n\n"] {
            assert_eq!(token(good).unwrap().expose(), "s3cret", "{good:?}");
        }
        for (bad, why) in [
            ("", "empty"),
            (" \n", "empty"),
            ("s3cret\ns3cret", "several lines"),
            ("s3cret s3cret", "spaces"),
            ("s3crät", "special"),
        ] {
            let error = token(bad).unwrap_err();
            assert!(error.contains(why) && !error.contains("s3c"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_file_is_read_again_and_its_last_secret_stays_in_use_while_it_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token").to_str().unwrap().to_owned();
        let open = || SecretFile::open(&path, token);
        assert!(open().unwrap_err().contains("it cannot be read: No such file"));
        std::fs::write(&path, "").unwrap();
        assert!(open().unwrap_err().contains("it is empty"));
        std::fs::write(&path, [0xff, 0xfe, b'x', 0]).unwrap();
        assert!(open().unwrap_err().contains("UTF-8"));
        std::fs::write(&path, "first\n").unwrap();
        let file = open().unwrap();
        let shown = |read: Arc<Secret>| read.expose().to_owned();
        assert_eq!(shown(file.get()), "first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(shown(file.get()), "first", "it was looked at less than a second ago");
        file.lock().looked = Instant::now().checked_sub(LOOK).unwrap();
        assert_eq!(shown(file.get()), "second");
        for broken in ["", "two\nlines\n"] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(shown(file.reread()), "second");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(shown(file.reread()), "second");
        std::fs::write(&path, "third\n").unwrap();
        assert_eq!(shown(file.reread()), "third");
        // What makes a file readable again does not always show in its stamp.
        std::fs::write(&path, [0xff; 6]).unwrap();
        let (modified, _) = stamp(&path).unwrap();
        let look = || {
            file.lock().looked = Instant::now().checked_sub(LOOK).unwrap();
            shown(file.get())
        };
        assert_eq!(look(), "third");
        std::fs::write(&path, "fourth").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(look(), "fourth");
        assert!(!format!("{file:?}").contains("third"));
    }
}
