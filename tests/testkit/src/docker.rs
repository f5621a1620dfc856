//! The Docker client.

use std::process::{Command, Output};

/// A command of the Docker client. It inherits none of the settings of a deployment.
pub fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).env_clear();
    let is_kept = |name: &str| matches!(name, "PATH" | "HOME") || name.starts_with("DOCKER_");
    command.envs(std::env::vars().filter(|(name, _)| is_kept(name)));
    command.env("DOCKER_BUILDKIT", "1");
    command
}

/// Runs a command and returns its standard output.
///
/// # Panics
/// The command fails.
pub fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard output and standard error of a command that has ended.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Whether the engine has an image.
pub(crate) fn image_exists(image: &str) -> bool {
    docker(&["image", "inspect", image]).output().is_ok_and(|output| output.status.success())
}
