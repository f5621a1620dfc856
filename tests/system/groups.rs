//! A whole group, or the gateway, is gone for a while.

use testkit::{Server, Stopped, System};

use crate::flow::{Running, expect_not_again, expect_starts};

testkit::on_each_server!(
    a_flow_waits_for_a_group_without_processes,
    a_gateway_that_was_killed_finds_its_flows_again,
);

async fn a_flow_waits_for_a_group_without_processes(server: Server) -> Stopped {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let mut flow = Running::start(&system, "await-chain", "nobody", "work=2s").await;
    flow.at(&system, "step started", 2).await;
    system.kill("service-b-replica");
    let killed = system.kill("service-b");
    let settled = flow.settled(&system, 2).await;
    assert_eq!(settled, [flow.step(1)], "the second step has only started");
    // The launcher may see either of the two exit last.
    for instance in ["service-b", "service-b-replica"] {
        system.exit_line(instance).await;
    }
    let says = "; no service-b process is left; service-b calls will wait. ";
    let lines = system.log.all(|line| line.text.contains(says));
    assert_eq!(lines.len(), 1, "{lines:#?}");

    system.restart("service-b-replica").await;
    flow.finish(&system).await;
    expect_not_again(&system, &settled, killed);
    expect_starts(&system, &flow.step(2), 2);
    system.stop().await
}

async fn a_gateway_that_was_killed_finds_its_flows_again(server: Server) -> Stopped {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let http = system.http();
    let routes = [("await-chain", "g-a"), ("fan-out-workflow", "g-f")];
    let paths = routes.map(|(route, id)| format!("/{route}?id={id}&work=2s"));
    let requests = paths.clone().map(|path| {
        let http = http.clone();
        tokio::spawn(async move { http.send(reqwest::Method::POST, &path, &[]).await })
    });
    for promise in ["g-a.0", "g-f"] {
        let what = format!("a step of {promise}");
        system.log.line(&what, |line| line.in_run("step started", promise)).await;
    }
    system.kill("gateway");
    for request in requests {
        assert!(request.await.unwrap().is_err(), "the gateway that received it is dead");
    }
    let line = system.exit_line("gateway").await.text;
    assert!(line.contains("; flows continue, HTTP requests fail. "), "{line}");

    let http = system.restart("gateway").await;
    for ((_, id), path) in routes.into_iter().zip(paths) {
        http.post(&path).await.expect_start(3.into(), id, true);
    }
    for step in ["g-a.0.0", "g-a.0.1", "g-f.0", "g-f.1"] {
        expect_starts(&system, step, 1);
    }
    system.stop().await
}
