//! Runs the README: each command of its ```console blocks, in their order, and looks for the
//! output that a reader is told to expect.
//!
//! - `$ command` is typed into one shell that stays the same; what follows is its output, where
//!   `…` alone on a line stands for any lines. Commands that go on (`docker compose up`,
//!   `cargo run`, a service) run in a terminal of their own, and show the lines in this order among
//!   others.
//! - A ```log block is what the terminal of `docker compose up` or `cargo run --release` shows, in
//!   this order among other lines. The test goes on when it is there.
//! - A ```rust block begins with the file that its lines are in.
//!
//! Ports and names of containers are replaced by free ones and `cargo run --release` by the
//! executable under test. Ids, process ids and times are masked. What needs a Docker Engine runs
//! with `ASYNC_RPC_DOCKER=1`, on the images that `docker/offline-images.sh` has made if they are
//! there. A command that is neither run nor in [`NOT_RUN`] is a failure.

#[path = "readme/markdown.rs"]
mod markdown;
#[path = "readme/names.rs"]
mod names;
#[path = "readme/terminal.rs"]
mod terminal;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use testkit::deployment;

use crate::{
    deployment::Deployment,
    markdown::{Block, blocks, inline_code, matches},
    names::Names,
    terminal::{Shell, Terminal},
};

/// Commands that the README names and this test does not run.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo test --workspace", "this test is part of it"),
    ("cargo bench", "it measures for minutes, and a busy machine spoils it"),
    ("cp -r services/i services/j", "it would change the checkout"),
    ("cargo run --release -- --port 5001", FREE_PORTS),
    ("docker/offline-images.sh", ".ci/run does"),
    ("docker compose -f compose.yaml -f docker/offline.yaml up", "`docker compose up` means this"),
    ("docker compose -f compose.yaml -f docker/postgres.yaml up", "it takes an image registry"),
    ("docker compose build", "the deployment of this test is built already"),
    ("docker compose up --build", "the deployment of this test is built already"),
    ("docker compose down --volumes", "the test removes what it made"),
    ("docker compose version", "it is for trouble"),
    ("docker swarm init", SWARM),
    ("docker stack deploy --resolve-image never -c docker/stack.yaml async-rpc", SWARM),
    ("docker service scale async-rpc_service-b=4", SWARM),
    ("docker stack rm async-rpc", SWARM),
    ("cargo check", "it would wait for the build that runs this test"),
    ("docker kill gateway", "tests/docker.rs does"),
    ("docker start gateway", "tests/docker.rs does"),
    ("docker start resonate", "tests/docker.rs does"),
];

const FREE_PORTS: &str = "the other starts take free ports already";
const SWARM: &str = "it would change the user's engine";

/// Nothing that is awaited takes nearly as long: who waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(90);

/// What is asked for by repeating a request is asked for this often.
const POLL: Duration = Duration::from_millis(50);

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_async-rpc");

/// The executable as the README calls it.
const RELEASE: &str = "target/release/async-rpc";

/// Names the executable of the official server.
const OFFICIAL: &str = "RESONATE_SERVER_BIN";

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    if !runs("curl") || !runs("bash") {
        eprintln!("skipped: the README cannot be run without curl and bash");
        return;
    }
    let readme = read("README.md");
    let mut reader = Reader::new();
    for block in blocks(&readme) {
        eprintln!("README.md:{}", block.line);
        match block.language {
            "console" => {
                block.commands().for_each(|(command, output)| reader.type_in(command, &output))
            }
            "log" => reader.look_for(&block.lines),
            "rust" => check_rust(&block),
            "mermaid" => {}
            other => panic!("README.md:{}: a block of {other:?} would go unchecked", block.line),
        }
    }
    reader.end();
    let demos = 1 + usize::from(Deployment::is_wanted());
    assert_eq!(reader.kills, demos, "each crash demo kills one process");
}

/// Commands, files and settings that the text names stand between backticks.
#[test]
fn what_the_readme_names_is_there() {
    let readme = read("README.md");
    let commands: Vec<&str> =
        blocks(&readme).iter().flat_map(Block::commands).map(|(command, _)| command).collect();
    let source = [
        "crates/node/src/config.rs",
        "crates/node/src/logging.rs",
        "services/gateway/src/config.rs",
    ]
    .map(read)
    .concat();
    let deployment = defaults_of_the_example();
    for code in inline_code(&readme) {
        let first = code.split([' ', '=']).next().unwrap_or_default();
        if ["cargo", "curl", "docker", "pkill"].contains(&first) && code != first {
            let known = commands.contains(&code) || NOT_RUN.iter().any(|(known, _)| *known == code);
            assert!(known, "the README names `{code}`, which is neither run nor in NOT_RUN");
        }
        let folders = ["services/", "crates/", "tests/", "docker/", "otel/", ".ci/"];
        if folders.iter().any(|folder| code.starts_with(folder)) {
            let made_by_reader = code.starts_with("services/j");
            assert!(made_by_reader || root().join(code).exists(), "there is no {code}");
        }
        if let Some((_, key)) =
            ["NODE_", "GATEWAY_"].iter().find_map(|&p| Some((p, first.strip_prefix(p)?)))
        {
            let key = key.to_lowercase();
            let known = key == "config_file"
                || source.contains(&format!("\"{key}\""))
                || deployment.contains_key(first);
            assert!(known, "no setting is called {first}");
        }
    }
}

/// The example of settings names every variable of the deployments, with its default.
#[test]
fn the_example_of_settings_is_complete() {
    let example = defaults_of_the_example();
    let mut used = BTreeMap::new();
    for file in ["compose.yaml", "docker/postgres.yaml", "docker/stack.yaml"] {
        // ${NAME:-default}
        for part in read(file).split("${").skip(1) {
            let variable = part.split('}').next().unwrap();
            let (name, default) = variable.split_once(":-").unwrap_or_else(|| {
                panic!("{file}: ${{{variable}}} has no default");
            });
            let known = example.get(name).map(String::as_str);
            assert_eq!(known, Some(default), "{name} of {file} in .env.example");
            used.insert(name.to_owned(), default.to_owned());
        }
    }
    assert_eq!(used, example, "what is used, and .env.example");
}

/// Images, ports and limits of the README's table are the defaults of the deployment.
#[test]
fn the_table_of_containers_is_true() {
    let example = defaults_of_the_example();
    let table = read("README.md");
    let row = |container: &str| {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{container}`")));
        row.unwrap_or_else(|| panic!("no row of {container}")).to_owned()
    };
    for (container, prefix, image, port) in [
        ("gateway", "GATEWAY", "async-rpc/gateway".to_owned(), "GATEWAY_PORT"),
        ("service-a", "SERVICE", "async-rpc/service-a".to_owned(), ""),
        ("async-rpc-service-a-replica-1", "SERVICE", "the same".to_owned(), ""),
        ("resonate", "RESONATE", example["RESONATE_IMAGE"].clone(), "RESONATE_PORT"),
        ("jaeger", "JAEGER", example["JAEGER_IMAGE"].clone(), "JAEGER_PORT"),
    ] {
        let cells: Vec<_> = row(container).split('|').map(|cell| cell.trim().to_owned()).collect();
        let [.., shown_image, shown_port, cpus, memory, _] = &cells[..] else {
            panic!("{cells:?} has too few cells")
        };
        assert!(shown_image.contains(&image), "{shown_image} is not {image}");
        let port = example.get(port).map_or("none", String::as_str);
        let limits = ["CPUS", "MEMORY"].map(|limit| &example[&format!("{prefix}_{limit}")]);
        assert_eq!((&**shown_port, [cpus, memory]), (port, limits), "{container}");
    }
}

/// The variables of `.env.example`.
fn defaults_of_the_example() -> BTreeMap<String, String> {
    let text = read(".env.example");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?}"));
        (name.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

/// What has been typed so far, and what runs because of it. Everything ends with it.
struct Reader {
    shell: Shell,
    /// The first one is that of the containers, the launcher or the server.
    terminals: Vec<Terminal>,
    containers: Option<Deployment>,
    names: Names,
    /// Why commands are skipped until the next start.
    skipping: Option<&'static str>,
    kills: usize,
}

impl Reader {
    fn new() -> Self {
        Self {
            shell: Shell::start(),
            terminals: Vec::new(),
            containers: None,
            names: Names::default(),
            skipping: None,
            kills: 0,
        }
    }

    fn type_in(&mut self, typed: &str, output: &[&str]) {
        if let Some((_, why)) = NOT_RUN.iter().find(|(command, _)| *command == typed) {
            eprintln!("  not run: {typed} ({why})");
            return;
        }
        if typed == "docker compose up" || typed.starts_with("cargo run --release") {
            self.skipping = self.skipping.filter(|_| typed.contains(" --server "));
        }
        if let Some(why) = self.skipping {
            eprintln!("  skipped: {typed} ({why})");
            return;
        }
        eprintln!("  $ {typed}");
        if typed == "docker compose up" {
            self.start_containers(output);
        } else if let Some(arguments) = typed.strip_prefix("cargo run --release") {
            self.start(arguments.strip_prefix(" --").unwrap_or(arguments).trim(), output);
        } else if let Some(arguments) = typed.strip_prefix(RELEASE) {
            self.start(arguments.trim(), output);
        } else if let Some(settings) = typed.strip_suffix(" resonate serve") {
            self.start_official(settings);
        } else if let Some(pattern) = typed.strip_prefix("pkill -9 -f -- ") {
            self.kill(pattern.trim_matches('\''));
        } else if typed.starts_with("docker ") {
            // Others of the user's containers must be out of reach.
            let ours = ["kill service-", "start service-", "compose up -d ", "compose down"];
            let arguments = typed.trim_start_matches("docker ");
            assert!(ours.iter().any(|known| arguments.starts_with(known)), "{typed:?} is unknown");
            assert!(self.containers.is_some(), "no containers were started before {typed:?}");
            self.kills += usize::from(typed.starts_with("docker kill "));
            if typed == "docker compose down" {
                // The reader was told to press Ctrl-C before.
                self.end_terminals();
            }
            self.run(typed, output);
        } else if ["curl ", "id=", "wait"].iter().any(|known| typed.starts_with(known)) {
            self.run(typed, output);
        } else {
            panic!("the README has a command that this test neither runs nor lists: {typed}");
        }
    }

    /// Waits until the first terminal shows these lines.
    fn look_for(&mut self, lines: &[&str]) {
        if self.skipping.is_none() {
            self.terminals.first_mut().expect("a start before").expect(lines);
        }
    }

    /// `docker compose up`, and everything that Docker is told after it, means a deployment of the
    /// test's own.
    fn start_containers(&mut self, output: &[&str]) {
        self.end();
        if !Deployment::is_wanted() {
            self.skipping = Some("it needs a Docker Engine and ASYNC_RPC_DOCKER=1");
            return;
        }
        let deployment = Deployment::build(&[]);
        for (name, value) in deployment.settings() {
            self.shell.run(&format!("export {name}='{value}'"));
        }
        self.names = Names::of_containers(&deployment);
        let mut command = deployment.compose_command(&["up"]);
        let mut terminal = Terminal::start(&mut command, self.names.clone());
        self.containers = Some(deployment);
        // Compose's code for having been interrupted.
        terminal.ends_with = Some(130);
        terminal.expect(output);
        self.terminals.push(terminal);
    }

    /// Types a command that ends. One that only asks is repeated until the answer is as expected.
    fn run(&mut self, typed: &str, output: &[&str]) {
        let command = self.names.here(typed);
        let asks = typed.starts_with("curl ") && !typed.contains(" -X ");
        let start = Instant::now();
        loop {
            let lines: Vec<String> =
                self.shell.run(&command).iter().map(|line| self.names.there(line)).collect();
            if matches(&lines, output) {
                return;
            }
            assert!(
                asks && start.elapsed() < DEADLINE,
                "$ {command}\nprinted\n{}\nand not\n{}\nThe logs:\n{}",
                lines.join("\n"),
                output.join("\n"),
                self.logs()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Starts the executable under test in a terminal of its own.
    fn start(&mut self, arguments: &str, output: &[&str]) {
        let part = arguments.split(' ').next().unwrap_or_default();
        if part == "server" || part.is_empty() {
            self.end();
            self.names = Names::of_processes([free_port(), free_port()]);
        }
        let mut words: Vec<String> =
            self.names.here(arguments).split_whitespace().map(str::to_owned).collect();
        let [gateway, server] = ["5000", "8001"].map(|port| self.names.port(port));
        let url = format!("http://127.0.0.1:{server}");
        let ports: &[&str] = match part {
            "server" => &["--listen", url.trim_start_matches("http://")],
            "gateway" => &["--port", &gateway, "--server", &url],
            _ if part.starts_with("service-") && arguments.contains("--server") => &[],
            _ if part.starts_with("service-") => &["--server", &url],
            _ => &["--port", &gateway, "--server-port", &server],
        };
        words.extend(ports.iter().map(|&word| word.to_owned()));
        let mut command = Command::new(EXECUTABLE);
        command.args(words).current_dir(root());
        // The README's reader has no Jaeger yet, and sends spans nowhere.
        command.env("PATH", path_without("jaeger")).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        let mut terminal = Terminal::start(&mut command, self.names.clone());
        terminal.expect(match part {
            _ if !output.is_empty() => output,
            // What a reader waits for without being told.
            "server" => &["… this server keeps everything in memory"],
            "--server" => &["Ctrl-C ends everything."],
            _ => &["… INFO ready instance="],
        });
        self.terminals.push(terminal);
        if part == "--server" {
            // The README only starts this one: it works if a flow does.
            self.run(
                "curl -X POST http://127.0.0.1:5000/await-chain",
                &[r#"{"message":3,"id":"await-chain","reconnected":false}"#],
            );
        }
    }

    fn start_official(&mut self, settings: &str) {
        self.end();
        let Some(executable) = std::env::var_os(OFFICIAL) else {
            self.skipping = Some("RESONATE_SERVER_BIN is not set");
            return;
        };
        self.names = Names::of_processes([free_port(), free_port()]);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(executable);
        command.arg("serve").current_dir(folder.path());
        command.envs(settings.split(' ').filter_map(|setting| setting.split_once('=')));
        command.env("RESONATE_SERVER__PORT", self.names.port("8001"));
        command.env("RESONATE_OBSERVABILITY__METRICS_PORT", "0");
        let mut terminal = Terminal::start(&mut command, self.names.clone());
        (terminal.folder, terminal.ends_with) = (Some(folder), None);
        self.terminals.push(terminal);
    }

    /// `pkill -9 -f`, among the processes of this test only: others may run the same system.
    fn kill(&mut self, pattern: &str) {
        let launcher = self.terminals.first().expect("a start before");
        let processes = launcher.processes();
        let hit: Vec<_> =
            processes.iter().filter(|(_, pid)| command_line(*pid).contains(pattern)).collect();
        let [(instance, pid)] = *hit else {
            panic!(
                "{pattern:?} is in the command lines of {hit:?}, which is not one of {processes:?}"
            )
        };
        eprintln!("  kill -9 {pid}, which is {instance}");
        signal("KILL", *pid);
        self.kills += 1;
    }

    fn end(&mut self) {
        self.end_terminals();
        if let Some(containers) = self.containers.take() {
            containers.stop().unwrap_or_else(|left| panic!("{left}"));
        }
    }

    /// Ends what runs, as Ctrl-C does.
    fn end_terminals(&mut self) {
        for terminal in self.terminals.drain(..).rev() {
            terminal.check_done_once();
            terminal.end();
        }
    }

    fn logs(&self) -> String {
        self.terminals.iter().map(Terminal::tail).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The servers last.
        while let Some(terminal) = self.terminals.pop() {
            drop(terminal);
        }
    }
}

fn check_rust(block: &Block) {
    let path = block.lines[0].strip_prefix("// ").expect("a rust block begins with its file");
    let source = read(path);
    let has = |wanted: &str| source.lines().any(|line| line.trim() == wanted.trim());
    for line in &block.lines[1..] {
        assert!(has(line), "README.md:{}: {path} has no line {line:?}", block.line);
    }
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A port that nobody listens on, below those that the system gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    loop {
        let port = 12_000 + (std::process::id() as u16).wrapping_mul(41) % 20_000 + *next % 500;
        *next += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The command line of a process, as `pkill -f` reads it.
fn command_line(pid: u32) -> String {
    let output = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output();
    let from_ps = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .map(|words| words.replace('\0', " "))
        .unwrap_or_else(|_| from_ps.unwrap_or_default())
}

fn signal(name: &str, pid: u32) {
    let kill = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// PATH without the folders that hold `program`.
fn path_without(program: &str) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).filter(|folder| !folder.join(program).exists());
    std::env::join_paths(others).expect("these came from PATH")
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
}
