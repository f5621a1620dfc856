//! The store is backed up and restored as docs/operations.md says.

use serde_json::json;
use testkit::{
    Deployment,
    docker::{docker, output},
};

/// A flow is started, or found if it is `known`. The gateway answers 503 until it has the server again.
async fn start(deployment: &Deployment, id: &str, known: bool) {
    let path = format!("/await-chain?id={id}");
    let answer = async || {
        let answer = deployment.gateway().post(&path).await;
        (answer.status != 503).then_some(answer)
    };
    deployment.until("the server", answer).await.expect_start(json!(3), id, known);
}

pub async fn a_backup_is_restored(deployment: &Deployment) {
    let folder = tempfile::tempdir().unwrap();
    let backup = format!("{}/backup", folder.path().display());
    let server = deployment.name("resonate");
    let data = format!("{server}:/data");

    start(deployment, "before-the-backup", false).await;
    deployment.compose(&["stop", "resonate"]);
    output(docker(&["cp", &data, &backup]));
    deployment.compose(&["start", "resonate"]);
    start(deployment, "after-the-backup", false).await;

    let volume = deployment.inspect(&server)["Mounts"][0]["Name"].as_str().unwrap().to_owned();
    deployment.compose(&["rm", "--stop", "--force", "resonate"]);
    output(docker(&["volume", "rm", &volume]));
    deployment.compose(&["up", "--no-start", "--no-deps", "resonate"]);
    output(docker(&["cp", &format!("{backup}/."), &data]));
    deployment.compose(&["start", "resonate"]);
    start(deployment, "before-the-backup", true).await;
    start(deployment, "after-the-backup", false).await;
}
