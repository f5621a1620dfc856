//! The trace of a flow during which the Resonate Server restarts. Only the official server remembers
//! its state.

use futures_util::join;
use testkit::{Line, Server, Stopped};

use crate::observed::{Observed, PLAIN, trace_of};

testkit::on_the_official_server!(
    a_server_that_is_killed_in_the_middle_of_a_flow_leaves_one_whole_trace,
);

async fn a_server_that_is_killed_in_the_middle_of_a_flow_leaves_one_whole_trace(
    server: Server,
) -> Stopped {
    let system = Observed::start(server, &[("NODE_LEASE", "10s")]).await;
    let http = system.http();
    let request = http.post("/await-chain?id=restart&work=3s&sleep=1s");
    let restart = async {
        let begins = |line: &Line| {
            line.in_run("step started", "restart.0") && line.field("step") == Some("work 2/3")
        };
        system.log.line("the second step", begins).await;
        system.kill_server().await;
        system.start_server().await;
    };
    let (answer, ()) = join!(request, restart);
    answer.expect_message(3);
    expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=restart
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=restart group=service-a
            service-a: foo [internal] promise=restart group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=restart group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=restart.0 group=service-b
              service-b: bar [internal] promise=restart.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=restart.0 group=service-b outcome=fulfilled
              service-b: work 1/3 [internal] promise=restart.0.0 group=service-b state=resolved
              service-b: work 2/3 [internal] promise=restart.0.1 group=service-b state=resolved
              service-b: work 3/3 [internal] promise=restart.0.2 group=service-b state=resolved
              service-b: rpc baz [producer] promise=restart.0.3 group=service-c
                service-c: baz [internal] promise=restart.0.3 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=restart.0.3 group=service-c outcome=fulfilled
                service-c: sleep 1s [internal] promise=restart.0.3.0
    ");
    system.stop().await
}
