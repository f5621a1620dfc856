//! Errors of settings, and their exit codes.

use std::{fmt::Display, process::ExitCode};

use crate::without_credentials;

/// Exit code for an unusable setting (`EX_USAGE` of sysexits.h).
pub const EXIT_SETTING: u8 = 64;

/// Exit code for a command line that cannot be understood, as clap has it.
const EXIT_COMMAND_LINE: u8 = 2;

/// Why settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is unusable. Exit code 64.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The command line cannot be understood (exit code 2), or asks for help (exit code 0).
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
}

impl Error {
    /// Prints it, and returns the exit code of the process.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Setting(error) => fail(EXIT_SETTING, error),
            Self::CommandLine(error) => {
                // It fails if nobody reads the output any more.
                let _ = error.print();
                if error.use_stderr() {
                    ExitCode::from(EXIT_COMMAND_LINE)
                } else {
                    ExitCode::SUCCESS
                }
            }
        }
    }
}

/// Prints why a process ends, and returns its exit code.
pub fn fail(code: u8, error: &impl Display) -> ExitCode {
    // In one write: the processes of a launcher share their standard error.
    let line = format!("error: {error}\n");
    eprint!("{line}");
    ExitCode::from(code)
}

/// A setting with an unusable value. Its text names the setting, the value and what is expected.
#[derive(Debug, thiserror::Error)]
#[error("invalid {name}{value}{place}: {expected}")]
pub struct SettingError {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) place: String,
    pub(crate) expected: String,
}

impl SettingError {
    /// An error about the value of the variable or option `name`.
    pub fn new(name: impl Into<String>, value: &str, expected: impl Into<String>) -> Self {
        // A URL with a mistake may have a password.
        let value = format!(" {:?}", without_credentials(value));
        Self { value, ..Self::of_secret(name, expected) }
    }

    /// The same about a value that is not shown.
    pub fn of_secret(name: impl Into<String>, expected: impl Into<String>) -> Self {
        let (value, place) = (String::new(), String::new());
        Self { name: name.into(), value, place, expected: expected.into() }
    }
}
