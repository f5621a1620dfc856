//! The process that holds a call, as answers show it: its instance, and how to kill it.

use node::server::Holder;
use serde::Serialize;

use crate::settings::Settings;

/// A process that holds a call.
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[derive(Debug, Serialize)]
pub struct Held {
    /// Its unique name.
    pub instance: String,
    /// The route that kills it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<String>,
    /// What to type in a terminal to kill it.
    #[serde(skip_serializing_if = "Option::is_none")]
    kill: Option<String>,
    /// What to type to start it again after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

impl Held {
    /// A process of `group`.
    pub fn new(settings: &Settings, group: &str, holder: Holder) -> Self {
        let button = settings.node.crash_button && settings::name(&holder.instance).is_ok();
        let command = |template: &Option<String>| command(template.as_deref()?, group, &holder);
        Self {
            crash: button.then(|| format!("/instances/{group}/{}/crash", holder.instance)),
            kill: command(&settings.kill_command),
            start: command(&settings.start_command),
            instance: holder.instance,
        }
    }
}

/// Fills in a command. None: something that it needs is unknown, or a shell might act on it.
fn command(template: &str, group: &str, holder: &Holder) -> Option<String> {
    let values = [
        ("{group}", Some(group.to_owned())),
        ("{instance}", settings::name(&holder.instance).ok()),
        ("{hostname}", holder.host.clone()),
        ("{pid}", holder.pid.map(|pid| pid.to_string())),
    ];
    let mut command = template.to_owned();
    for (name, value) in values {
        if command.contains(name) {
            command = command.replace(name, &value?);
        }
    }
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_filled_in_or_not_shown() {
        let holder = Holder::of("service-b-replica#7347-1a2b3c4d@464eac2246c8");
        let filled = |template| command(template, "service-b", &holder);
        for (template, expected) in [
            ("kill -9 {pid}", "kill -9 7347"),
            ("docker kill {hostname}", "docker kill 464eac2246c8"),
            (
                "async-rpc {group} --instance {instance}",
                "async-rpc service-b --instance service-b-replica",
            ),
        ] {
            assert_eq!(filled(template).as_deref(), Some(expected));
        }
        for pid in ["3f0a-of-another-sdk", "a b#x@y z", "$(reboot)"] {
            let holder = Holder::of(pid);
            assert_eq!(command("kill -9 {pid}", "g", &holder), None, "{pid}");
            assert_eq!(command("docker kill {hostname}", "g", &holder), None, "{pid}");
        }
        assert_eq!(command("start {instance}", "g", &Holder::of("$(reboot)")), None);
    }
}
