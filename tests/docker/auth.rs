//! `docker/auth.yaml`: tokens for the Resonate Server and for the gateway.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use reqwest::Method;
use serde_json::json;
use testkit::{Answer, Deployment, FLOWS, Resonate, docker::output};

/// Runs `docker/auth-keys.sh` for a user whose files nobody else can read.
fn make_keys(folder: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker/auth-keys.sh");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" --days 1", script]).env("AUTH_FOLDER", folder);
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let mode = |name| folder.join(name).metadata().unwrap().permissions().mode() & 0o777;
    let modes = [".", "private.pem", "public.pem", "token", "gateway-tokens"].map(mode);
    assert_eq!(modes, [0o700, 0o600, 0o644, 0o644, 0o644]);
}

pub async fn everybody_needs_a_token_and_keys_can_be_changed(deployment: &Deployment) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_keys(folder);
    let files = deployment.settings().find(|(name, _)| *name == "COMPOSE_FILE").unwrap().1;
    let compose = |arguments: &[&str]| {
        let mut command = deployment.compose_command(arguments);
        command.env("COMPOSE_FILE", format!("{files}:docker/auth.yaml"));
        command.env("AUTH_FOLDER", folder);
        output(command)
    };
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap().trim().to_owned();
    compose(&["up", "--detach", "--no-build", "--pull", "never"]);
    deployment.ready().await;

    let http = deployment.gateway();
    http.post("/await-chain").await.expect_problem(401);
    let client = read("gateway-tokens");
    let bearer = format!("Bearer {client}");
    let ask = async |path: &str| -> Answer {
        http.send(Method::POST, path, &[("authorization", &bearer)]).await.unwrap()
    };
    for flow in FLOWS {
        ask(&format!("/{}?id=auth-{}", flow.name, flow.name)).await.expect_message(flow.message());
    }
    let server = Resonate::new(&format!("http://127.0.0.1:{}", deployment.resonate_port));
    let (status, _) = server.call("promise.get", json!({"id": "auth-await-chain"})).await;
    assert_eq!(status, 401, "the server asks for a token");
    // It fails if an answer is wrong.
    compose(&["run", "--no-deps", "--rm", "--no-TTY", "load", "--for", "1s", "--work", "0"]);

    // Another key pair: the server has the public key after its restart, everybody else the token at once.
    let first = read("token");
    std::fs::remove_file(folder.join("private.pem")).unwrap();
    make_keys(folder);
    assert_eq!(read("gateway-tokens"), client, "clients keep their token");
    deployment.docker("restart", &deployment.name("resonate"));
    deployment
        .until("a flow with the new token", async || {
            let answer = ask("/await-chain?id=auth-again").await;
            (answer.status == 200).then_some(())
        })
        .await;
    ask("/fan-out-workflow?id=auth-again-too").await.expect_message(3);

    let second = read("token");
    for container in compose(&["ps", "--all", "--quiet"]).lines() {
        let text = deployment.logs(container).join("\n");
        for secret in [&first, &second, &client] {
            let secret = secret.rsplit('.').next().unwrap();
            assert!(!text.contains(secret), "a secret was logged: {text}");
        }
    }
}
