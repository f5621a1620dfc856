//! The parts of a page, and how what it shows is compared with what is there.

use std::path::PathBuf;

use crate::{read, root};

/// A page of README and docs.
pub struct Page {
    /// Its path in the repository.
    pub path: String,
    text: String,
}

/// A fenced block of a page.
pub struct Block<'a> {
    /// Where its first line is.
    pub line: usize,
    pub language: &'a str,
    pub lines: Vec<&'a str>,
}

impl Page {
    pub fn read(path: &str) -> Self {
        Self { path: path.to_owned(), text: read(path) }
    }

    pub fn file(&self) -> PathBuf {
        root().join(&self.path)
    }

    /// The folder that relative links start from.
    pub fn folder(&self) -> PathBuf {
        self.file().parent().unwrap().to_owned()
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    open = Some(Block { line: number + 2, language, lines: Vec::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.lines.push(line),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{} ends inside a block", self.path);
        blocks
    }

    /// What stands between single backticks, outside blocks.
    pub fn inline_code(&self) -> Vec<&str> {
        let lines = prose(&self.text);
        lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// The targets of all links and images.
    pub fn links(&self) -> Vec<&str> {
        let after = prose(&self.text).flat_map(|line| line.split("](").skip(1));
        after.filter_map(|rest| rest.split(')').next()).collect()
    }
}

impl<'a> Block<'a> {
    /// The commands of a ```console block, each with its output.
    pub fn commands(&self) -> Vec<(&'a str, Vec<&'a str>)> {
        let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in self.lines.iter().filter(|_| self.language == "console") {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, output))) => output.push(line),
                (None, None) => panic!("line {}: no command before {line:?}", self.line),
            }
        }
        commands
    }

    /// The file in the block's first line, after `mark`, and the other lines.
    pub fn file(&self, mark: &str) -> (&'a str, &[&'a str]) {
        let (first, lines) = self.lines.split_first().expect("a block has lines");
        let path = first.strip_prefix(mark);
        (path.unwrap_or_else(|| panic!("line {}: no file in {first:?}", self.line)), lines)
    }
}

/// The lines outside blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// The anchors of a page's headings, as GitHub makes them.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Whether these lines are the expected ones; `…` stands for any number of lines.
pub fn matches(lines: &[String], expected: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"…", rest)) => (0..=lines.len()).any(|skipped| matches(&lines[skipped..], rest)),
        Some((&"", rest)) => matches(lines, rest),
        Some((first, rest)) => lines.split_first().is_some_and(|(line, lines)| {
            masked(line, Mask::Long) == masked(first, Mask::Long) && matches(lines, rest)
        }),
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Mask {
    /// Each number but a run's version: in logs, whose steps and ids differ.
    All,
    /// Numbers of more than one digit: in answers, where the result counts.
    Long,
}

/// The ids of containers, traces and spans are hexadecimal and have at least this many digits.
const SHORTEST_ID: usize = 12;

/// A line without what differs from one time to the next, and with single spaces.
pub fn masked(line: &str, mask: Mask) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(|word| {
        let id = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { word.replace(id, "#") } else { word.to_owned() }
    });
    let line: String = words.collect();
    if line.bytes().all(|byte| byte.is_ascii_digit()) {
        return line;
    }
    let mut text = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        text += before;
        let keep = match mask {
            // A result is a short number; ids, ports and process ids are longer.
            Mask::Long => end <= 2,
            Mask::All => text.ends_with("version="),
        };
        text += if keep { &number[..end] } else { "#" };
        rest = &number[end..];
    }
    text + rest
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# A title\n```\n# no heading\n```\n## What Compose starts, and `--help`\n";
    assert_eq!(anchors(text), ["a-title", "what-compose-starts-and---help"]);
}

#[test]
fn only_what_varies_is_masked() {
    let answer = r#"{"message":42,"id":"crash-1795534160","trace_id":"272afa572ed3e847"}"#;
    let expected = r##"{"message":42,"id":"crash-#","trace_id":"#"}"##;
    assert_eq!(masked(answer, Mask::Long), expected);
    assert_eq!(masked("work 2/8  version=1 pid=7", Mask::All), "work #/# version=1 pid=#");
}
