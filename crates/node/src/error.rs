//! Why a process ended early, and its exit code.

use std::{net::SocketAddr, process::ExitCode};

use crate::settings::SettingError;

/// Exit code for an unusable setting (`EX_USAGE` of sysexits.h).
pub const EXIT_SETTING: u8 = 64;

/// Exit code for a command line that cannot be understood, as clap has it.
const EXIT_COMMAND_LINE: u8 = 2;

/// Why a process ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is unusable. Exit code 64.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A setting of OpenTelemetry is unusable. Exit code 64.
    #[error(transparent)]
    Telemetry(#[from] resonate_otel::ConfigurationError),
    /// An address cannot be listened on. Exit code 64.
    #[error("cannot listen on {address}: {source}; choose another address with {variable}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
        /// The setting to change.
        variable: &'static str,
    },
    /// A process of the system has an unusable setting, which it has named itself. Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// The command line cannot be understood (exit code 2), or asks for help (exit code 0).
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// Anything else. Exit code 1.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The exit code. It tells a supervisor whether a restart can help.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Setting(_) | Self::Telemetry(_) | Self::Listen { .. } | Self::Usage(_) => {
                ExitCode::from(EXIT_SETTING)
            }
            Self::CommandLine(error) if !error.use_stderr() => ExitCode::SUCCESS,
            Self::CommandLine(_) => ExitCode::from(EXIT_COMMAND_LINE),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// The exit code of a process that ended with `result`. An error is printed.
pub fn exit_code(result: Result<(), Error>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    match &error {
        Error::CommandLine(text) => {
            // It fails if nobody reads the output any more.
            let _ = text.print();
        }
        error => {
            // In one write: the processes of a launcher share their standard error.
            let line = format!("error: {error}\n");
            eprint!("{line}");
        }
    }
    error.exit_code()
}
