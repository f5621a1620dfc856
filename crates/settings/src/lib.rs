//! Settings: the command line over the environment over a TOML file over the defaults.
//!
//! A setting is a `clap` argument with a variable, such as `--lease` with `NODE_LEASE`. In the file
//! that `NODE_CONFIG_FILE` names its key is the rest of the variable in lower case:
//! `lease = "3s"`.
//!
//! | module | what it does |
//! | --- | --- |
//! | `duration` | durations as people type them |
//! | `log` | what is logged, and how |
//! | `secret` | secrets, and files with secrets |
//! | `error` | errors of settings, and their exit codes |
//! | `values` | checks of values |

pub mod duration;
mod error;
mod log;
mod secret;
mod values;

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
};

use clap::{
    ArgMatches, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use self::{
    error::{EXIT_SETTING, Error, SettingError, fail},
    log::{LogFormat, filter},
    secret::{Secret, SecretFile, secret, token},
    values::{address, boolean, duration, integer, name, reachable, url, without_credentials},
};

/// The rest of the variable that names a prefix's file.
const FILE: &str = "_CONFIG_FILE";

/// Variables of Node.js, which share the prefix of this project's.
const NODE_JS: [&str; 9] = [
    "NODE_DEBUG",
    "NODE_ENV",
    "NODE_EXTRA_CA_CERTS",
    "NODE_HOME",
    "NODE_NO_WARNINGS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "NODE_VERSION",
];

/// What was set.
#[derive(Debug)]
pub struct Parsed {
    /// The values.
    pub matches: ArgMatches,
    /// Names that mean nothing: variables with a known prefix, keys of a file.
    pub unknown: Vec<String>,
}

/// Reads the settings of `command`: its arguments, and those of the subcommand that `arguments`
/// choose. Variables that begin with one of `prefixes` (`NODE`) and mean nothing are reported.
///
/// # Errors
/// The first unusable value, an unreadable file, or a command line with other mistakes.
pub fn parse(
    mut command: Command,
    prefixes: &[&str],
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Parsed, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let known = variables(&command);
    let files = Files::read(&command, prefixes, &arguments)?;
    files.apply(&mut command);
    let documented = command.clone();
    ignore_empty_variables(&mut command)?;
    let matches =
        command.try_get_matches_from_mut(&arguments).map_err(|error| {
            match invalid_value(&error, &documented, &files, &arguments) {
                Some(error) => Error::Setting(error),
                None => Error::CommandLine(error),
            }
        })?;
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            let ours =
                |prefix: &&str| name.strip_prefix(*prefix).is_some_and(|it| it.starts_with('_'));
            let elsewhere = NODE_JS.contains(&name.as_str());
            prefixes.iter().any(ours) && !known.contains(name) && !elsewhere
        })
        .collect();
    unknown.sort();
    unknown.extend(files.unknown(&known));
    Ok(Parsed { matches, unknown })
}

impl Parsed {
    /// The values as a type.
    ///
    /// # Errors
    /// Those of clap, if the values are those of another command.
    pub fn read<T: FromArgMatches>(&self) -> Result<T, Error> {
        Ok(T::from_arg_matches(&self.matches)?)
    }
}

/// Calls `change` for the command and all commands below it.
fn for_each(command: &mut Command, change: &mut impl FnMut(Command) -> Command) {
    *command = change(std::mem::take(command));
    command.get_subcommands_mut().for_each(|below| for_each(below, change));
}

/// The variables of all settings.
fn variables(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env());
    let mut all: BTreeSet<_> = own.map(|name| name.to_string_lossy().into_owned()).collect();
    command.get_subcommands().for_each(|below| all.extend(variables(below)));
    all
}

/// An empty variable counts as unset. Values are not shown in `--help`: they may be secrets.
fn ignore_empty_variables(command: &mut Command) -> Result<(), SettingError> {
    let mut failed = None;
    for_each(command, &mut |command| {
        command.mut_args(|argument| {
            let Some(variable) = argument.get_env().map(ToOwned::to_owned) else { return argument };
            let argument = argument.hide_env_values(true);
            let Some(value) = std::env::var_os(&variable) else { return argument };
            let variable = variable.to_string_lossy().into_owned();
            if value.is_empty() {
                // clap cannot forget a variable: it gets one that is never set.
                let help = argument.get_help().cloned().unwrap_or_default();
                return argument.help(format!("{help} [env: {variable}]")).env("").hide_env(true);
            }
            if value.to_str().is_none() {
                failed.get_or_insert(SettingError {
                    name: variable,
                    value: String::new(),
                    place: String::new(),
                    expected: "not valid UTF-8".to_owned(),
                });
            }
            argument
        })
    });
    failed.map_or(Ok(()), Err)
}

/// What the files say that the variables `<PREFIX>_CONFIG_FILE` name.
struct Files(Vec<File>);

struct File {
    prefix: String,
    path: String,
    values: HashMap<String, String>,
}

impl Files {
    fn read(
        command: &Command,
        prefixes: &[&str],
        arguments: &[OsString],
    ) -> Result<Self, SettingError> {
        let mut files = Vec::new();
        for prefix in prefixes {
            let variable = format!("{prefix}{FILE}");
            let Some(path) = path_of(command, &variable, arguments) else { continue };
            let unreadable = |error: config::ConfigError| {
                let error = without_lines(&error.to_string());
                let expected = format!("expected a readable TOML file ({error})");
                SettingError::new(&variable, &path, expected)
            };
            let source = config::File::new(&path, config::FileFormat::Toml);
            let values = config::Config::builder().add_source(source).build();
            let values = values.and_then(config::Config::try_deserialize).map_err(unreadable)?;
            files.push(File { prefix: (*prefix).to_owned(), path, values });
        }
        Ok(Self(files))
    }

    /// Where the value of `variable` would come from, and the value.
    fn get(&self, variable: &str) -> Option<(&File, &str, &String)> {
        self.0.iter().find_map(|file| {
            let key = variable.strip_prefix(&file.prefix)?.strip_prefix('_')?.to_lowercase();
            let (key, value) = file.values.get_key_value(&key)?;
            Some((file, key.as_str(), value))
        })
    }

    /// Makes the values of the files defaults.
    fn apply(&self, command: &mut Command) {
        for_each(command, &mut |command| {
            command.mut_args(|argument| {
                let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                match variable.and_then(|variable| self.get(&variable).map(|(_, _, value)| value)) {
                    Some(value) => argument.default_value(value.clone()),
                    None => argument,
                }
            })
        });
    }

    fn unknown<'a>(&'a self, known: &'a BTreeSet<String>) -> impl Iterator<Item = String> + 'a {
        self.0.iter().flat_map(move |file| {
            let unknown = file.values.keys().filter(move |key| {
                !known.contains(&format!("{}_{}", file.prefix, key.to_uppercase()))
            });
            unknown.map(move |key| format!("{key} in {}", file.path))
        })
    }
}

/// The path that the setting with this variable has, wherever it was set.
fn path_of(command: &Command, variable: &str, arguments: &[OsString]) -> Option<String> {
    let mut lenient = command.clone().ignore_errors(true);
    let matches = lenient.try_get_matches_from_mut(arguments).ok()?;
    let mut level = (&lenient, &matches);
    loop {
        let (command, matches) = level;
        let argument = command.get_arguments().find(|it| it.get_env() == Some(variable.as_ref()));
        if let Some(argument) = argument {
            let path = matches.get_one::<String>(argument.get_id().as_str()).cloned();
            return path.filter(|path| !path.is_empty());
        }
        let (name, below) = matches.subcommand()?;
        level = (command.find_subcommand(name)?, below);
    }
}

/// What is wrong with a file, without the lines that are quoted from it: they may hold a secret.
fn without_lines(error: &str) -> String {
    let lines = error.lines().filter(|line| !line.contains(" |")).map(str::trim);
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

/// What clap says about a value, in the words of [`SettingError`].
fn invalid_value(
    error: &clap::Error,
    command: &Command,
    files: &Files,
    arguments: &[OsString],
) -> Option<SettingError> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg)?;
    let option = option.split([' ', '=']).next()?.to_owned();
    let value = text(ContextKind::InvalidValue)?;
    let expected = match (std::error::Error::source(error), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(values))) => format!("expected {}", values.join(" or ")),
        _ => return None,
    };
    let typed = arguments.iter().any(|it| {
        it.to_string_lossy()
            .strip_prefix(&option)
            .is_some_and(|it| it.is_empty() || it.starts_with('='))
    });
    let chosen = chosen(command, arguments);
    let variable = chosen.iter().find_map(|command| variable_of(command, &option));
    let Some(variable) = variable.filter(|_| !typed) else {
        return Some(SettingError::new(option, &value, expected));
    };
    if std::env::var_os(&variable).is_some_and(|value| !value.is_empty()) {
        return Some(SettingError::new(variable, &value, expected));
    }
    let (file, key, _) = files.get(&variable)?;
    let place = format!(" in {}", file.path);
    Some(SettingError { place, ..SettingError::new(key, &value, expected) })
}

/// The variable of the argument `--option` of a command.
fn variable_of(command: &Command, option: &str) -> Option<String> {
    let own = command.get_arguments().find(|it| it.get_long() == option.strip_prefix("--"))?;
    own.get_env().map(|variable| variable.to_string_lossy().into_owned())
}

/// The command, and the subcommands that `arguments` choose: two of them may have an option of the
/// same name.
fn chosen<'a>(command: &'a Command, arguments: &[OsString]) -> Vec<&'a Command> {
    let mut lenient = command.clone().ignore_errors(true);
    let matches = lenient.try_get_matches_from_mut(arguments).ok();
    let mut level = matches.as_ref();
    let mut chosen = vec![command];
    while let Some((name, below)) = level.and_then(ArgMatches::subcommand) {
        chosen.extend(chosen.last().and_then(|last| last.find_subcommand(name)));
        level = Some(below);
    }
    chosen
}

#[cfg(test)]
mod tests;
