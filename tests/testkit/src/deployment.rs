//! The deployment of compose.yaml, in an instance of the test's own: it uses other names, ports,
//! images, networks and volumes than anybody else's, and leaves nothing but its images.

use std::{
    ffi::OsStr,
    fmt,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Http,
    docker::{docker, image_exists, output, text},
    free_port, server,
    wait::until_within,
};

/// The prefix of the images of the tests. The user's images have another one.
const IMAGES: &str = "async-rpc-test";

/// How long a test waits for containers.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Which Resonate Server is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The embedded server: it forgets everything when it stops.
    Embedded,
    /// The official server.
    Official,
}

/// A deployment. The names of its containers start with its project name.
pub struct Deployment {
    /// Its Resonate Server.
    pub server: Server,
    project: String,
    settings: Vec<(String, String)>,
    /// The published port of the gateway.
    pub gateway_port: u16,
    /// The published port of Jaeger's page.
    pub jaeger_port: u16,
    /// The published port of the Resonate Server.
    pub resonate_port: u16,
    stopped: bool,
}

impl Deployment {
    /// Whether the user asks for the tests of containers.
    pub fn is_wanted() -> bool {
        std::env::var("ASYNC_RPC_DOCKER").as_deref() == Ok("1")
    }

    /// Prepares a deployment with additional settings and builds its images.
    pub fn build(more: &[(&str, &str)]) -> Self {
        let local = image_exists("async-rpc/rust:local");
        let binary = server::Server::official_executable();
        // Without local base images the official server is pulled.
        let server = match local && binary.is_none() {
            true => Server::Embedded,
            false => Server::Official,
        };
        let project = format!("async-rpc-test-{}", std::process::id());
        let [gateway_port, jaeger_port, resonate_port] = [free_port(), free_port(), free_port()];
        let mut settings = vec![
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("CONTAINER_PREFIX", format!("{project}-")),
            // Ignores the user's .env.
            ("COMPOSE_ENV_FILES", "/dev/null".to_owned()),
            ("COMPOSE_PROGRESS", "plain".to_owned()),
            // Tests read all of it.
            ("LOG_MAX_SIZE", "1g".to_owned()),
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
            pack(&binary, &image);
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
            stopped: false,
        };
        deployment.compose(&["build", "--quiet"]);
        if !local {
            deployment.compose(&["pull", "--quiet", "resonate"]);
        }
        deployment
    }

    /// Runs `docker compose` for this deployment and returns what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn compose(&self, arguments: &[&str]) -> String {
        output(self.compose_command(arguments))
    }

    /// The command `docker compose` for this deployment.
    pub fn compose_command(&self, arguments: &[&str]) -> Command {
        let mut command = docker(&["compose"]);
        command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        command.envs(self.settings());
        command
    }

    /// The environment that makes `docker compose` act on this deployment.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Starts what does not run, and waits until it is healthy.
    pub fn up(&self) {
        self.compose(&["up", "--detach", "--wait", "--no-build", "--pull", "never"]);
    }

    /// The name of a container that has a fixed one, such as `service-b` or `gateway`.
    pub fn name(&self, service: &str) -> String {
        format!("{}-{service}", self.project)
    }

    /// The ids of the containers of one Compose service, including those that have exited.
    pub fn containers_of(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "--all", "--quiet", service]).lines().map(str::to_owned).collect()
    }

    /// `docker inspect` of each container of this deployment.
    pub fn inspect_all(&self) -> Vec<Value> {
        let ids = self.compose(&["ps", "--all", "--quiet"]);
        let mut arguments = vec!["inspect"];
        arguments.extend(ids.lines());
        let answer = output(docker(&arguments));
        serde_json::from_str(&answer).unwrap()
    }

    /// `docker inspect` of one container.
    pub fn inspect(&self, container: &str) -> Value {
        let answer = output(docker(&["inspect", container]));
        serde_json::from_str::<Value>(&answer).unwrap()[0].take()
    }

    /// Runs a command such as `docker kill` or `docker start` on a container of this deployment.
    ///
    /// # Panics
    /// The container belongs to another deployment, or the command fails.
    pub fn docker(&self, verb: &str, container: &str) {
        self.expect_own(container);
        output(docker(&[verb, container]));
    }

    /// Connects a container of this deployment with the network of the services, or disconnects it.
    ///
    /// # Panics
    /// The container belongs to another deployment, or the command fails.
    pub fn network(&self, verb: &str, container: &str) {
        self.expect_own(container);
        output(docker(&["network", verb, &format!("{}_inner", self.project), container]));
    }

    fn expect_own(&self, container: &str) {
        let project = self.inspect(container)["Config"]["Labels"]["com.docker.compose.project"]
            .as_str()
            .map(str::to_owned);
        assert_eq!(project.as_ref(), Some(&self.project), "{container} belongs to somebody else");
    }

    /// Everything that a container has printed.
    pub fn logs(&self, container: &str) -> Vec<String> {
        let Output { stdout, stderr, .. } = docker(&["logs", container]).output().unwrap();
        let text = [stdout, stderr].concat();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// The number of events with `message` that a container has logged in runs of promises whose ids
    /// start with `promise`.
    pub fn events(&self, container: &str, message: &str, promise: &str) -> usize {
        let lines = self.logs(container);
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let matches = |event: &Value| {
            let of = event["span"]["promise"].as_str().unwrap_or_default();
            event["message"] == message && of.starts_with(promise)
        };
        events.filter(matches).count()
    }

    /// A client of the gateway.
    pub fn gateway(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.gateway_port))
    }

    /// A client of Jaeger's page.
    pub fn jaeger(&self) -> Http {
        Http::new(&format!("127.0.0.1:{}", self.jaeger_port))
    }

    /// [`until`](crate::until) with the deadline of containers.
    pub async fn until<T>(&self, what: &str, attempt: impl AsyncFnMut() -> Option<T>) -> T {
        until_within(DEADLINE, self, what, attempt).await
    }

    /// Waits until a container is healthy.
    pub async fn healthy(&self, container: &str) {
        self.until(&format!("a healthy {container}"), async || {
            let state = &self.inspect(container)["State"];
            assert_eq!(state["Running"], true, "{container}: {state}");
            (state["Health"]["Status"] == "healthy").then_some(())
        })
        .await;
    }

    /// Waits until the gateway is ready.
    pub async fn ready(&self) {
        let http = self.gateway();
        self.until("a ready gateway", async || {
            http.status("/readyz").await.filter(|status| *status == 200)
        })
        .await;
    }

    /// Waits until the flow `id` has ended, and returns `GET /flows/{id}`.
    pub async fn ended(&self, id: &str) -> Value {
        let http = self.gateway();
        self.until(&format!("the end of flow {id}"), async || {
            let answer =
                http.send(reqwest::Method::GET, &format!("/flows/{id}"), &[]).await.ok()?;
            (answer.status == 200 && answer.body["state"] != "pending").then_some(answer.body)
        })
        .await
    }

    /// Removes containers, networks and, if it is to forget everything, the volume.
    ///
    /// # Panics
    /// Something is left.
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
        // In rare cases Engine 20.10 does not detach a removed container from its network, and keeps
        // the network until the engine restarts: github.com/moby/moby/issues/43286.
        let stale = text(&output).contains("has active endpoints") && left.stdout.is_empty();
        if stale {
            println!("the engine keeps a network of {}, which has no containers", self.project);
        }
        match output.status.success() || stale {
            true => Ok(()),
            false => Err(format!("parts of {} may be left: {}", self.project, text(&output))),
        }
    }

    /// Removes the whole deployment but its images.
    ///
    /// # Errors
    /// What is left.
    pub fn stop(mut self) -> Result<(), String> {
        self.stopped = true;
        self.try_down(true)
    }
}

/// Shows the containers and the end of their logs.
impl fmt::Display for Deployment {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for arguments in [&["ps", "--all"][..], &["logs", "--tail", "15"]] {
            match self.compose_command(arguments).output() {
                Ok(output) => writeln!(to, "{}", text(&output))?,
                Err(error) => writeln!(to, "docker compose: {error}")?,
            }
        }
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !self.stopped {
            // Cleans up after a failure, which the test reports.
            let _ = self.try_down(true);
        }
    }
}

/// Packs the binary of the official server into an image like its own.
fn pack(binary: &OsStr, image: &str) {
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
