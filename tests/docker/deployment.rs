//! A deployment of compose.yaml of a test's own: names, ports, images, networks and volume of
//! others are never touched, and nothing of it but its images is left when it is dropped.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use crate::http::Http;

/// Images of the tests; those of the user keep their names.
const IMAGES: &str = "async-rpc-test";

/// Nothing that is awaited takes nearly as long: who waits longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The groups, and their functions.
pub const SERVICES: [&str; 9] = [
    "service-a",
    "service-b",
    "service-c",
    "service-d",
    "service-e",
    "service-f",
    "service-g",
    "service-h",
    "service-i",
];

/// Which Resonate Server is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It forgets with its end.
    Embedded,
    Official,
}

/// A deployment. Its containers are called after its project.
pub struct Deployment {
    pub server: Server,
    project: String,
    settings: Vec<(String, String)>,
    pub gateway_port: u16,
    pub jaeger_port: u16,
    pub resonate_port: u16,
}

impl Deployment {
    /// Whether the user wants tests of containers.
    pub fn is_wanted() -> bool {
        std::env::var("ASYNC_RPC_DOCKER").as_deref() == Ok("1")
    }

    /// Prepares a deployment with more settings than its own, and builds its images.
    pub fn build(more: &[(&str, &str)]) -> Self {
        let local = image_exists("async-rpc/rust:local");
        let binary = std::env::var_os("RESONATE_SERVER_BIN").filter(|path| !path.is_empty());
        // With an image registry the official server comes from there.
        let server = match local && binary.is_none() {
            true => Server::Embedded,
            false => Server::Official,
        };
        let project = format!("async-rpc-test-{}", std::process::id());
        let [gateway_port, jaeger_port, resonate_port] = free_ports();
        let mut settings = vec![
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("CONTAINER_PREFIX", format!("{project}-")),
            // No .env of the user's.
            ("COMPOSE_ENV_FILES", "/dev/null".to_owned()),
            ("COMPOSE_PROGRESS", "plain".to_owned()),
            ("IMAGE_PREFIX", IMAGES.to_owned()),
            ("GATEWAY_PORT", gateway_port.to_string()),
            ("JAEGER_PORT", jaeger_port.to_string()),
            ("RESONATE_PORT", resonate_port.to_string()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        if local {
            settings.extend([
                ("RUST_IMAGE", "async-rpc/rust:local".to_owned()),
                ("BASE_IMAGE", "async-rpc/distroless:local".to_owned()),
                ("JAEGER_IMAGE", "async-rpc/jaeger:local".to_owned()),
            ]);
        }
        if let (true, Some(binary)) = (local, binary) {
            let image = format!("{IMAGES}/resonate:v0.9.8");
            wrap(&binary, &image);
            settings.push(("RESONATE_IMAGE", image));
        }
        let mut files = "compose.yaml".to_owned();
        if server == Server::Embedded {
            files += ":docker/offline.yaml";
        }
        settings.push(("COMPOSE_FILE", files));
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        let deployment = Self {
            server,
            project,
            settings: settings.collect(),
            gateway_port,
            jaeger_port,
            resonate_port,
        };
        deployment.compose(&["build", "--quiet"]);
        if !local {
            deployment.compose(&["pull", "--quiet", "resonate", "jaeger"]);
        }
        deployment
    }

    /// Runs `docker compose` for this deployment: what it printed. Fails if it fails.
    pub fn compose(&self, arguments: &[&str]) -> String {
        output(self.compose_command(arguments))
    }

    /// `docker compose` for this deployment.
    pub fn compose_command(&self, arguments: &[&str]) -> Command {
        let mut command = docker(&["compose"]);
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        command.envs(self.settings());
        command
    }

    /// The environment in which `docker compose` means this deployment.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Starts what does not run, and waits for as long as `docker compose up` takes.
    pub fn up(&self) {
        self.compose(&["up", "--detach", "--no-build", "--pull", "never"]);
    }

    /// The name of a container with a fixed one: `service-b`, `gateway`.
    pub fn name(&self, service: &str) -> String {
        format!("{}-{service}", self.project)
    }

    /// The ids of the containers of one Compose service, also of those that ended.
    pub fn containers_of(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "--all", "--quiet", service]).lines().map(str::to_owned).collect()
    }

    /// What `docker inspect` says about each container of this deployment.
    pub fn inspect_all(&self) -> Vec<Value> {
        let ids = self.compose(&["ps", "--all", "--quiet"]);
        let mut arguments = vec!["inspect"];
        arguments.extend(ids.lines());
        let answer = output(docker(&arguments));
        serde_json::from_str(&answer).unwrap()
    }

    /// What `docker inspect` says about one container.
    pub fn inspect(&self, container: &str) -> Value {
        let answer = output(docker(&["inspect", container]));
        serde_json::from_str::<Value>(&answer).unwrap()[0].take()
    }

    /// Runs `docker kill`, `start` or the like for a container of this deployment.
    pub fn docker(&self, verb: &str, container: &str) {
        let project = self.inspect(container)["Config"]["Labels"]["com.docker.compose.project"]
            .as_str()
            .map(str::to_owned);
        assert_eq!(project.as_ref(), Some(&self.project), "{container} is not ours");
        output(docker(&[verb, container]));
    }

    /// All that a container has printed.
    pub fn logs(&self, container: &str) -> Vec<String> {
        let Output { stdout, stderr, .. } = docker(&["logs", container]).output().unwrap();
        let text = [stdout, stderr].concat();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// The log lines of a container that say `message` in the run of a promise that begins so.
    pub fn events(&self, container: &str, message: &str, promise: &str) -> usize {
        let lines = self.logs(container);
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fits = |event: &Value| {
            let of = event["span"]["promise"].as_str().unwrap_or_default();
            event["message"] == message && of.starts_with(promise)
        };
        events.filter(fits).count()
    }

    pub fn gateway(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.gateway_port))
    }

    pub fn jaeger(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.jaeger_port))
    }

    /// Waits until every container of a service, or the one so called, is healthy.
    pub async fn healthy(&self, container: &str) {
        until(&format!("{container} to be healthy"), async || {
            let state = &self.inspect(container)["State"];
            assert_eq!(state["Running"], true, "{container}: {state}");
            (state["Health"]["Status"] == "healthy").then_some(())
        })
        .await;
    }

    /// Waits until the gateway is ready.
    pub async fn ready(&self) {
        let http = self.gateway();
        until("the gateway to be ready", async || {
            let answer = http.send(reqwest::Method::GET, "/readyz", &[]).await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Waits until the flow `id` has ended: what `GET /flows/{id}` says then.
    pub async fn ended(&self, id: &str) -> Value {
        let http = self.gateway();
        until(&format!("the end of flow {id}"), async || {
            let answer =
                http.send(reqwest::Method::GET, &format!("/flows/{id}"), &[]).await.ok()?;
            (answer.status == 200 && answer.body["state"] != "pending").then_some(answer.body)
        })
        .await
    }

    /// Removes containers, networks and, if it is to forget all, the volume.
    pub fn down(&self, volumes: bool) {
        self.try_down(volumes).unwrap_or_else(|left| panic!("{left}"));
    }

    fn try_down(&self, volumes: bool) -> Result<(), String> {
        let mut arguments = vec!["down", "--remove-orphans", "--timeout", "0"];
        if volumes {
            arguments.push("--volumes");
        }
        let output =
            self.compose_command(&arguments).output().map_err(|error| error.to_string())?;
        let left = self.compose_command(&["ps", "--all", "--quiet"]).output();
        let left = left.map_err(|error| error.to_string())?;
        // In one of some dozen runs Engine 20.10 forgets to take a removed container off its
        // network, and keeps that until it is started anew: github.com/moby/moby/issues/43286.
        let stale = text(&output).contains("has active endpoints") && left.stdout.is_empty();
        if stale {
            println!("the engine keeps a network of {} that has no containers", self.project);
        }
        match output.status.success() || stale {
            true => Ok(()),
            false => Err(format!("parts of {} may be left: {}", self.project, text(&output))),
        }
    }

    /// How the containers are: what a failed test shows.
    pub fn report(&self) -> String {
        let mut logs = self.compose_command(&["logs", "--tail", "15"]);
        format!("{}\n{}", self.compose(&["ps", "--all"]), text(&logs.output().unwrap()))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let ended = self.try_down(true);
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

/// Asks `attempt` until it gives something.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A command of the Docker client, with none of the deployment's settings from outside.
pub fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).env_clear();
    let kept = |name: &str| matches!(name, "PATH" | "HOME") || name.starts_with("DOCKER_");
    command.envs(std::env::vars().filter(|(name, _)| kept(name)));
    command.env("DOCKER_BUILDKIT", "1");
    command
}

/// What a command prints. Fails if it fails.
pub fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn image_exists(image: &str) -> bool {
    docker(&["image", "inspect", image]).output().is_ok_and(|output| output.status.success())
}

/// Puts the official server's binary into an image like its own.
fn wrap(binary: &std::ffi::OsStr, image: &str) {
    const DOCKERFILE: &str = "FROM async-rpc/rust:local\n\
        RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends wget\n\
        COPY resonate /usr/local/bin/resonate-server\n\
        ENTRYPOINT [\"resonate-server\"]\n\
        CMD [\"serve\"]\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(binary, folder.path().join("resonate")).expect("RESONATE_SERVER_BIN");
    std::fs::write(folder.path().join("Dockerfile"), DOCKERFILE).unwrap();
    output(docker(&["build", "--quiet", "--tag", image, folder.path().to_str().unwrap()]));
}

/// Ports that nobody listens on, below those of outgoing connections.
fn free_ports<const N: usize>() -> [u16; N] {
    let base = 14_000 + (std::process::id() as u16 % 1_500) * 10;
    let free =
        (base..32_000).filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.take(N).collect::<Vec<_>>().try_into().unwrap()
}
