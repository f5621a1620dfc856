//! Settings: what the pages say about them, what `--help` says, and what the deployments use.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use crate::{markdown::Page, pages, read, reader::EXECUTABLE};

/// Prefixes of this project's own variables. Those of the deployments have others too.
const PREFIXES: [&str; 3] = ["NODE_", "GATEWAY_", "EMBEDDED_SERVER_"];

const TABLES: &str = "docs/configuration.md";

/// A setting, as `--help` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    option: String,
    default: Option<String>,
}

/// Each variable of `--help` has a row with its option and its default.
#[test]
fn every_setting_is_documented() {
    let page = Page::read(TABLES);
    let rows = rows(&page);
    for (variable, setting) in settings() {
        let row = rows.get(&*variable);
        let [option, default] = row.unwrap_or_else(|| panic!("{TABLES} has no row of {variable}"));
        assert_eq!(*option, format!("`{}`", setting.option), "the option of {variable}");
        let same = match &setting.default {
            Some(known) => default.contains(known.as_str()),
            None => !default.starts_with('`'),
        };
        assert!(same, "{variable}: {TABLES} says {default}, --help says {:?}", setting.default);
    }
}

/// Each variable that a page names is known to `--help` or to a deployment.
#[test]
fn every_named_setting_exists() {
    let (settings, deployment) = (settings(), defaults_of_the_example());
    for page in pages() {
        let words = page.text().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.collect::<BTreeSet<_>>() {
            let is_ours = PREFIXES
                .iter()
                .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()));
            let known = settings.contains_key(name) || deployment.contains_key(name);
            assert!(!is_ours || known, "{}: no setting is called {name}", page.path);
        }
    }
}

/// The example of settings names every variable of the deployments, with its default.
#[test]
fn the_example_of_settings_is_complete() {
    let example = defaults_of_the_example();
    let mut used = BTreeMap::new();
    let overlays = [
        "docker/auth.yaml",
        "docker/jaeger-storage.yaml",
        "docker/metrics.yaml",
        "docker/postgres.yaml",
        "docker/stack.yaml",
        "docker/watch.yaml",
    ];
    for file in ["compose.yaml"].into_iter().chain(overlays) {
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

/// Images, ports and limits in the table of containers are the defaults of the deployment.
#[test]
fn the_table_of_containers_is_true() {
    let example = defaults_of_the_example();
    let table = read("docs/deployment.md");
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

/// Images, limits and settings on Kubernetes are those of Compose.
#[test]
fn kubernetes_is_like_compose() {
    let example = defaults_of_the_example();
    let base = |file: &str| read(&format!("docker/kubernetes/base/{file}"));
    for (file, prefix) in [
        ("gateway.yaml", "GATEWAY"),
        ("service.yaml", "SERVICE"),
        ("resonate.yaml", "RESONATE"),
        ("jaeger.yaml", "JAEGER"),
    ] {
        let cpu = match &*example[&format!("{prefix}_CPUS")] {
            "0.5" => "500m",
            "1.0" => "\"1\"",
            other => panic!("what Kubernetes calls {other} CPUs"),
        };
        let memory = &example[&format!("{prefix}_MEMORY")];
        let limits = format!("limits: {{cpu: {cpu}, memory: {memory}i}}\n");
        assert!(base(file).contains(&limits), "{file} has no {limits}");
        if let Some(image) = example.get(&format!("{prefix}_IMAGE")) {
            assert!(base(file).contains(&format!("image: {image}\n")), "{file} has no {image}");
        }
    }
    let settings = base("settings.env");
    for line in settings.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap();
        // Everybody who reaches the gateway could press it.
        if let Some(compose) = example.get(name).filter(|_| name != "NODE_CRASH_BUTTON") {
            assert_eq!(value, compose, "{name} in settings.env");
        }
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

/// Options and defaults in the tables of a page, by variable.
fn rows(page: &Page) -> BTreeMap<&str, [&str; 2]> {
    let rows = page.text().lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let variable = cells.next()?.strip_suffix('`')?;
        Some((variable, [cells.next()?, cells.next()?]))
    });
    rows.collect()
}

/// All settings that have a variable, of every executable.
fn settings() -> BTreeMap<String, Setting> {
    let mut settings = BTreeMap::new();
    for process in ["gateway", "service-b", "server"] {
        let output = Command::new(EXECUTABLE).args([process, "--help"]).output().unwrap();
        assert!(output.status.success(), "async-rpc {process} --help: {}", output.status);
        let found = parse(&String::from_utf8(output.stdout).unwrap());
        assert!(!found.is_empty(), "async-rpc {process} --help shows no variable");
        settings.extend(found);
    }
    settings
}

/// Reads the help that clap prints: an option, and its variable and default in brackets.
fn parse(help: &str) -> BTreeMap<String, Setting> {
    let mut options: Vec<String> = Vec::new();
    for line in help.lines() {
        // `- human: For people` is a value of an option.
        let is_option = line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ");
        match (is_option, options.last_mut()) {
            (true, _) => options.push(line.to_owned()),
            (false, Some(option)) => *option += &format!(" {}", line.trim()),
            (false, None) => {}
        }
    }
    let between = |text: &str, start: &str| {
        let rest = &text[text.find(start)? + start.len()..];
        Some(rest[..rest.find(']')?].to_owned())
    };
    let setting = |text: String| {
        let variable = between(&text, "[env: ")?;
        let variable = variable.split('=').next()?.to_owned();
        let option = text.split_whitespace().find(|word| word.starts_with("--"))?;
        let default = between(&text, "[default: ");
        Some((variable, Setting { option: option.trim_end_matches(',').to_owned(), default }))
    };
    options.into_iter().filter_map(setting).collect()
}

#[test]
fn help_is_read_in_both_of_its_forms() {
    let help = "Usage: x [OPTIONS]\n\nOptions:\n  \
        --lease <DURATION>  How long [env: NODE_LEASE=] [default: 3s]\n  \
        -h, --help          Print help\n      \
        --instance <NAME>\n          Its name\n          \n          [env: NODE_INSTANCE]\n";
    let setting = |option: &str, default: Option<&str>| Setting {
        option: option.to_owned(),
        default: default.map(str::to_owned),
    };
    let expected = [
        ("NODE_LEASE".to_owned(), setting("--lease", Some("3s"))),
        ("NODE_INSTANCE".to_owned(), setting("--instance", None)),
    ];
    assert_eq!(parse(help), expected.into());
}
