//! The command line and its errors.

use std::{env, error::Error, ffi::OsString, process::ExitCode};

use clap::{
    Command, CommandFactory, FromArgMatches,
    builder::Resettable,
    error::{ContextKind, ContextValue},
};

/// Exit code for an invalid setting (`EX_USAGE` of sysexits.h).
pub(crate) const EX_USAGE: u8 = 64;

/// Reports an error and returns the exit code of the process.
pub(crate) fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}

/// Reads the command line and the environment. Empty variables count as unset.
///
/// # Errors
/// The exit code, after the error, the help or the version has been printed: 64 for a bad value,
/// 2 for any other mistake.
pub(crate) fn parse<T: CommandFactory + FromArgMatches>() -> Result<T, ExitCode> {
    let mut command = T::command();
    for arg in command.clone().get_arguments() {
        let Some(variable) = arg.get_env() else { continue };
        match env::var_os(variable) {
            Some(value) if value.is_empty() => {
                command = command.mut_arg(arg.get_id(), |arg| arg.env(Resettable::Reset));
            }
            Some(value) if value.to_str().is_none() => {
                let variable = variable.display();
                return Err(fail(EX_USAGE, &format!("invalid {variable}: not valid UTF-8")));
            }
            _ => {}
        }
    }
    let arguments: Vec<OsString> = env::args_os().collect();
    command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| match bad_value(&command, &arguments, &error) {
            Some(error) => fail(EX_USAGE, &error),
            None => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
            }
        })
}

/// Describes a value that its parser refused, by the name of the flag or variable that it came from.
fn bad_value(command: &Command, arguments: &[OsString], error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    let (shown, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let reason = error.source()?;
    let arg = command.get_arguments().find(|arg| arg.to_string() == *shown)?;
    let flag = format!("--{}", arg.get_long()?);
    let given = arguments.iter().filter_map(|argument| argument.to_str());
    let name = match arg.get_env() {
        Some(variable)
            if !given.map(|it| it.split('=').next().unwrap_or(it)).any(|it| it == flag) =>
        {
            variable.to_str()?
        }
        _ => &flag,
    };
    Some(format!("invalid {name} {value:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_flag_or_variable_and_the_value() {
        let parser = |text: &str| text.parse::<u8>().map_err(|_| "expected a number");
        let arg = clap::Arg::new("wait").long("wait").value_parser(parser);
        let explain = |arg: clap::Arg, arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let mut command = Command::new("test").arg(arg);
            let error = command.try_get_matches_from_mut(&arguments).unwrap_err();
            bad_value(&command, &arguments, &error)
        };
        let with_variable = arg.clone().env("WAIT").default_value("soon");
        assert_eq!(
            explain(with_variable.clone(), &["test"]).as_deref(),
            Some("invalid WAIT \"soon\": expected a number"),
        );
        for arguments in [&["test", "--wait", "soon"][..], &["test", "--wait=soon"]] {
            for arg in [&arg, &with_variable] {
                let expected = "invalid --wait \"soon\": expected a number";
                assert_eq!(explain(arg.clone(), arguments).as_deref(), Some(expected));
            }
        }
        assert_eq!(explain(arg, &["test", "--other"]), None);
    }
}
