//! Runs the README: each command of its ```console blocks, in their order, and looks for the
//! output that a reader is told to expect.
//!
//! - `$ command` is typed into one shell that stays the same; what follows is its output, where
//!   `…` alone on a line stands for any lines. Commands that go on (`cargo run`, a service) run in
//!   a terminal of their own, and show the lines in this order among others.
//! - A ```log block is what the terminal of `cargo run --release` shows, in this order among
//!   other lines. The test goes on when it is there.
//! - A ```rust block begins with the file that its lines are in.
//!
//! Ports are replaced by free ones and `cargo run --release` by the executable under test. Ids,
//! process ids and times are masked. A command that is neither run nor in [`NOT_RUN`] is a failure.

#[path = "readme/markdown.rs"]
mod markdown;
#[path = "readme/terminal.rs"]
mod terminal;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    markdown::{Block, blocks, inline_code, matches},
    terminal::{Shell, Terminal},
};

/// Commands that the README names and this test does not run.
const NOT_RUN: [(&str, &str); 4] = [
    ("cargo test --workspace", "this test is part of it"),
    ("cargo bench", "it measures for minutes, and a busy machine spoils it"),
    ("cp -r services/i services/j", "it would change the checkout"),
    ("cargo run --release -- --port 5001", "the other starts take free ports already"),
];

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
    let readme = readme();
    let mut reader = Reader::new();
    for block in blocks(&readme) {
        eprintln!("README.md:{}", block.line);
        match block.language {
            "console" => {
                block.commands().for_each(|(command, output)| reader.type_in(command, &output))
            }
            "log" => reader.terminals.first_mut().expect("a start before").expect(&block.lines),
            "rust" => check_rust(&block),
            "mermaid" => {}
            other => panic!("README.md:{}: a block of {other:?} would go unchecked", block.line),
        }
    }
    assert_eq!(reader.kills, 1, "the crash demo kills one process");
    reader.end();
}

/// Commands, files and settings that the text names stand between backticks.
#[test]
fn what_the_readme_names_is_there() {
    let readme = readme();
    let commands: Vec<&str> =
        blocks(&readme).iter().flat_map(Block::commands).map(|(command, _)| command).collect();
    let source = ["node/src/config.rs", "node/src/logging.rs", "gateway/src/config.rs"]
        .map(|file| fs::read_to_string(root().join("services").join(file)).unwrap())
        .concat();
    for code in inline_code(&readme) {
        let first = code.split([' ', '=']).next().unwrap_or_default();
        if ["cargo", "curl", "pkill"].contains(&first) && code != first {
            let known = commands.contains(&code) || NOT_RUN.iter().any(|(known, _)| *known == code);
            assert!(known, "the README names `{code}`, which is neither run nor in NOT_RUN");
        }
        if ["services/", "tests/", ".ci/"].iter().any(|folder| code.starts_with(folder)) {
            let made_by_reader = code.starts_with("services/j");
            assert!(made_by_reader || root().join(code).exists(), "there is no {code}");
        }
        if let Some((_, key)) =
            ["NODE_", "GATEWAY_"].iter().find_map(|&p| Some((p, first.strip_prefix(p)?)))
        {
            let key = key.to_lowercase();
            assert!(
                key == "config_file" || source.contains(&format!("\"{key}\"")),
                "no setting is called {first}"
            );
        }
    }
}

/// What has been typed so far, and what runs because of it. Everything ends with it.
struct Reader {
    shell: Shell,
    /// The first one is that of the launcher or server.
    terminals: Vec<Terminal>,
    gateway: u16,
    server: u16,
    /// The official server is not at hand, nor what the README runs on it.
    skipping: bool,
    kills: usize,
}

impl Reader {
    fn new() -> Self {
        Self {
            shell: Shell::start(),
            terminals: Vec::new(),
            gateway: 0,
            server: 0,
            skipping: false,
            kills: 0,
        }
    }

    fn type_in(&mut self, typed: &str, output: &[&str]) {
        if let Some((_, why)) = NOT_RUN.iter().find(|(command, _)| *command == typed) {
            eprintln!("  not run: {typed} ({why})");
            return;
        }
        eprintln!("  $ {typed}");
        if let Some(arguments) = typed.strip_prefix("cargo run --release") {
            self.start(arguments.strip_prefix(" --").unwrap_or(arguments).trim(), output);
        } else if let Some(arguments) = typed.strip_prefix(RELEASE) {
            self.start(arguments.trim(), output);
        } else if let Some(settings) = typed.strip_suffix(" resonate serve") {
            self.start_official(settings);
        } else if let Some(pattern) = typed.strip_prefix("pkill -9 -f -- ") {
            self.kill(pattern.trim_matches('\''));
        } else if ["curl ", "id=", "wait"].iter().any(|known| typed.starts_with(known)) {
            self.run(typed, output);
        } else {
            panic!("the README has a command that this test neither runs nor lists: {typed}");
        }
    }

    /// Types a command that ends. One that only asks is repeated until the answer is as expected.
    fn run(&mut self, typed: &str, output: &[&str]) {
        let command = self.with_ports(typed);
        let asks = typed.starts_with("curl ") && !typed.contains(" -X ");
        let start = Instant::now();
        loop {
            let lines: Vec<String> =
                self.shell.run(&command).iter().map(|line| self.as_in_readme(line)).collect();
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
        if self.skipping && part.starts_with("--server") {
            return;
        }
        if part == "server" || part.is_empty() {
            self.end();
            self.server = free_port();
            self.gateway = free_port();
        }
        let mut words: Vec<String> =
            self.with_ports(arguments).split_whitespace().map(str::to_owned).collect();
        let (gateway, server) = (self.gateway.to_string(), self.server.to_string());
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
        let mut terminal = Terminal::start(&mut command, [self.gateway, self.server]);
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
            eprintln!("  skipped: {OFFICIAL} is not set");
            self.skipping = true;
            return;
        };
        self.server = free_port();
        self.gateway = free_port();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(executable);
        command.arg("serve").current_dir(folder.path());
        command.envs(settings.split(' ').filter_map(|setting| setting.split_once('=')));
        command.env("RESONATE_SERVER__PORT", self.server.to_string());
        command.env("RESONATE_OBSERVABILITY__METRICS_PORT", "0");
        let mut terminal = Terminal::start(&mut command, [self.gateway, self.server]);
        terminal.folder = Some(folder);
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

    /// Ends what runs, as Ctrl-C does.
    fn end(&mut self) {
        for terminal in self.terminals.drain(..).rev() {
            terminal.check_done_once();
            terminal.end();
        }
    }

    fn with_ports(&self, text: &str) -> String {
        text.replace(":5000", &format!(":{}", self.gateway))
            .replace(":8001", &format!(":{}", self.server))
    }

    fn as_in_readme(&self, text: &str) -> String {
        as_in_readme(text, [self.gateway, self.server])
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
    let source = fs::read_to_string(root().join(path)).unwrap();
    let has = |wanted: &str| source.lines().any(|line| line.trim() == wanted.trim());
    for line in &block.lines[1..] {
        assert!(has(line), "README.md:{}: {path} has no line {line:?}", block.line);
    }
}

/// A line as the README has it: its ports, and its name of the executable.
fn as_in_readme(text: &str, [gateway, server]: [u16; 2]) -> String {
    let root = root();
    let short = Path::new(EXECUTABLE).strip_prefix(&root).unwrap_or(Path::new(EXECUTABLE));
    text.replace(&format!(":{gateway}"), ":5000")
        .replace(&format!(":{server}"), ":8001")
        .replace(EXECUTABLE, RELEASE)
        .replace(&short.display().to_string(), RELEASE)
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
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
