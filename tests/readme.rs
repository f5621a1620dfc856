//! Runs README.md and the pages in docs: each command of their ```console blocks, in order, and
//! compares what it prints with what the page shows.
//!
//! - `$ command` is typed into one shell per page; the lines below it are its output, where `…`
//!   alone on a line stands for any lines. A command must exit with code 0. Commands that keep
//!   running (`docker compose up`, `cargo run`, a service) get a terminal of their own and must
//!   show the lines in this order, possibly among others.
//! - A ```log block is shown by the terminal of `docker compose up` or `cargo run --release`, in
//!   this order among other lines. The test continues once it is there.
//! - A ```rust block begins with the file that it quotes.
//! - A page that sends requests without having started anything assumes a running system.
//! - In docs/adding-a-service.md, which is followed in a copy of the repository, a ```diff block
//!   edits the file of its first line, and a ```rust block about services/j is that file's content.
//!
//! Ports and names of containers are replaced by free ones, and `cargo run --release` by the
//! executable under test. Ids, process ids and times are masked. What needs a Docker Engine runs
//! with `ASYNC_RPC_DOCKER=1`, on the images that `docker/offline-images.sh` has built if they are
//! there. A command that is neither run nor in [`NOT_RUN`] is a failure. So is a link without a
//! target, a file that does not exist, and a setting that no `--help` knows.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "readme/copy.rs"]
mod copy;
#[path = "readme/markdown.rs"]
mod markdown;
#[path = "readme/names.rs"]
mod names;
#[path = "readme/reader.rs"]
mod reader;
#[path = "readme/settings.rs"]
mod settings;
#[path = "readme/terminal.rs"]
mod terminal;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use testkit::{deployment::Deployment, process::skipped};

use crate::{
    copy::Copy,
    markdown::{Block, Page},
    reader::Reader,
};

/// Commands that the pages name and this test does not run.
const NOT_RUN: &[(&str, &str)] = &[
    (".ci/run", CONTRIBUTING),
    (".ci/run check", CONTRIBUTING),
    ("cargo bench", MEASURES),
    ("cargo bench -- --peers --flows 1000 --sequential 200 --json result.json", MEASURES),
    ("cargo bench -- --peers --json result.json", MEASURES),
    ("cargo bench -- --quick", MEASURES),
    ("cargo bench -- growth", MEASURES),
    ("cargo bench -- growth --settled 1000000 --gateway-flows 200000", MEASURES),
    ("cargo deny", CONTRIBUTING),
    ("cargo doc", CONTRIBUTING),
    ("cargo run --release -- --port 5001", FREE_PORTS),
    ("cargo run --release -- --restart 1s", "tests/system does"),
    ("cargo test --workspace", "this test is part of it"),
    ("cargo test -p launcher --test docker burst", "tests/docker does, with fewer flows"),
    (
        "docker buildx bake --file compose.yaml --set '*.platform=linux/amd64,linux/arm64' --set '*.attest=type=sbom' --set '*.attest=type=provenance,mode=max' --push",
        "it needs an image registry",
    ),
    ("docker buildx create --use", "it needs an image registry"),
    ("docker compose --profile load build", BUILT),
    ("docker compose --profile load push", "it needs an image registry"),
    ("docker compose --profile load up", "tests/docker runs the same container"),
    ("docker compose -f compose.yaml -f docker/auth.yaml up", "tests/docker does"),
    ("docker compose -f compose.yaml -f docker/jaeger-storage.yaml up", "it was tried by hand"),
    ("docker compose -f compose.yaml -f docker/metrics.yaml up", "it needs an image registry"),
    ("docker compose -f compose.yaml -f docker/offline.yaml up", "`docker compose up` means this"),
    ("docker compose -f compose.yaml -f docker/postgres.yaml up", "it needs an image registry"),
    ("docker compose -f compose.yaml -f docker/watch.yaml watch", "it runs until it is stopped"),
    ("docker compose build", BUILT),
    ("docker compose build service-b", BUILT),
    ("docker compose down", "the test removes its deployment in this way at its end"),
    ("docker compose down --volumes", "the test removes what it created"),
    ("docker compose restart jaeger", "it would forget the traces of other tests"),
    ("docker compose rm --stop --force resonate", BACKUP),
    ("docker compose run --rm load --for 5m", "tests/docker does, for two seconds"),
    ("docker compose start resonate", BACKUP),
    ("docker compose stop resonate", BACKUP),
    ("docker compose up --build", BUILT),
    ("docker compose up --no-start --no-deps resonate", BACKUP),
    ("docker compose up -d --build", BUILT),
    ("docker compose up -d --no-deps resonate", "it needs an image registry"),
    ("docker compose up -d --no-deps service-b", BUILT),
    ("docker compose up -d --no-deps service-b-replica", BUILT),
    ("docker compose up -d --scale service-b-replica=3", "tests/docker does"),
    ("docker compose version", "it diagnoses a problem"),
    ("docker cp ./backup-1/. resonate:/data", BACKUP),
    ("docker cp resonate:/data ./backup-1", BACKUP),
    ("docker kill gateway", "tests/docker does"),
    ("docker network connect async-rpc_inner collector", "it is about a container of the reader"),
    ("docker pause service-b", "tests/docker does"),
    (
        "docker run --rm -v async-rpc_resonate:/data --entrypoint chown resonatehqio/resonate:v0.9.8 -R 0:0 /data",
        "it repairs a volume that no test breaks",
    ),
    ("docker service scale async-rpc_service-b=4", SWARM),
    ("docker stack deploy --resolve-image never -c docker/stack.yaml async-rpc", SWARM),
    ("docker stack rm async-rpc", SWARM),
    ("docker start gateway", "tests/docker does"),
    ("docker start resonate", "tests/docker does"),
    ("docker swarm init", SWARM),
    ("docker unpause service-b", "tests/docker does"),
    ("docker volume rm async-rpc_resonate", BACKUP),
    ("docker/auth-keys.sh", "tests/docker does; tests/system checks its tokens"),
    ("docker/engine.sh", CI),
    ("docker/offline-images.sh", CI),
    ("export IMAGE_PREFIX=registry.example.com/async-rpc", "it needs an image registry"),
    ("just bench", CONTRIBUTING),
    ("just check", CONTRIBUTING),
    ("just kubernetes-test", CLUSTER),
    ("just sim", CONTRIBUTING),
    ("just sim --faults 300000", "it takes an hour"),
    ("just sim --seed 7 --log", CONTRIBUTING),
    ("just soak", "it breaks real processes for minutes"),
    ("just soak --for 10m", "it takes ten minutes"),
    ("just test", CONTRIBUTING),
    ("just up", CONTRIBUTING),
    ("kubectl -n async-rpc port-forward service/gateway 5000", CLUSTER),
    ("kubectl -n async-rpc port-forward service/jaeger 16686", CLUSTER),
    ("kubectl -n async-rpc scale deployment/service-b --replicas=4", CLUSTER),
    ("kubectl -n async-rpc wait --for=condition=Available deployment --all --timeout=5m", CLUSTER),
    ("kubectl apply -k docker/kubernetes", CLUSTER),
    ("rustup toolchain install 1.95.0", "it would download a toolchain"),
];

const BACKUP: &str = "tests/docker/backup.rs does";
const BUILT: &str = "the deployment of this test is built already";
const CI: &str = ".ci/run does";
const CLUSTER: &str = "tests/kubernetes does";
const CONTRIBUTING: &str = "CI runs the same; the_just_recipes_exist checks the names";
const FREE_PORTS: &str = "the other starts use free ports already";
const MEASURES: &str = "it measures for minutes, and a busy machine spoils it";
const SWARM: &str = "it would change the user's engine";

/// What these begin with is a command, where it stands between backticks.
const PROGRAMS: [&str; 8] =
    ["cargo ", "curl ", "docker ", "docker/", "just ", "pkill ", "rustup ", ".ci/run"];

/// How long a test waits before it fails. Nothing takes nearly as long.
const DEADLINE: Duration = Duration::from_secs(90);

/// A request that only asks is repeated this often until the answer is as expected.
const POLL: Duration = Duration::from_millis(50);

/// The pages in which a reader types commands, in addition to those that only name some.
const RUN: [&str; 6] = [
    "README.md",
    "docs/adding-a-service.md",
    "docs/configuration.md",
    "docs/http.md",
    "docs/load.md",
    "docs/without-docker.md",
];

#[test]
fn the_readme_does_what_it_says() {
    // Its crash demo kills a container.
    run("README.md", usize::from(Deployment::is_wanted()));
}

#[test]
fn the_page_without_docker_does_what_it_says() {
    run("docs/without-docker.md", 1);
}

#[test]
fn the_http_page_does_what_it_says() {
    run("docs/http.md", 0);
}

#[test]
fn the_load_page_does_what_it_says() {
    run("docs/load.md", 0);
}

#[test]
fn the_configuration_page_does_what_it_says() {
    run("docs/configuration.md", 0);
}

/// Follows the page literally, in a copy of the repository, and the new service answers.
#[test]
fn a_service_is_added_as_the_page_says() {
    if !can_read() {
        return;
    }
    let _turn = turn();
    let page = Page::read("docs/adding-a-service.md");
    let copy = Copy::of_the_repository(&page);
    let mut reader = Reader::in_copy(copy);
    reader.read(&page);
    reader.end();
}

/// All other pages name commands, but there is nothing to run.
#[test]
fn every_other_command_is_known() {
    for page in pages() {
        if !RUN.contains(&&*page.path) {
            let mut commands = page.blocks().into_iter().flat_map(|block| block.commands());
            let unknown = commands.find(|(command, _)| !is_not_run(command));
            assert!(unknown.is_none(), "{}: {unknown:?} is not run by any test", page.path);
        }
    }
}

/// Commands that the text names between backticks are run somewhere, or listed.
#[test]
fn every_named_command_is_known() {
    let pages = pages();
    let commands: BTreeSet<&str> = pages
        .iter()
        .flat_map(Page::blocks)
        .flat_map(|block| block.commands())
        .map(|(command, _)| without_settings(command))
        .collect();
    let mut named: BTreeSet<&str> = commands.clone();
    for page in &pages {
        for code in page.inline_code() {
            let command = without_settings(code);
            let is_command = PROGRAMS.iter().any(|program| command.starts_with(program));
            if is_command && !root().join(command).exists() {
                let known = commands.contains(command) || is_not_run(command);
                assert!(known, "{}: `{code}` is not run", page.path);
            }
            named.insert(command);
        }
    }
    for (command, _) in NOT_RUN {
        assert!(named.contains(command), "no page names {command} any more");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for target in page.links() {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.file() } else { page.folder().join(path) };
            let anchors = || markdown::anchors(&fs::read_to_string(&file).unwrap_or_default());
            let leads = file.exists() && (anchor.is_empty() || anchors().contains(&anchor.into()));
            if !target.contains("://") && !leads {
                broken.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

/// Every file that stands between backticks exists.
#[test]
fn every_named_file_exists() {
    let mut missing = Vec::new();
    for page in pages() {
        for code in page.inline_code() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            let first = code.split('/').next().unwrap_or_default();
            // Routes begin with a slash; what is built is not there yet.
            let is_folder = |it: &str| !["", "target"].contains(&it) && root().join(it).is_dir();
            let is_path = code.contains('/') && is_folder(first);
            let endings = [".rs", ".md", ".toml", ".yaml", ".yml", ".lock", ".sh", ".mod"];
            let is_name = endings.iter().any(|ending| code.ends_with(ending));
            // CONTRIBUTING.md has a rule about the one; a reader creates the other.
            let exempt = code == "mod.rs" || code.starts_with("services/j/");
            let exists = || [root(), page.folder()].iter().any(|it| it.join(code).exists());
            if code.chars().all(plain) && (is_path || is_name) && !exempt && !exists() {
                missing.push(format!("{}: {code}", page.path));
            }
        }
    }
    assert!(missing.is_empty(), "these files do not exist:\n{}", missing.join("\n"));
}

/// The README is for a newcomer: what does not fit belongs to a page in docs.
#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 180);
}

#[test]
fn every_page_is_linked() {
    let readme = Page::read("README.md");
    let links = readme.links();
    for page in pages() {
        let linked = page.path == "README.md" || links.contains(&&*page.path);
        assert!(linked, "README.md does not link to {}", page.path);
    }
}

/// CONTRIBUTING.md and the justfile name the same commands as CI.
#[test]
fn the_just_recipes_exist() {
    let justfile = read("justfile");
    for (command, _) in NOT_RUN {
        if let Some(recipe) = command.strip_prefix("just ") {
            let name = recipe.split(' ').next();
            let has = |line: &str| line.split([' ', ':']).next() == name;
            assert!(justfile.lines().any(has), "the justfile has no recipe {recipe}");
        }
    }
    assert!(justfile.contains(".ci/run check\n"), "`just check` is what CI runs");
    assert!(read(".ci/run").contains("cargo test --workspace"), "`just test` is what CI runs");
}

/// Reads a page as a user does: types its commands, and compares.
fn run(path: &str, kills: usize) {
    if !can_read() {
        return;
    }
    let _turn = turn();
    let mut reader = Reader::new();
    reader.read(&Page::read(path));
    reader.end();
    assert_eq!(reader.kills, kills, "each crash demo kills one process");
}

/// One page at a time: each starts some twenty processes, and its crash demo takes seconds.
fn turn() -> impl Drop {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn can_read() -> bool {
    let can = runs("curl") && runs("bash");
    if !can {
        skipped("the commands of README and docs", "they need curl and bash");
    }
    can
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
}

fn is_not_run(command: &str) -> bool {
    NOT_RUN.iter().any(|(known, _)| *known == command)
}

/// A command without what is set for it: `GATEWAY_PORT=5001 docker compose up`.
fn without_settings(command: &str) -> &str {
    match command.split_once(' ') {
        Some((setting, rest)) if setting.contains('=') => without_settings(rest),
        _ => command,
    }
}

/// README.md, the pages in docs, and what the README links to beside them.
fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    paths.sort();
    let root = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    root.into_iter().chain(paths.iter().map(|path| &**path)).map(Page::read).collect()
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Checks that the file which a ```rust block names has all of its lines.
fn check_quote(root: &Path, page: &Page, block: &Block) {
    let (path, lines) = block.file("// ");
    let source = fs::read_to_string(root.join(path)).unwrap_or_else(|it| panic!("{path}: {it}"));
    let has = |wanted: &str| source.lines().any(|line| line.trim() == wanted.trim());
    for line in lines {
        assert!(has(line), "{}:{}: {path} has no line {line:?}", page.path, block.line);
    }
}
