//! The Jaeger beside the system: where it is, how it is configured, and who removes it.

use std::{
    fs::DirBuilder,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use node::error::Error;

use crate::{
    ports,
    process::{Program, Role, Spec},
};

/// Jaeger's instance, its group, and the name of its executable.
const JAEGER: &str = "jaeger";

const CONFIGURATION: &str = include_str!("../../../otel/jaeger/jaeger.yaml");
const PAGE: &str = include_str!("../../../otel/jaeger/ui/ui.json");

/// Becomes Jaeger, which knows nothing of launchers, and leaves a watcher with the launcher's
/// socket. When the socket is closed, by whatever ended the launcher, the watcher kills Jaeger,
/// which stores nothing, and removes the folder. The process id `$$` is Jaeger's even after it has
/// exited: the system does not reuse the id of a process group, and the watcher is in that group.
/// The watcher is a shell, not a command of this executable, so that a kill by name spares it.
const WATCHED: &str = r#"exec 3<&0
(read -r _ <&3; kill -KILL $$ 2>/dev/null; rm -rf -- "$1") &
shift
exec "$@" </dev/null 3<&-"#;

/// Where the user sends spans; the first variable that is set wins.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Attributes of every span of a process.
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The launcher's options about Jaeger.
#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// Start this Jaeger v2 [default: the `jaeger` on PATH, unless an OTLP endpoint is set]
    #[arg(long, value_name = "PATH", overrides_with = "no_jaeger")]
    jaeger: Option<PathBuf>,
    /// Start no Jaeger
    #[arg(long, overrides_with = "jaeger")]
    no_jaeger: bool,
    /// Port of Jaeger's page; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value = "16686", value_parser = ports::port)]
    jaeger_port: u16,
    /// Port where Jaeger receives spans by OTLP over HTTP; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value = "4318", value_parser = ports::port)]
    otlp_port: u16,
}

/// Where the spans of the system go.
pub enum Traces {
    /// To a Jaeger that the launcher starts.
    Jaeger(Jaeger),
    /// Where the user's environment says.
    Elsewhere,
    /// Nowhere.
    Off,
}

/// A Jaeger that is not started yet, and where it will listen.
pub struct Jaeger {
    executable: PathBuf,
    page: SocketAddr,
    otlp: SocketAddr,
}

impl Traces {
    /// Decides by options and environment. Nothing is started yet.
    ///
    /// # Errors
    /// `--jaeger` is not an executable, or a port is taken.
    pub fn choose(options: &Options) -> Result<Self, Error> {
        let executable = if let Some(path) = &options.jaeger {
            if !is_executable(path) {
                let path = path.display().to_string();
                return Err(Error::Usage(format!(
                    "invalid --jaeger {path:?}: expected an executable file"
                )));
            }
            // Without a folder the shell would look for it on PATH.
            std::path::absolute(path).map_err(|error| Error::Other(error.to_string()))?
        } else if is_off() {
            return Ok(Self::Off);
        } else if endpoint().is_some() {
            return Ok(Self::Elsewhere);
        } else if let Some(path) = on_path().filter(|_| !options.no_jaeger) {
            path
        } else {
            // The page of a flow shows what happened in it, too.
            return Ok(Self::Off);
        };
        // Both listeners live until both addresses are known, so that free ports differ.
        let listen = |port, option| ports::listen(ports::loopback(port), option);
        let page = listen(options.jaeger_port, "--jaeger-port or --no-jaeger")?;
        let otlp = listen(options.otlp_port, "--otlp-port or --no-jaeger")?;
        let address = |listener: TcpListener| {
            listener.local_addr().map_err(|error| Error::Other(error.to_string()))
        };
        Ok(Self::Jaeger(Jaeger { executable, page: address(page)?, otlp: address(otlp)? }))
    }

    /// What to set for a process beyond the environment that it inherits.
    pub fn environment(&self, role: Role) -> Vec<(&'static str, String)> {
        let Self::Jaeger(jaeger) = self else { return Vec::new() };
        let mut settings = Vec::new();
        if endpoint().is_none() {
            // Not the variable for everything: Jaeger takes no metrics.
            settings.push((ENDPOINTS[0], format!("http://{}/v1/traces", jaeger.otlp)));
        }
        // Jaeger takes processes without the same host for hosts with clocks of their own, and
        // warns about each call that ends before its callee starts, as all do here. It identifies
        // a host by its name; up to version 2.13, by its address.
        if set(ATTRIBUTES).is_none() {
            let host = format!("host.name={},ip={}", host_name(), jaeger.page.ip());
            settings.push((ATTRIBUTES, host));
        }
        if role == Role::Gateway && set("GATEWAY_JAEGER_URL").is_none() {
            settings.push(("GATEWAY_JAEGER_URL", format!("http://{}", jaeger.page)));
        }
        settings
    }
}

impl Jaeger {
    /// Where its page is.
    pub fn page(&self) -> SocketAddr {
        self.page
    }

    /// How to start it. Writes its configuration to a new folder, which its watcher removes.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn spec(&self) -> Result<Spec, Error> {
        // A folder that is left of another launcher may have its process id.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("async-rpc-jaeger-{}-{}", std::process::id(), started.as_nanos());
        let folder = std::env::temp_dir().join(name);
        let (configuration, page) = (folder.join("jaeger.yaml"), folder.join("ui").join("ui.json"));
        let write = || {
            let mut private = DirBuilder::new();
            private.mode(0o700).create(&folder)?;
            private.create(folder.join("ui"))?;
            std::fs::write(&configuration, CONFIGURATION)?;
            std::fs::write(&page, PAGE)
        };
        write().map_err(|error| {
            Error::Other(format!("cannot write Jaeger's configuration to {folder:?}: {error}"))
        })?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let port = |address: SocketAddr| address.port().to_string();
        Ok(Spec {
            role: Role::Jaeger,
            group: JAEGER.to_owned(),
            instance: JAEGER.to_owned(),
            program: Program::Other { path: "sh".into(), listens: vec![self.page, self.otlp] },
            arguments: vec![
                "-c".to_owned(),
                WATCHED.to_owned(),
                JAEGER.to_owned(),
                text(&folder),
                text(&self.executable),
                "--config".to_owned(),
                text(&configuration),
            ],
            secrets: Vec::new(),
            environment: vec![
                ("JAEGER_LISTEN_HOST", self.page.ip().to_string()),
                ("JAEGER_PAGE_PORT", port(self.page)),
                ("JAEGER_OTLP_HTTP_PORT", port(self.otlp)),
                // Nothing here uses gRPC: any free ports.
                ("JAEGER_OTLP_GRPC_PORT", "0".to_owned()),
                ("JAEGER_QUERY_GRPC_PORT", "0".to_owned()),
                ("JAEGER_UI_CONFIG", text(&page)),
                ("JAEGER_LOG_LEVEL", "error".to_owned()),
            ],
        })
    }
}

/// A variable of the environment, unless it is empty.
fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|it| !it.is_empty())
}

/// Whether the user has turned tracing off.
fn is_off() -> bool {
    set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
}

/// The user's own OTLP endpoint, and the variable that names it.
pub fn endpoint() -> Option<(&'static str, String)> {
    ENDPOINTS.into_iter().find_map(|variable| Some((variable, set(variable)?)))
}

/// The name of this machine, or one that stands for it.
fn host_name() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = node::config::hostname().filter(|name| name.chars().all(plain));
    name.unwrap_or_else(|| "localhost".to_owned())
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(JAEGER)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}
