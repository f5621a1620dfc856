//! What `docker compose config` makes of compose.yaml and its overlays. It starts nothing and needs no
//! engine, only the `docker` command with Compose; without it, each test says that it is skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testkit::{
    docker::{docker, output},
    process::skipped,
};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// compose.yaml with overlays and variables, as JSON. `None`, and a line that says so, without Compose.
fn config(overlays: &[&str], variables: &[(&str, &str)]) -> Option<Value> {
    if !docker(&["compose", "version"]).output().is_ok_and(|output| output.status.success()) {
        skipped("compose.yaml", "it needs docker compose");
        return None;
    }
    let mut command: Command = docker(&["compose", "--profile", "load", "-f", "compose.yaml"]);
    for overlay in overlays {
        command.args(["-f", overlay]);
    }
    command.args(["config", "--format", "json"]).current_dir(root());
    // Ignores the user's .env.
    command.env("COMPOSE_ENV_FILES", "/dev/null").envs(variables.iter().copied());
    Some(serde_json::from_str(&output(command)).unwrap())
}

/// The services of a configuration, by name.
fn services(config: &Value) -> impl Iterator<Item = (&str, &Value)> {
    config["services"].as_object().unwrap().iter().map(|(name, service)| (&**name, service))
}

const OVERLAYS: [&str; 4] = [
    "docker/jaeger-storage.yaml",
    "docker/metrics.yaml",
    "docker/offline.yaml",
    "docker/postgres.yaml",
];

/// A bind mount needs files that the user of the container may read, and an engine on this machine.
#[test]
fn nothing_is_mounted_from_this_machine() {
    let Some(config) = config(&OVERLAYS, &[]) else { return };
    for (name, service) in services(&config) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            assert_eq!(volume["type"], "volume", "{name}: {volume}");
        }
        assert_eq!(service["configs"], Value::Null, "{name}");
    }
}

/// Docker copies the proxies of a user's config.json into every container, unless they are set there.
#[test]
fn no_container_uses_a_proxy() {
    let Some(config) = config(&OVERLAYS[..2], &[]) else { return };
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let names = names.iter().flat_map(|name| [(*name).to_owned(), name.to_lowercase()]);
    let names: Vec<_> = names.collect();
    for (name, service) in services(&config) {
        for proxy in &names {
            assert_eq!(service["environment"][proxy], "", "{proxy} of {name}");
        }
    }
}

#[test]
fn ports_and_links_follow_the_published_address_and_the_public_host() {
    let variables = [("PUBLISH_ADDRESS", "0.0.0.0"), ("PUBLIC_HOST", "box.example")];
    let Some(config) = config(&["docker/metrics.yaml"], &variables) else { return };
    let ports = services(&config).flat_map(|(_, service)| service["ports"].as_array());
    let addresses: Vec<_> = ports.flatten().map(|port| &port["host_ip"]).collect();
    assert_eq!(addresses, ["0.0.0.0"; 5]);
    let link = &config["services"]["gateway"]["environment"]["GATEWAY_JAEGER_URL"];
    assert_eq!(link, "http://box.example:16686");
    let greeting =
        config["services"]["service-i"]["environment"]["NODE_GREETING"].as_str().unwrap();
    assert!(greeting.contains("http://box.example:5000 "), "{greeting}");
    assert!(greeting.ends_with("http://box.example:16686"), "{greeting}");
    assert_eq!(greeting.lines().count(), 1, "{greeting}");
}

/// A kernel without CPU quota refuses containers with a CPU limit.
#[test]
fn limits_can_be_turned_off() {
    let limits = |config: &Value| -> BTreeMap<String, Value> {
        let limit = |service: &Value| service["deploy"]["resources"]["limits"]["cpus"].clone();
        services(config).map(|(name, service)| (name.to_owned(), limit(service))).collect()
    };
    let Some(limited) = config(&[], &[]) else { return };
    assert!(limits(&limited).values().all(Value::is_number), "{:?}", limits(&limited));
    for (name, service) in services(&limited) {
        assert_eq!(service["ulimits"]["nofile"]["hard"], 16384, "{name}");
    }
    let names = ["SERVICE", "GATEWAY", "RESONATE", "JAEGER", "LOAD"];
    let names: Vec<_> = names.iter().map(|name| format!("{name}_CPUS")).collect();
    let zero: Vec<_> = names.iter().map(|name| (&**name, "0")).collect();
    let unlimited = limits(&config(&[], &zero).unwrap());
    assert!(unlimited.values().all(|limit| limit.is_null() || limit == 0), "{unlimited:?}");
}

/// If a port or a name is taken, Compose says so before a service is up.
#[test]
fn every_port_is_published_before_a_service_starts() {
    let Some(config) = config(&[], &[]) else { return };
    let waits = |service: &str, on: &str| {
        let condition = &config["services"][service]["depends_on"][on]["condition"];
        condition.as_str().unwrap_or_default().to_owned()
    };
    let published =
        services(&config).filter(|(_, service)| service["ports"].is_array()).map(|(name, _)| name);
    assert_eq!(published.collect::<Vec<_>>(), ["gateway", "jaeger", "resonate"]);
    for port in ["jaeger", "resonate"] {
        assert_eq!(waits("gateway", port), "service_started");
    }
    for (name, _) in services(&config).filter(|(name, _)| name.starts_with("service-")) {
        assert!(waits(name, "gateway").starts_with("service_"), "{name}");
        assert_eq!(waits(name, "resonate"), "service_healthy", "{name}");
        if name != "service-i" {
            assert_eq!(waits("service-i", name), "service_healthy", "the greeting comes last");
        }
    }
}

/// A service that is edited is rebuilt as it was built, and both of its processes are replaced.
#[test]
fn watch_rebuilds_both_processes_of_each_service() {
    let Some(config) = config(&["docker/watch.yaml"], &[]) else { return };
    let services = &config["services"];
    for group in testkit::flows::groups() {
        let (first, replica) = (&services[group], &services[&format!("{group}-replica")]);
        for of_both in ["image", "build", "develop"] {
            assert_eq!(first[of_both], replica[of_both], "{of_both} of {group}");
        }
    }
    for (name, service) in services.as_object().unwrap() {
        let watched = service["develop"]["watch"].as_array().into_iter().flatten();
        let paths: Vec<_> = watched.map(|it| Path::new(it["path"].as_str().unwrap())).collect();
        assert!(paths.iter().all(|path| path.is_dir()), "{name}: {paths:?}");
        assert_eq!(paths.len() == 3, name == "gateway" || name.starts_with("service-"), "{name}");
    }
}
