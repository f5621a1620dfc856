//! What a page calls otherwise than this test does.

use std::path::Path;

use testkit::deployment::Deployment;

/// The executable as the pages call it.
pub const RELEASE: &str = "target/release/async-rpc";

/// Pairs of what the pages say, and what it is here.
#[derive(Clone)]
pub struct Names {
    executable: String,
    ports: Vec<(&'static str, u16)>,
    /// What the names of containers begin with here.
    prefix: String,
}

impl Names {
    /// Names for this executable, as long as nothing is started.
    pub fn of(executable: &Path) -> Self {
        let executable = executable.display().to_string();
        Self { executable, ports: Vec::new(), prefix: String::new() }
    }

    /// For the processes of one machine: ports of gateway and server.
    pub fn with_ports(&self, [gateway, server]: [u16; 2]) -> Self {
        let ports = vec![("5000", gateway), ("8001", server)];
        Self { executable: self.executable.clone(), ports, prefix: String::new() }
    }

    pub fn with_containers(&self, deployment: &Deployment) -> Self {
        let ports = vec![
            ("5000", deployment.gateway_port),
            ("8001", deployment.resonate_port),
            ("16686", deployment.jaeger_port),
        ];
        Self { executable: self.executable.clone(), ports, prefix: deployment.name("") }
    }

    /// The port that the pages call so.
    pub fn port(&self, there: &str) -> String {
        let found = self.ports.iter().find(|(port, _)| *port == there);
        found.expect("the ports of the pages are known").1.to_string()
    }

    /// What is typed here for what a page says.
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
        self.ports.iter().fold(typed.replace(RELEASE, &self.executable), replace)
    }

    /// What a page says for a line that was printed here.
    pub fn there(&self, line: &str) -> String {
        let folder = std::env::current_dir().unwrap_or_default();
        let relative = Path::new(&self.executable).strip_prefix(crate::root()).ok();
        let in_folder = Path::new(&self.executable).strip_prefix(folder).ok();
        let mut line = line.replace(&self.executable, RELEASE);
        for path in [relative, in_folder].into_iter().flatten() {
            line = line.replace(&path.display().to_string(), RELEASE);
        }
        if !self.prefix.is_empty() {
            line = line.replace(&self.prefix, "");
        }
        let replace = |text: String, (there, here): &(&str, u16)| {
            text.replace(&format!(":{here}"), &format!(":{there}"))
        };
        self.ports.iter().fold(line, replace)
    }
}
