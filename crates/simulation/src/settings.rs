//! Settings of simulated processes.

use clap::{Args, Command, FromArgMatches};

/// The defaults of `T`, with these arguments of its command line. The environment is not read.
///
/// # Panics
/// An argument is invalid.
pub fn settings<T: Args + FromArgMatches>(arguments: &[&str]) -> T {
    let command = T::augment_args(Command::new("simulation").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(None));
    let matches = command.get_matches_from(arguments);
    T::from_arg_matches(&matches).unwrap_or_else(|error| panic!("{error}"))
}
