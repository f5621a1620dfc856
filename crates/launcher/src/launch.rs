//! Starts the whole system: the launcher's options, and what it starts in which order.

use std::{convert::Infallible, time::Duration};

use clap::{Args, FromArgMatches};
use node::{config::ServiceSettings, error::Error, logging, runtime, stop::Stop};

use crate::{
    PREFIXES, browser, jaeger,
    jaeger::Traces,
    ports,
    process::{Program, Role, Spec, command_line},
    report, services,
    supervise::System,
};

/// The subcommand that runs the embedded server.
pub const SERVER_COMMAND: &str = "server";

/// The instance of the embedded server.
const SERVER: &str = "resonate";

const HOUR: Duration = Duration::from_secs(3_600);

/// The launcher's options.
#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// Processes of each service. 1 to 50
    #[arg(long, value_name = "NUMBER", default_value = "2", value_parser = settings::integer(1, 50))]
    replicas: usize,
    /// Use the Resonate Server at this address instead of the embedded one
    #[arg(long, value_name = "URL", value_parser = settings::url)]
    server: Option<String>,
    /// Port of the gateway; 0 takes a free one [default: that of GATEWAY_LISTEN, 5000]
    #[arg(long, value_parser = ports::port)]
    port: Option<u16>,
    /// Port of the embedded Resonate server; 0 takes a free one [default: that of
    /// EMBEDDED_SERVER_LISTEN, 8001]
    #[arg(long, value_name = "PORT", value_parser = ports::port)]
    server_port: Option<u16>,
    /// Open the gateway's page in a browser when all is ready
    #[arg(long)]
    open: bool,
    /// Restart a service or gateway this long after its process has exited. 0s to 1h [default: nothing
    /// is restarted]
    #[arg(long, value_name = "DURATION", value_parser = settings::duration(Duration::ZERO, HOUR))]
    restart: Option<Duration>,
    #[command(flatten)]
    jaeger: jaeger::Options,
}

/// The settings that the processes inherit, read here first: an invalid one is reported once,
/// before anything starts.
struct Inherited {
    gateway: gateway::Settings,
    server: embedded_server::Settings,
}

impl Inherited {
    fn read() -> Result<Self, Error> {
        let gateway: gateway::Settings = inherited(|command| {
            // This machine is the user's own, and the gateway listens on loopback.
            gateway::Settings::augment_args(command)
                .mut_arg("crash_button", |argument| argument.default_value("true"))
        })?;
        gateway.check()?;
        gateway.node.instance(gateway::GROUP)?;
        let _: ServiceSettings = inherited(service_settings)?;
        Ok(Self { gateway, server: inherited(embedded_server::Settings::augment_args)? })
    }
}

fn inherited<T: FromArgMatches>(
    arguments: impl FnOnce(clap::Command) -> clap::Command,
) -> Result<T, Error> {
    let command = arguments(clap::Command::new("async-rpc"));
    Ok(settings::parse(command, &PREFIXES, ["async-rpc".into()])?.read()?)
}

/// Adds the settings of a service. Many processes run on this machine, so the address for health
/// checks is a free port unless the user sets one.
pub fn service_settings(command: clap::Command) -> clap::Command {
    ServiceSettings::augment_args(command)
        .mut_arg("health_listen", |argument| argument.default_value("127.0.0.1:0"))
}

/// Starts everything, and supervises it until it is told to stop. `unknown`: settings to warn
/// about.
///
/// # Errors
/// A setting is invalid, a port is taken, or a process failed to start. Nothing is left running.
pub fn run(options: Options, unknown: &[String]) -> Result<(), Error> {
    let Inherited { mut gateway, mut server } = Inherited::read()?;
    logging::start(&gateway.node.log, None);
    logging::report_unknown(unknown);
    gateway.listen.set_port(options.port.unwrap_or(gateway.listen.port()));
    server.listen.set_port(options.server_port.unwrap_or(server.listen.port()));
    runtime::block_on(1, async move {
        let mut stop = Stop::listen("launcher", || {})?;
        ports::listen(gateway.listen, "--port")?;
        if options.server.is_none() {
            ports::listen(server.listen, "--server-port")?;
        }
        let traces = Traces::choose(&options.jaeger)?;
        let mut system = System::new(gateway.node.drain, options.restart);
        let plan = Plan { options, gateway, server, traces };
        let result = tokio::select! {
            result = plan.start(&mut system) => result.map(|never| match never {}),
            () = stop.requested() => Ok(()),
        };
        system.stop().await;
        result
    })
}

/// What to start.
struct Plan {
    options: Options,
    gateway: gateway::Settings,
    server: embedded_server::Settings,
    traces: Traces,
}

impl Plan {
    /// Starts the server, then Jaeger, the gateway and the services. Then it reports what happens
    /// to them, and does not return unless one of them fails to start.
    async fn start(self, system: &mut System) -> Result<Infallible, Error> {
        let (server, kind) = match &self.options.server {
            Some(url) => (url.clone(), "external"),
            None => {
                let listen = self.server.listen.to_string();
                system.start(self.spec(
                    Role::Server,
                    SERVER,
                    SERVER,
                    &[SERVER_COMMAND, "--listen", &listen],
                ))?;
                system.all_ready(&listen).await?;
                let address = system.address(SERVER).unwrap_or(self.server.listen);
                (format!("http://{address}"), "embedded: its state is in memory, and lost on exit")
            }
        };
        if let Traces::Jaeger(jaeger) = &self.traces {
            system.start(jaeger.spec()?)?;
        }
        let button: &[&str] = match self.gateway.node.crash_button {
            true => &["--crash-button", "true"],
            false => &[],
        };
        // Everybody on this machine can read a command line.
        let shown = settings::without_credentials(&server);
        let (address, secrets) = match shown == server {
            true => (vec!["--server", &shown], Vec::new()),
            false => (Vec::new(), vec![("NODE_SERVER_URL", server.clone())]),
        };
        let process = |role, group, instance: &str, more: &[&str]| {
            let own = [group, "--instance", instance];
            let arguments = [&own, &address[..], button, more].concat();
            Spec { secrets: secrets.clone(), ..self.spec(role, group, instance, &arguments) }
        };
        let listen = self.gateway.listen.to_string();
        let start = command_line(&process(Role::Service, "{group}", "{instance}", &[]));
        let mut more = vec!["--listen", &listen];
        if self.gateway.kill_command.is_none() {
            more.extend(["--kill-command", "kill -9 {pid}"]);
        }
        if self.gateway.start_command.is_none() {
            more.extend(["--start-command", &start]);
        }
        system.start(process(Role::Gateway, gateway::GROUP, gateway::GROUP, &more))?;
        for service in services::all() {
            let group = service.group();
            for n in 0..self.options.replicas {
                system.start(process(Role::Service, group, &instance(group, n), &[]))?;
            }
        }
        system.all_ready(&shown).await?;
        let gateway = system.address(gateway::GROUP).unwrap_or(self.gateway.listen);
        let page = format!("http://{}", settings::reachable(gateway));
        report::print_summary(&system.rows(), &page, (&shown, kind), &self.traces);
        if self.options.open {
            browser::open(&page);
        }
        Ok(system.supervise().await)
    }

    /// A process of this executable.
    fn spec(&self, role: Role, group: &str, instance: &str, arguments: &[&str]) -> Spec {
        Spec {
            role,
            group: group.to_owned(),
            instance: instance.to_owned(),
            program: Program::Own,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: self.traces.environment(role),
            secrets: Vec::new(),
        }
    }
}

/// `service-b`, `service-b-replica`, `service-b-replica-2`, …
fn instance(group: &str, n: usize) -> String {
    match n {
        0 => group.to_owned(),
        1 => format!("{group}-replica"),
        n => format!("{group}-replica-{n}"),
    }
}
