//! Somebody who reads a page and does what it says.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use testkit::{
    Deployment, Server, free_port,
    process::{command_line, signal},
};

use crate::{
    DEADLINE, NOT_RUN, POLL, check_quote,
    copy::Copy,
    markdown::{Page, matches},
    names::{Names, RELEASE},
    root,
    terminal::{Shell, Terminal},
};

/// The executable of the launcher under test.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_async-rpc");

/// The last line that the launcher prints when the system is up.
const UP: &str = "Press Ctrl-C to stop everything.";

/// The command of the load generator, which ends by itself.
const LOAD: &str = " load ";

/// Commands of these beginnings are typed into the shell, and end.
const SHELL: [&str; 7] = ["curl ", "id=", "wait", "cp ", "perl ", "NODE_", RELEASE];

/// What has been typed so far, and what runs because of it. Everything ends with it.
pub struct Reader {
    shell: Shell,
    /// The first one is that of the containers, the launcher or the server.
    terminals: Vec<Terminal>,
    containers: Option<Deployment>,
    names: Names,
    root: PathBuf,
    /// Where the page is followed if it tells to edit files.
    copy: Option<Copy>,
    /// Why commands are skipped until the next start.
    skipping: Option<&'static str>,
    /// How many processes the page has killed.
    pub kills: usize,
}

impl Reader {
    /// Somebody in the root of the repository, who uses the executable under test.
    pub fn new() -> Self {
        Self::at(root(), None)
    }

    /// Somebody in a copy of the repository, who may edit it.
    pub fn in_copy(copy: Copy) -> Self {
        Self::at(copy.root.clone(), Some(copy))
    }

    fn at(root: PathBuf, copy: Option<Copy>) -> Self {
        Self {
            shell: Shell::start(&root),
            terminals: Vec::new(),
            containers: None,
            names: Names::of(Path::new(EXECUTABLE)),
            root,
            copy,
            skipping: None,
            kills: 0,
        }
    }

    /// Does what a page says, from its first block to its last.
    pub fn read(&mut self, page: &Page) {
        for block in page.blocks() {
            eprintln!("{}:{}", page.path, block.line);
            match (block.language, &self.copy) {
                ("console", _) => {
                    for (command, output) in block.commands() {
                        self.type_in(command, &output);
                    }
                }
                ("log", _) => self.look_for(&block.lines),
                ("rust", Some(copy)) if Copy::is_new(&block) => copy.write(&block),
                ("diff", Some(copy)) => copy.apply(&block),
                ("rust", _) => check_quote(&self.root, page, &block),
                ("mermaid", _) => {}
                (other, _) => {
                    panic!("{}:{}: nothing checks a block of {other:?}", page.path, block.line)
                }
            }
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
            if let Some(copy) = &self.copy {
                self.names = Names::of(&copy.build());
            }
            self.start(arguments.strip_prefix(" --").unwrap_or(arguments).trim(), output);
        } else if let Some(arguments) = typed.strip_prefix(RELEASE)
            && !typed.ends_with(" --help")
            && !arguments.starts_with(LOAD)
        {
            self.start(arguments.trim(), output);
        } else if let Some(settings) = typed.strip_suffix(" resonate serve") {
            self.start_official(settings);
        } else if let Some(pattern) = typed.strip_prefix("pkill -9 -f -- ") {
            self.kill(pattern.trim_matches('\''));
        } else if typed.starts_with("docker ") {
            self.docker(typed, output);
        } else if SHELL.iter().any(|known| typed.starts_with(known)) {
            let is_request = typed.starts_with("curl ") || typed.contains(LOAD);
            if is_request && self.terminals.is_empty() {
                eprintln!("  (the page assumes that the system is running)");
                self.start("", &[]);
            }
            self.run(typed, output);
        } else {
            panic!("this test neither runs nor lists {typed:?}");
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
        self.names = self.names.with_containers(&deployment);
        let mut command = deployment.compose_command(&["up"]);
        let mut terminal = Terminal::start(&mut command, self.names.clone());
        self.containers = Some(deployment);
        // Compose's code for having been interrupted.
        terminal.ends_with = Some(130);
        terminal.expect(output);
        self.terminals.push(terminal);
    }

    fn docker(&mut self, typed: &str, output: &[&str]) {
        // Others of the user's containers must be out of reach.
        let ours = ["kill service-", "start service-"];
        let arguments = typed.trim_start_matches("docker ");
        assert!(ours.iter().any(|known| arguments.starts_with(known)), "{typed:?} is unknown");
        assert!(self.containers.is_some(), "no containers were started before {typed:?}");
        self.kills += usize::from(arguments.starts_with("kill "));
        self.run(typed, output);
    }

    /// Types a command that ends, and must end well. One that only asks is repeated until the
    /// answer is as expected.
    #[expect(clippy::disallowed_methods, reason = "no runtime here; the answer has no event")]
    fn run(&mut self, typed: &str, output: &[&str]) {
        let mut command = self.names.here(typed);
        if typed.contains(LOAD) {
            command += &format!(" --gateway http://127.0.0.1:{}", self.names.port("5000"));
        }
        let asks = typed.starts_with("curl ") && !typed.contains(" -X ");
        let start = Instant::now();
        loop {
            let (lines, code) = self.shell.run(&command);
            let lines: Vec<String> = lines.iter().map(|line| self.names.there(line)).collect();
            assert_eq!(code, 0, "the exit code of {command}, which printed\n{}", lines.join("\n"));
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
            self.names = self.names.with_ports([free_port(), free_port()]);
        }
        let mut words: Vec<String> =
            self.names.here(arguments).split_whitespace().map(str::to_owned).collect();
        let [gateway, server] = ["5000", "8001"].map(|port| self.names.port(port));
        let [gateway_address, server_address] =
            [&gateway, &server].map(|port| format!("127.0.0.1:{port}"));
        let url = format!("http://{server_address}");
        let ports: &[&str] = match part {
            "server" => &["--listen", &server_address],
            "gateway" => &["--listen", &gateway_address, "--server", &url],
            _ if part.starts_with("service-") && arguments.contains("--server") => &[],
            _ if part.starts_with("service-") => &["--server", &url],
            _ => &["--port", &gateway, "--server-port", &server],
        };
        words.extend(ports.iter().map(|&word| word.to_owned()));
        let mut command = Command::new(self.names.here(RELEASE));
        command.args(words).current_dir(&self.root);
        // The reader has no Jaeger yet, and sends spans nowhere.
        command.env("PATH", path_without("jaeger"));
        let mut terminal = Terminal::start(&mut command, self.names.clone());
        terminal.expect(match part {
            _ if !output.is_empty() => output,
            // What a reader waits for without being told.
            "server" => &["… embedded Resonate server: state is in memory and lost on restart"],
            "" | "--server" => &[UP],
            _ => &["… INFO ready instance="],
        });
        self.terminals.push(terminal);
        if part == "--server" {
            // The page only starts this one: it works if a flow does.
            self.run(
                "curl -X POST http://127.0.0.1:5000/await-chain",
                &[r#"{"message":3,"id":"await-chain","reconnected":false}"#],
            );
        }
    }

    fn start_official(&mut self, settings: &str) {
        self.end();
        let Some(executable) = Server::official_executable() else {
            self.skipping = Some("RESONATE_SERVER_BIN is not set");
            return;
        };
        self.names = self.names.with_ports([free_port(), free_port()]);
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
            panic!("{pattern:?} matches {hit:?}, which is not one of {processes:?}")
        };
        eprintln!("  kill -9 {pid}, which is {instance}");
        signal(*pid, "KILL");
        self.kills += 1;
    }

    /// Ends everything that the page has started, and fails if any of it does not end well.
    pub fn end(&mut self) {
        self.end_terminals();
        if let Some(containers) = self.containers.take() {
            containers.stop().expect("nothing is left");
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

/// PATH without the folders that hold `program`.
fn path_without(program: &str) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).filter(|folder| !folder.join(program).exists());
    std::env::join_paths(others).expect("these came from PATH")
}
