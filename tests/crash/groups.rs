//! A group, or the gateway, that is gone as a whole for a while.

use crate::{
    flow::{Flow, expect_begins, expect_not_again},
    support::{Server, System},
};

pub async fn a_flow_waits_for_a_group_without_processes(server: Server) {
    let system = System::start(server, &[("NODE_LEASE", "1s")]).await;
    let mut flow = Flow::start(&system, "await-chain", "nobody", "work=2s").await;
    flow.at(&system, "step begins", 2).await;
    system.kill("service-b-replica");
    let killed = system.kill("service-b");
    let settled = flow.settled(&system, 2).await;
    assert_eq!(settled, [flow.step(1)], "the second step has only begun");
    // Whichever of the two was seen last.
    for instance in ["service-b", "service-b-replica"] {
        system.obituary(instance).await;
    }
    let lines =
        system.log.all(|line| line.text.contains("nobody of service-b is left, its flows wait"));
    assert_eq!(lines.len(), 1, "{lines:#?}");

    system.start_again("service-b-replica").await;
    flow.finish(&system).await;
    expect_not_again(&system, &settled, killed);
    expect_begins(&system, &flow.step(2), 2);
}

pub async fn a_gateway_that_was_killed_finds_its_flows_again(server: Server) {
    let system = System::start_with(server, &[], &["--replicas", "1"]).await;
    let http = system.http();
    let routes = [("await-chain", "g-a"), ("fan-out-workflow", "g-f")];
    let paths = routes.map(|(route, id)| format!("/{route}?id={id}&work=2s"));
    let requests = paths.clone().map(|path| {
        let http = http.clone();
        tokio::spawn(async move { http.send(reqwest::Method::POST, &path, &[]).await })
    });
    for promise in ["g-a.0", "g-f"] {
        system.log.line("the work to begin", |line| line.in_run("step begins", promise)).await;
    }
    system.kill("gateway");
    for request in requests {
        assert!(request.await.unwrap().is_err(), "the gateway that it was sent to is dead");
    }
    let line = system.obituary("gateway").await.text;
    assert!(line.contains("flows go on, requests fail"), "{line}");

    let http = system.start_again("gateway").await;
    for ((_, id), path) in routes.into_iter().zip(paths) {
        http.post(&path).await.expect_start(3.into(), id, true);
    }
    for step in ["g-a.0.0", "g-a.0.1", "g-f.0", "g-f.1"] {
        expect_begins(&system, step, 1);
    }
}
