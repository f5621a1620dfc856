//! Who emits.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};

use crate::{telemetry::SCHEMA_URL, variables};

fn pid() -> i64 {
    i64::from(std::process::id())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Control groups of version 1 name the container; with version 2 only the files do that the
/// container runtime has mounted.
fn container_id() -> Option<String> {
    ["/proc/self/cgroup", "/proc/self/mountinfo"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(container_id_in)
    })
}

/// The container's id in a line of either file: 64 hexadecimal digits. In a mount, it follows the
/// runtime's folder of containers; ids of image layers look the same.
fn container_id_in(line: &str) -> Option<String> {
    let is_mount = line.contains(" - ");
    let line = match is_mount {
        true => line.split_once("containers/")?.1,
        false => line,
    };
    let is_id = |text: &&str| text.len() == 64 && text.bytes().all(|it| it.is_ascii_hexdigit());
    let id = line.split(|it: char| !it.is_ascii_alphanumeric()).find(is_id)?;
    Some(id.to_owned())
}

/// Who emits: the attributes `service.*` of every span of a process. Host, process and container
/// are added where they can be found.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `service.name`: the group, which all replicas share.
    pub name: String,
    /// `service.instance.id`: unique to the process.
    pub instance: String,
    /// `service.namespace`; empty: none.
    pub namespace: String,
    /// `service.version`.
    pub version: String,
}

impl Identity {
    /// The OpenTelemetry resource. `OTEL_RESOURCE_ATTRIBUTES` wins over what the application says of
    /// itself, and `OTEL_SERVICE_NAME` over both.
    pub(crate) fn resource(&self) -> Resource {
        let name = variables::set("OTEL_SERVICE_NAME");
        let namespace = (!self.namespace.is_empty())
            .then(|| KeyValue::new("service.namespace", self.namespace.clone()));
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_schema_url([KeyValue::new("process.pid", pid())], SCHEMA_URL)
            .with_attributes(host_name().map(|name| KeyValue::new("host.name", name)))
            .with_attributes(container_id().map(|id| KeyValue::new("container.id", id)))
            .with_attributes([
                KeyValue::new("service.name", self.name.clone()),
                KeyValue::new("service.instance.id", self.instance.clone()),
                KeyValue::new("service.version", self.version.clone()),
            ])
            .with_attributes(namespace)
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "another test starts it"]
    fn the_name_of_this_process() {
        let text = |text: &str| text.to_owned();
        let (name, instance) = (text("orders"), text("orders-1"));
        let identity = Identity { name, instance, namespace: text(""), version: text("0") };
        let name = identity.resource().get(&opentelemetry::Key::new("service.name"));
        println!("name: {}.", name.unwrap());
    }

    /// Variables belong to a process, so each case is a process.
    #[test]
    fn variables_win_over_what_the_application_says() {
        let (all, name) = ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME");
        for (variables, expected) in [
            (&[][..], "orders"),
            (&[(all, "service.name=shop,team=a")], "shop"),
            (&[(all, "service.name=shop"), (name, "till")], "till"),
        ] {
            let mut test = std::process::Command::new(std::env::current_exe().unwrap());
            test.args(["--ignored", "--nocapture", "--exact"]);
            test.arg("identity::tests::the_name_of_this_process");
            test.env_remove(all).env_remove(name).envs(variables.iter().copied());
            let output = String::from_utf8(test.output().unwrap().stdout).unwrap();
            assert!(output.contains(&format!("name: {expected}.")), "{variables:?}: {output}");
        }
    }

    #[test]
    fn a_container_is_found_by_its_control_group_or_by_its_mounts() {
        let id = "0123456789abcdef".repeat(4);
        let layer = "fedcba9876543210".repeat(4);
        let found = [
            format!("12:memory:/docker/{id}"),
            format!("0::/system.slice/docker-{id}.scope"),
            format!("1:cpu:/kubepods/burstable/pod12-34/{id}"),
            format!(
                "531 510 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/a rw"
            ),
            format!(
                "9 5 0:1 /containers/storage/overlay-containers/{id}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw"
            ),
        ];
        for line in &found {
            assert_eq!(container_id_in(line).as_ref(), Some(&id), "{line}");
        }
        let none = [
            "0::/".to_owned(),
            "0::/user.slice/user-1000.slice/session-1.scope".to_owned(),
            format!(
                "5 4 0:5 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/{layer}/diff"
            ),
        ];
        for line in &none {
            assert_eq!(container_id_in(line), None, "{line}");
        }
    }

    #[test]
    fn a_resource_says_which_process_of_which_host_emits() {
        let identity = Identity {
            name: "orders".to_owned(),
            instance: "orders-1".to_owned(),
            namespace: "shop".to_owned(),
            version: "1.2.3".to_owned(),
        };
        let resource = identity.resource();
        let get = |key: &'static str| resource.get(&key.into()).map(|value| value.to_string());
        assert_eq!(get("process.pid"), Some(std::process::id().to_string()));
        if cfg!(target_os = "linux") {
            assert!(get("host.name").is_some_and(|name| !name.contains('\n')));
        }
        assert_eq!(get("service.instance.id").as_deref(), Some("orders-1"));
        assert_eq!(get("service.version").as_deref(), Some("1.2.3"));
        assert_eq!(resource.schema_url(), Some(SCHEMA_URL));
    }
}
