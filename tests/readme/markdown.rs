//! The README's blocks, and how what they show is compared with what is there.

/// A fenced block of the README.
pub struct Block<'a> {
    /// Where its first line is.
    pub line: usize,
    pub language: &'a str,
    pub lines: Vec<&'a str>,
}

impl<'a> Block<'a> {
    /// The commands of a ```console block, each with its output.
    pub fn commands(&self) -> impl Iterator<Item = (&'a str, Vec<&'a str>)> {
        let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in self.lines.iter().filter(|_| self.language == "console") {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, output))) => output.push(line),
                (None, None) => panic!("README.md:{}: no command before {line:?}", self.line),
            }
        }
        commands.into_iter()
    }
}

pub fn blocks(readme: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { line: number + 2, language, lines: Vec::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the README ends inside of a block");
    blocks
}

/// What stands between single backticks, outside of blocks.
pub fn inline_code(readme: &str) -> Vec<&str> {
    let mut inside = false;
    let text = readme.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    text.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
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

/// The ids of containers, traces and spans are hexadecimal, and have at least so many digits.
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
        let keep = if mask == Mask::Long { end == 1 } else { text.ends_with("version=") };
        text += if keep { &number[..end] } else { "#" };
        rest = &number[end..];
    }
    text + rest
}
