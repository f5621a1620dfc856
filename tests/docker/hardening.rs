//! What a container may do, how large it is, and who can reach it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{
    Deployment,
    docker::{docker, output},
};

/// The limit of what an image of ours may add to its base, in bytes.
const LAYER: u64 = 12 * 1024 * 1024;

fn service(container: &Value) -> &str {
    container["Config"]["Labels"]["com.docker.compose.service"].as_str().unwrap()
}

/// Whether a container is the gateway or a service.
fn is_ours(container: &Value) -> bool {
    !matches!(service(container), "resonate" | "jaeger")
}

pub async fn containers_have_no_rights_and_limits(deployment: &Deployment) {
    let containers = deployment.inspect_all();
    assert_eq!(containers.len(), 21, "a gateway, nine services twice, a server and Jaeger");
    for container in &containers {
        let (service, host) = (service(container), &container["HostConfig"]);
        assert_eq!(host["ReadonlyRootfs"], true, "{service}");
        assert_eq!(host["CapDrop"], json!(["ALL"]), "{service}");
        assert!(matches!(&host["CapAdd"], Value::Null), "{service}: {}", host["CapAdd"]);
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]), "{service}");
        assert_eq!(host["Privileged"], false, "{service}");
        assert_eq!(host["RestartPolicy"]["Name"], "no", "{service}");
        assert!(!host["Init"].as_bool().unwrap_or_default(), "{service}");
        for limit in ["Memory", "NanoCpus", "PidsLimit"] {
            assert!(host[limit].as_i64().is_some_and(|limit| limit > 0), "{service} {limit}");
        }
        assert_eq!(host["Ulimits"][0]["Name"], "nofile", "{service}");
        assert!(host["LogConfig"]["Config"]["max-size"].is_string(), "{service}");
        assert_eq!(container["State"]["OOMKilled"], false, "{service}");
        if is_ours(container) {
            assert_eq!(container["Config"]["User"], "65532:65532", "{service}");
            assert_eq!(container["State"]["Health"]["Status"], "healthy", "{service}");
            assert_eq!(container["Mounts"], json!([]), "{service}");
        }
        // What the kernel says about its first process: not root, no capabilities.
        let pid = &container["State"]["Pid"];
        if let (true, Ok(status)) =
            (is_ours(container), std::fs::read_to_string(format!("/proc/{pid}/status")))
        {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
            };
            assert_eq!(field("Uid:"), "65532 65532 65532 65532", "{service}");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                assert_eq!(field(set), "0000000000000000", "{service} {set}");
            }
            assert_eq!(field("NoNewPrivs:"), "1", "{service}");
        }
    }
    // There is no shell.
    let name = deployment.name("service-b");
    let shell = docker(&["exec", &name, "/bin/sh", "-c", "true"]).output().unwrap();
    assert!(!shell.status.success(), "a shell in service-b");
}

pub async fn layers_are_small(deployment: &Deployment) {
    let images: BTreeSet<String> = deployment
        .inspect_all()
        .iter()
        .filter(|container| is_ours(container))
        .map(|container| container["Config"]["Image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(images.len(), 10);
    for image in images {
        let arguments =
            ["history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", &image];
        let history = output(docker(&arguments));
        // Our instructions precede the first empty one, which belongs to the base.
        let ours = history.lines().take_while(|line| !line.ends_with(' '));
        let size = ours
            .filter(|line| line.contains("/app"))
            .map(|line| line.split(' ').next().and_then(|size| size.parse::<u64>().ok()).unwrap());
        let size: u64 = size.sum();
        assert!((1..=LAYER).contains(&size), "{image}: {size} bytes in\n{history}");
    }
}

pub async fn nothing_else_is_reachable(deployment: &Deployment) {
    let containers = deployment.inspect_all();
    let published: BTreeSet<String> = containers
        .iter()
        .flat_map(|container| container["HostConfig"]["PortBindings"].as_object().unwrap().values())
        .flat_map(|bindings| bindings.as_array().unwrap())
        .map(|binding| {
            format!(
                "{}:{}",
                binding["HostIp"].as_str().unwrap(),
                binding["HostPort"].as_str().unwrap()
            )
        })
        .collect();
    let ours = [deployment.gateway_port, deployment.jaeger_port, deployment.resonate_port];
    let expected = ours.iter().map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(published, expected.collect());

    let own = outward_address();
    for port in ours {
        assert!(is_open(IpAddr::from([127, 0, 0, 1]), port), "port {port} of 127.0.0.1");
        if let Some(own) = own {
            assert!(!is_open(own, port), "port {port} is open on {own}");
        }
    }
    for container in &containers {
        let networks = container["NetworkSettings"]["Networks"].as_object().unwrap();
        let outer = networks.keys().any(|network| network.ends_with("_outer"));
        assert_eq!(
            outer,
            matches!(service(container), "gateway" | "resonate" | "jaeger"),
            "{} is on {:?}",
            service(container),
            networks.keys()
        );
        // Not even this machine can reach health checks and metrics.
        for network in networks.values() {
            let address: IpAddr = network["IPAddress"].as_str().unwrap().parse().unwrap();
            for port in [8080, 9090] {
                assert!(!is_open(address, port), "{} {address}:{port}", service(container));
            }
        }
    }
    let name = containers[0]["NetworkSettings"]["Networks"].as_object().unwrap();
    let inner = name.keys().find(|network| network.ends_with("_inner")).unwrap();
    let internal = output(docker(&["network", "inspect", "--format", "{{.Internal}}", inner]));
    assert_eq!(internal.trim(), "true");
}

fn is_open(address: IpAddr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(1)).is_ok()
}

/// The address of this machine towards others; `None` without a network. It sends nothing.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}
