//! Turns cases and tests into trials of one harness.

use std::{pin::Pin, process::ExitCode, sync::LazyLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use testkit::Resonate;
use tokio::runtime::Runtime;

use crate::{
    client::{Context, now},
    servers,
};

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// The name of a case, and its code, which gets a context on one of the servers.
pub type Case = (&'static str, fn(Context) -> Running);

/// The name of a test that starts its own servers, and its code. `None`: it has nothing to run on.
pub type Test = (&'static str, fn() -> Option<Running>);

/// Lists the cases of a module.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// The cases of this module.
        pub const CASES: &[$crate::harness::Case] =
            &[$((stringify!($case), |context| Box::pin($case(context)))),*];
    };
}

/// Lists the tests of a module.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        /// The tests of this module.
        pub const TESTS: &[$crate::harness::Test] =
            &[$((stringify!($test), || Some(Box::pin($test())))),*];
    };
}

/// How many trials run at the same time: they wait more than they work.
const AT_ONCE: usize = 12;

const NO_OFFICIAL_SERVER: &str = "RESONATE_SERVER_BIN is not set";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Part of all ids of this process.
static RUN: LazyLock<String> = LazyLock::new(|| now().to_string());

/// Runs all cases on both servers, and all tests.
pub fn run(cases: impl Iterator<Item = &'static Case>, tests: &[Test]) -> ExitCode {
    let cases: Vec<_> = cases.collect();
    let embedded = cases.iter().map(|(name, case)| {
        Trial::test(format!("embedded::{name}"), move || {
            on(RUNTIME.block_on(servers::embedded()), name, *case)
        })
    });
    let official = cases.iter().map(|(name, case)| {
        Trial::ignorable_test(format!("official::{name}"), move || {
            match RUNTIME.block_on(servers::official()) {
                Some(server) => on(server, name, *case).map(|()| Completion::Completed),
                None => Ok(Completion::ignored_with(NO_OFFICIAL_SERVER)),
            }
        })
    });
    let tests = tests.iter().map(|(name, test)| {
        let test = *test;
        Trial::ignorable_test(*name, move || match test() {
            Some(test) => {
                RUNTIME.block_on(test);
                Ok(Completion::Completed)
            }
            None => Ok(Completion::ignored_with(NO_OFFICIAL_SERVER)),
        })
    });
    // The longest trial is among the tests: they start first.
    let trials: Vec<_> = tests.chain(embedded).chain(official).collect();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let conclusion = libtest_mimic::run(&arguments, trials);
    RUNTIME.block_on(servers::stop());
    conclusion.exit_code()
}

/// Runs a case on a server.
fn on(server: Resonate, name: &str, case: fn(Context) -> Running) -> Result<(), Failed> {
    RUNTIME.block_on(case(Context::new(server, name, &RUN)));
    Ok(())
}
