//! Why a process ended early, and its exit code.

use std::{net::SocketAddr, process::ExitCode};

use settings::{EXIT_SETTING, SettingError};

/// Why a process ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be read, or the command line asks for help.
    #[error(transparent)]
    Settings(#[from] settings::Error),
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
    /// Anything else. Exit code 1.
    #[error("{0}")]
    Other(String),
}

impl From<SettingError> for Error {
    fn from(error: SettingError) -> Self {
        Self::Settings(error.into())
    }
}

/// The exit code of a process that ended with `result`. It tells a supervisor whether a restart can
/// help. An error is printed.
pub fn exit_code(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Settings(error)) => error.report(),
        Err(error @ Error::Other(_)) => settings::fail(1, &error),
        Err(error) => settings::fail(EXIT_SETTING, &error),
    }
}
