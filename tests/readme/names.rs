//! What the README calls otherwise than this test does.

use std::path::Path;

use crate::{EXECUTABLE, RELEASE, deployment::Deployment, root};

/// Pairs of what the README says, and what it is here.
#[derive(Clone, Default)]
pub struct Names {
    ports: Vec<(&'static str, u16)>,
    /// What the names of containers begin with here.
    prefix: String,
}

impl Names {
    /// Of the processes of one machine: ports of gateway and server.
    pub fn of_processes([gateway, server]: [u16; 2]) -> Self {
        Self { ports: vec![("5000", gateway), ("8001", server)], prefix: String::new() }
    }

    pub fn of_containers(deployment: &Deployment) -> Self {
        Self {
            ports: vec![
                ("5000", deployment.gateway_port),
                ("8001", deployment.resonate_port),
                ("16686", deployment.jaeger_port),
            ],
            prefix: deployment.name(""),
        }
    }

    /// The port that the README calls so.
    pub fn port(&self, there: &str) -> String {
        let found = self.ports.iter().find(|(port, _)| *port == there);
        found.expect("the README's ports are known").1.to_string()
    }

    /// What is typed here for what the README says.
    pub fn here(&self, typed: &str) -> String {
        // These name containers; `docker compose` finds its own by its settings.
        for verb in ["docker kill ", "docker start "] {
            if let Some(container) = typed.strip_prefix(verb) {
                return format!("{verb}{}{container}", self.prefix);
            }
        }
        let replace = |text: String, (there, here): &(&str, u16)| {
            text.replace(&format!(":{there}"), &format!(":{here}"))
        };
        self.ports.iter().fold(typed.to_owned(), replace)
    }

    /// What the README says for a line that was printed here.
    pub fn there(&self, line: &str) -> String {
        let root = root();
        let executable = Path::new(EXECUTABLE).strip_prefix(&root).unwrap_or(Path::new(EXECUTABLE));
        let line =
            line.replace(EXECUTABLE, RELEASE).replace(&executable.display().to_string(), RELEASE);
        let line = match self.prefix.is_empty() {
            true => line,
            false => line.replace(&self.prefix, ""),
        };
        let replace = |text: String, (there, here): &(&str, u16)| {
            text.replace(&format!(":{here}"), &format!(":{there}"))
        };
        self.ports.iter().fold(line, replace)
    }
}
