//! The terminals that the pages are typed into.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Instant,
};

use testkit::process::{signal, table};

use crate::{
    DEADLINE, POLL,
    markdown::{Mask, masked},
    names::Names,
};

/// A shell that keeps its variables and jobs from one command to the next.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: Output,
    commands: usize,
}

impl Shell {
    pub fn start(folder: &Path) -> Self {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(folder);
        for proxy in ["no_proxy", "NO_PROXY"] {
            command.env(proxy, "127.0.0.1");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = Output::collect(child.stdout.take().unwrap());
        Self { input: child.stdin.take().unwrap(), child, output, commands: 0 }
    }

    /// Runs a command: the lines that it has printed, and its exit code.
    pub fn run(&mut self, command: &str) -> (Vec<String>, i32) {
        self.commands += 1;
        let end = format!("end of command {}: ", self.commands);
        // curl prints its progress to standard error, other commands what a reader sees.
        let command = match command.contains("curl ") || command == "wait" {
            true => command.to_owned(),
            false => format!("{{ {command}\n}} 2>&1"),
        };
        writeln!(self.input, "{command}\nprintf '\\n%s%s\\n' '{end}' $?").unwrap();
        let mut lines = self.output.until(&command, |lines| {
            let at = lines.iter().position(|line| line.starts_with(&end))?;
            Some(lines.drain(..=at).collect::<Vec<_>>())
        });
        let code = lines.pop().and_then(|line| line[end.len()..].parse().ok());
        lines.retain(|line| !line.is_empty());
        (lines, code.expect("a shell knows the exit code of its last command"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal with a command that goes on until it is ended.
pub struct Terminal {
    child: Child,
    output: Output,
    names: Names,
    /// How many lines were compared with the page.
    seen: usize,
    /// The exit code that tells that it ended as told; none: it has its own ways.
    pub ends_with: Option<i32>,
    /// Where a server keeps its file.
    pub folder: Option<tempfile::TempDir>,
}

impl Terminal {
    pub fn start(command: &mut Command, names: Names) -> Self {
        let ours = ["NODE_", "GATEWAY_", "EMBEDDED_SERVER_", "OTEL_"];
        for (name, _) in std::env::vars() {
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        // Both outputs in one pipe, as in a terminal, so that their order is right.
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        // Ctrl-C in the terminal of the test does not reach it: it is ended by its process id.
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The command holds the other end of the pipe.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            child,
            output: Output::collect(reader),
            names,
            seen: 0,
            ends_with: Some(0),
            folder: None,
        }
    }

    /// Waits until each of these lines is there, in this order, behind those found before.
    /// One that begins with `…` only has to have the rest in it.
    pub fn expect(&mut self, expected: &[&str]) {
        for text in expected.iter().filter(|text| !text.is_empty() && **text != "…") {
            let wanted = masked(text, Mask::All);
            let (from, part) = (self.seen, wanted.strip_prefix("… "));
            self.seen = self.output.until(text, |lines| {
                let fits = |line: &String| {
                    let line = masked(&self.names.there(line), Mask::All);
                    part.map_or(line == wanted, |part| line.contains(part))
                };
                Some(from + lines[from..].iter().position(fits)? + 1)
            });
        }
    }

    /// Instances and process ids, as in the table that the launcher prints.
    pub fn processes(&self) -> Vec<(String, u32)> {
        table(&self.output.lines()).map(|(instance, pid, _)| (instance, pid)).collect()
    }

    /// No step was done twice, whoever was killed.
    pub fn check_done_once(&self) {
        let mut done: Vec<String> = self.output.lines();
        done.retain(|line| line.contains("step done "));
        let step = |line: &String| line.rsplit_once(" promise=").map(|(_, id)| id.to_owned());
        let mut ids: Vec<_> = done.iter().filter_map(step).collect();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "a step was done twice:\n{}", done.join("\n"));
    }

    /// Ends it with SIGTERM, and fails if it does not end well.
    pub fn end(mut self) {
        signal(self.child.id(), "TERM");
        let status = self.ended().unwrap_or_else(|| panic!("it goes on:\n{}", self.tail()));
        let expected = self.ends_with.is_none_or(|code| status.code() == Some(code));
        assert!(expected, "{status}:\n{}", self.tail());
    }

    #[expect(clippy::disallowed_methods, reason = "no runtime here, and no wait with a time-out")]
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(POLL);
        }
        None
    }

    pub fn tail(&self) -> String {
        tail(&self.output.lines()) + "\n---\n"
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its children end with it: their standard input does. It fails for what has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a process, collected by a thread.
#[derive(Clone)]
struct Output(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Output {
    fn collect(from: impl std::io::Read + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let Self(shared) = output.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                // Compose clears the rest of a line even where there is no terminal.
                let line = String::from_utf8_lossy(&line).replace("\u{1b}[K", "");
                shared.0.lock().unwrap().lines.push(line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        output
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// Waits until `find` finds something among the lines.
    fn until<T>(&self, what: &str, mut find: impl FnMut(&mut Vec<String>) -> Option<T>) -> T {
        let Self(shared) = self;
        let mut found = None;
        let collected = shared.0.lock().unwrap();
        let (collected, _) = shared
            .1
            .wait_timeout_while(collected, DEADLINE, |collected| {
                found = find(&mut collected.lines);
                found.is_none() && !collected.ended
            })
            .unwrap();
        let how = if collected.ended { "it ended without" } else { "waited in vain for" };
        let tail = tail(&collected.lines);
        drop(collected);
        found.unwrap_or_else(|| panic!("{how}\n{what}\nin\n{tail}"))
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(60)..].join("\n")
}
