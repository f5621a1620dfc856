//! The deployment in containers, from outside, on a real Docker Engine: built, started, killed,
//! scaled, stopped. Only with `ASYNC_RPC_DOCKER=1`. To run some tests: `cargo test --test docker kill`.
//!
//! Where `docker/offline-images.sh` has made the base images, nothing is pulled. The Resonate Server
//! is then the official one if `RESONATE_SERVER_BIN` names its executable, else the embedded one.
//! The tests share one deployment and run in the order below.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod backup;
mod burst;
mod flows;
mod frozen;
mod hardening;
mod kills;
mod trace;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    process::ExitCode,
    sync::{Mutex, OnceLock, PoisonError},
    time::Instant,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use testkit::{Deployment, deployment::Server};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

type Test = for<'a> fn(&'a Deployment) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((
            concat!(stringify!($module), "::", stringify!($name)),
            (|deployment| Box::pin($module::$name(deployment))) as Test,
        )),*]
    };
}

/// The embedded server forgets everything when it stops.
const NEED_A_SERVER_THAT_REMEMBERS: [&str; 3] = [
    "backup::a_backup_is_restored",
    "kills::a_killed_server_loses_nothing",
    "kills::down_and_up_keep_the_flows",
];

fn main() -> ExitCode {
    let tests = tests![
        flows::it_is_ready_within_20_seconds_and_says_what_to_try,
        flows::the_three_flows_give_their_exact_answers,
        flows::the_load_generator_finds_every_answer_right,
        flows::both_processes_of_each_service_take_part,
        hardening::containers_have_no_rights_and_limits,
        hardening::layers_are_small,
        hardening::nothing_else_is_reachable,
        kills::a_killed_service_loses_nothing_and_stays_dead,
        kills::the_crash_button_kills_a_named_service_and_a_replica,
        frozen::a_paused_service_is_replaced,
        frozen::a_service_without_a_network_is_replaced,
        burst::a_burst_ends_right_within_the_limits,
        kills::a_killed_gateway_loses_nothing,
        kills::a_killed_jaeger_hinders_no_flow,
        flows::a_service_can_be_scaled,
        kills::a_killed_server_loses_nothing,
        backup::a_backup_is_restored,
        kills::stop_drains_within_the_grace_period,
        kills::down_and_up_keep_the_flows,
        auth::everybody_needs_a_token_and_keys_can_be_changed,
    ];
    let trial = |(name, test)| Trial::ignorable_test(name, move || run(name, test));
    let trials: Vec<_> = tests.into_iter().map(trial).collect();
    let mut arguments = Arguments::from_args();
    // One after the other, in this order.
    arguments.test_threads = Some(1);
    let runs = |trial| !arguments.is_filtered_out(trial) && !arguments.is_ignored(trial);
    let is_needed = Deployment::is_wanted() && !arguments.list && trials.iter().any(runs);
    if is_needed {
        let _ = STAGE.set(Stage::build());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let deployment = STAGE.get().and_then(|stage| stage.deployment().take());
    if let Some(Err(left)) = deployment.map(Deployment::stop) {
        println!("{left}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// What the tests share. Empty if no test needs a deployment.
static STAGE: OnceLock<Stage> = OnceLock::new();

struct Stage {
    runtime: Runtime,
    deployment: Mutex<Option<Deployment>>,
    /// Whether somebody has pressed Ctrl-C or sent SIGTERM.
    interrupted: watch::Receiver<bool>,
}

impl Stage {
    fn build() -> Self {
        let runtime = Runtime::new().unwrap();
        let (interrupt, interrupted) = watch::channel(false);
        runtime.spawn(async move {
            let mut interrupts = signal(SignalKind::interrupt()).unwrap();
            let mut terminations = signal(SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            interrupt.send_replace(true);
            std::future::pending::<()>().await;
        });
        let start = Instant::now();
        let settings = [("NODE_LOG", "node=debug"), ("NODE_LOG_FORMAT", "json")];
        let deployment = Deployment::build(&settings);
        let took = start.elapsed().as_secs_f64();
        println!("built the images in {took:.1} s; server: {:?}", deployment.server);
        Self { runtime, deployment: Mutex::new(Some(deployment)), interrupted }
    }

    fn deployment(&self) -> std::sync::MutexGuard<'_, Option<Deployment>> {
        // A test that fails poisons the lock. The next test repairs the deployment.
        self.deployment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one test.
fn run(name: &str, test: Test) -> Result<Completion, Failed> {
    let Some(stage) = STAGE.get() else {
        return Ok(Completion::ignored_with("it needs a Docker Engine and ASYNC_RPC_DOCKER=1"));
    };
    let deployment = stage.deployment();
    let deployment = deployment.as_ref().expect("a deployment until the end");
    if deployment.server == Server::Embedded && NEED_A_SERVER_THAT_REMEMBERS.contains(&name) {
        return Ok(Completion::ignored_with("it needs the official server"));
    }
    let mut interrupted = stage.interrupted.clone();
    let run = async {
        // Starts again whatever the previous test has stopped or killed.
        deployment.up();
        deployment.ready().await;
        test(deployment).await;
    };
    let run_or_interrupt = async {
        tokio::select! {
            biased;
            _ = interrupted.wait_for(|interrupted| *interrupted) => Err("interrupted".into()),
            () = run => Ok(Completion::Completed),
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| stage.runtime.block_on(run_or_interrupt)));
    outcome.unwrap_or_else(|panic| {
        println!("{deployment}");
        resume_unwind(panic)
    })
}
