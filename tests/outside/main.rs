//! The packages, used by an application outside this workspace: it builds, and a flow on the SDK's own
//! network is one whole trace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{Collector, Mode, Span, free_port};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs a command and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    assert!(!err.contains("manifest has no"), "{err}");
    out
}

/// The folder of what is built.
fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).args(arguments).arg("--offline");
    // What is built already is shared, as far as it is the same.
    command.env("CARGO_TARGET_DIR", target());
    command
}

/// Packages the crates and unpacks them where the application finds them. Returns the application.
fn application() -> PathBuf {
    let folder = target().join("outside");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("src")).unwrap();
    let packages = ["resonate-wire", "resonate-otel"];
    // The application builds them.
    let mut package = cargo(&root(), &["package", "--allow-dirty", "--no-verify"]);
    run(package.args(packages.iter().flat_map(|package| ["-p", package])));
    let app = root().join("tests/outside/app");
    let mut manifest = fs::read_to_string(app.join("Cargo.toml")).unwrap();
    manifest.push_str("\n[patch.crates-io]\n");
    for package in packages {
        let unpacked = format!("{package}-{}", env!("CARGO_PKG_VERSION"));
        let packed = target().join(format!("package/{unpacked}.crate"));
        // Unpacked as new files: those in a package are older than any build.
        run(Command::new("tar").arg("xmzf").arg(packed).arg("-C").arg(&folder));
        manifest.push_str(&format!("{package} = {{ path = \"{unpacked}\" }}\n"));
    }
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(app.join("src/main.rs"), folder.join("src/main.rs")).unwrap();
    // The versions that this workspace is tested with, which are on this machine.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    folder
}

/// Each span with the one above it; runs, of which there can be several, once.
fn tree(spans: &[Span]) -> Vec<String> {
    let names: BTreeMap<_, _> = spans.iter().map(|span| (&span.id, span)).collect();
    let name = |span: &Span| span.name.replace(span.instance(), "shop");
    let above = |span: &Span| match span.parent.as_ref().map(|parent| names.get(parent)) {
        Some(Some(parent)) => name(parent),
        Some(None) => "nothing that arrived".to_owned(),
        None => "the root".to_owned(),
    };
    let mut tree: Vec<_> = spans
        .iter()
        .map(|span| format!("{} [{}] < {}", name(span), span.kind, above(span)))
        .collect();
    tree.sort();
    tree.dedup();
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_outside_the_workspace_gets_whole_traces() {
    let folder = application();
    run(&mut cargo(&folder, &["build", "--quiet"]));
    let collector = Collector::start(free_port(), Mode::Accept);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(embedded_server::run(listener, Default::default(), std::future::pending()));

    let mut shop = cargo(&folder, &["run", "--quiet"]);
    shop.env("COLLECTOR", collector.endpoint()).env("SERVER", server);
    let lines = tokio::task::spawn_blocking(move || run(&mut shop)).await.unwrap();
    assert!(lines.lines().any(|line| line == "answer 7"), "{lines}");
    // At its end, the application has sent everything.
    let spans = collector.spans();
    let trace = &spans.first().unwrap_or_else(|| panic!("no span arrived\n{lines}")).trace;
    assert!(spans.iter().all(|span| span.trace == *trace), "{spans:#?}");
    let mut tree = tree(&spans);
    // It had another run if it was suspended.
    tree.retain(|span| !span.starts_with("order on shop [internal]"));
    assert_eq!(
        tree,
        [
            "POST /charges [client] < charge the card",
            "charge the card [internal] < rpc order",
            "order [internal] < rpc order",
            "order on shop [consumer] < rpc order",
            "pack [internal] < rpc pack",
            "pack on shop [consumer] < rpc pack",
            "rpc order [producer] < the root",
            "rpc pack [producer] < rpc order",
        ]
    );
    let charged = lines.lines().find(|line| line.contains("charged")).unwrap();
    let span = spans.iter().find(|span| span.name == "POST /charges").unwrap();
    assert!(charged.contains(&span.id) && charged.contains(&span.trace), "{charged}");
}
