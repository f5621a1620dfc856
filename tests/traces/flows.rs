//! The traces of flows in which nothing dies.

use std::time::Duration;

use testkit::{Server, Span, Stopped, until};

use crate::observed::{Observed, PLAIN, one, trace_of};

testkit::on_each_server!(
    an_await_chain_is_one_trace,
    a_detached_chain_is_one_trace,
    a_fan_out_workflow_is_one_trace,
    a_timer_is_a_span_that_is_there_before_it_is_due,
    failed_attempts_are_events_of_their_step,
    an_error_goes_up_the_chain,
    a_flow_that_times_out_while_it_waits,
    a_flow_that_times_out_while_it_works,
    a_call_that_is_handed_over_has_one_trace,
);

async fn an_await_chain_is_one_trace(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/await-chain?id=tree-a").await;
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=tree-a
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=tree-a group=service-a
            service-a: foo [internal] promise=tree-a group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=tree-a group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=tree-a.0 group=service-b
              service-b: bar [internal] promise=tree-a.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=tree-a.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=tree-a.0.0 group=service-c
                service-c: baz [internal] promise=tree-a.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=tree-a.0.0 group=service-c outcome=fulfilled
    ");
    eprintln!("await chain on {server:?}: {} spans", spans.len());
    system.stop().await
}

async fn a_detached_chain_is_one_trace(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let http = system.http();
    let answer = http.post("/detached-chain?id=tree-d").await;
    answer.expect_message("detached-chain started");
    let flow = http.get("/flows/tree-d").await.body;
    let id = |n: usize| flow["invocations"][n]["id"].as_str().unwrap();
    let (quz, cog) = (id(1), id(2));
    let spans = expect_tree!(
        system,
        trace_of(&answer),
        PLAIN,
        redact: [(cog, "[cog]"), (quz, "[quz]")],
        @"
        gateway: detached-chain [internal] promise=tree-d
          gateway: POST /detached-chain [server] route=/detached-chain status=200
          gateway: rpc qux [producer] promise=tree-d group=service-d
            service-d: qux [internal] promise=tree-d group=service-d state=resolved
            service-d: qux on service-d* [consumer] promise=tree-d group=service-d outcome=fulfilled
            service-d: rpc quz [producer] promise=[quz] group=service-e
              service-e: quz [internal] promise=[quz] group=service-e state=resolved
              service-e: quz on service-e* [consumer] promise=[quz] group=service-e outcome=fulfilled
              service-e: rpc cog [producer] promise=[cog] group=service-f
                service-f: cog [internal] promise=[cog] group=service-f state=resolved
                service-f: cog on service-f* [consumer] promise=[cog] group=service-f outcome=fulfilled
        "
    );
    eprintln!("detached chain on {server:?}: {} spans", spans.len());
    system.stop().await
}

async fn a_fan_out_workflow_is_one_trace(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/fan-out-workflow?id=tree-f").await;
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: fan-out-workflow [internal] promise=tree-f
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=200
          gateway: rpc zim [producer] promise=tree-f group=service-g
            service-g: zim [internal] promise=tree-f group=service-g state=resolved
            service-g: zim on service-g* [consumer] promise=tree-f group=service-g outcome=fulfilled
            service-g: rpc dop [producer] promise=tree-f.1 group=service-i
              service-i: dop [internal] promise=tree-f.1 group=service-i state=resolved
              service-i: dop on service-i* [consumer] promise=tree-f.1 group=service-i outcome=fulfilled
            service-g: rpc rax [producer] promise=tree-f.0 group=service-h
              service-h: rax [internal] promise=tree-f.0 group=service-h state=resolved
              service-h: rax on service-h* [consumer] promise=tree-f.0 group=service-h outcome=fulfilled
    ");
    eprintln!("fan-out workflow on {server:?}: {} spans", spans.len());
    system.stop().await
}

async fn a_timer_is_a_span_that_is_there_before_it_is_due(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/await-chain?id=timer&sleep=4s").await;
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=timer
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=timer group=service-a
            service-a: foo [internal] promise=timer group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=timer group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=timer.0 group=service-b
              service-b: bar [internal] promise=timer.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=timer.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=timer.0.0 group=service-c
                service-c: baz [internal] promise=timer.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=timer.0.0 group=service-c outcome=fulfilled
                service-c: sleep 4s [internal] promise=timer.0.0.0
    ");
    let timer = one(&spans, "sleep 4s");
    // It starts by the server's clock and ends when the process asked for it.
    let difference = Duration::from_secs(4).abs_diff(timer.duration());
    assert!(difference < Duration::from_millis(200), "{timer:#?}");
    assert!(timer.arrived < timer.end, "it is exported before it ends: {timer:#?}");
    let runs: Vec<_> = spans.iter().filter(|span| span.name.starts_with("baz on ")).collect();
    assert_eq!(runs.len(), 2, "one before the timer and one after it: {runs:#?}");
    let held: Duration = runs.iter().map(|run| run.duration()).sum();
    assert!(held < Duration::from_secs(2), "nobody held the flow while it slept: {runs:#?}");
    system.stop().await
}

async fn failed_attempts_are_events_of_their_step(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/await-chain?id=fail-2&fail=2").await;
    answer.expect_message(3);
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: await-chain [internal] promise=fail-2
          gateway: POST /await-chain [server] route=/await-chain status=200
          gateway: rpc foo [producer] promise=fail-2 group=service-a
            service-a: foo [internal] promise=fail-2 group=service-a state=resolved
            service-a: foo on service-a* [consumer] promise=fail-2 group=service-a outcome=fulfilled
            service-a: rpc bar [producer] promise=fail-2.0 group=service-b
              service-b: bar [internal] promise=fail-2.0 group=service-b state=resolved
              service-b: bar on service-b* [consumer] promise=fail-2.0 group=service-b outcome=fulfilled
              service-b: rpc baz [producer] promise=fail-2.0.0 group=service-c
                service-c: baz [internal] promise=fail-2.0.0 group=service-c state=resolved
                service-c: baz on service-c* [consumer] promise=fail-2.0.0 group=service-c outcome=fulfilled
                service-c: unreliable [internal] promise=fail-2.0.0.0 group=service-c state=resolved
                  - exception resonate_sdk::Error::Application: failed as requested (attempt 1, fail=2)
                  - exception resonate_sdk::Error::Application: failed as requested (attempt 2, fail=2)
    ");
    let step = one(&spans, "unreliable");
    let within = |time| (step.start - Duration::from_millis(5)..=step.end).contains(&time);
    assert!(step.events.iter().all(|event| within(event.time)), "{step:#?}");
    assert!(step.events[0].time < step.events[1].time, "{step:#?}");
    system.stop().await
}

async fn an_error_goes_up_the_chain(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let answer = system.http().post("/fan-out-workflow?id=fail-5&fail=5").await;
    answer.expect_problem(502);
    expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: fan-out-workflow [internal] promise=fail-5
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=502 ERROR
          gateway: rpc zim [producer] promise=fail-5 group=service-g
            service-g: zim [internal] promise=fail-5 group=service-g state=rejected ERROR application error: failed as requested (attempt 5, fail=5)
            service-g: zim on service-g* [consumer] promise=fail-5 group=service-g outcome=rejected ERROR the function failed
            service-g: rpc dop [producer] promise=fail-5.1 group=service-i
              service-i: dop [internal] promise=fail-5.1 group=service-i state=rejected ERROR application error: failed as requested (attempt 5, fail=5)
              service-i: dop on service-i* [consumer] promise=fail-5.1 group=service-i outcome=rejected ERROR the function failed
              service-i: unreliable [internal] promise=fail-5.1.0 group=service-i state=rejected ERROR failed as requested (attempt 5, fail=5)
                - exception resonate_sdk::Error::Application: failed as requested (attempt 1, fail=5)
                - exception resonate_sdk::Error::Application: failed as requested (attempt 2, fail=5)
                - exception resonate_sdk::Error::Application: failed as requested (attempt 3, fail=5)
                - exception resonate_sdk::Error::Application: failed as requested (attempt 4, fail=5)
                - exception resonate_sdk::Error::Application: failed as requested (attempt 5, fail=5)
            service-g: rpc rax [producer] promise=fail-5.0 group=service-h
              service-h: rax [internal] promise=fail-5.0 group=service-h state=resolved
              service-h: rax on service-h* [consumer] promise=fail-5.0 group=service-h outcome=fulfilled
    ");
    system.stop().await
}

async fn a_flow_that_times_out_while_it_waits(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let settings = [("GATEWAY_FLOW_TIMEOUT", "1s")];
    let http = system.another_gateway("gateway-waits", &settings).await;
    let answer = http.post("/await-chain?id=over-waits&sleep=30s").await;
    answer.expect_problem(504);
    // A timer ends with its flow at the latest, so its length depends on the speed of the machine.
    let timer = |span: &Span| span.promise() == "over-waits.0.0.0";
    let timer = system.span("the timer", timer).await.name;
    // Nobody settles them: whoever listens for an invocation reports its time-out.
    expect_tree!(
        system,
        trace_of(&answer),
        PLAIN,
        redact: [(timer.as_str(), "[timer]")],
        @"
        gateway: await-chain [internal] promise=over-waits
          gateway: POST /await-chain [server] route=/await-chain status=504 ERROR
          gateway: rpc foo [producer] promise=over-waits group=service-a
            gateway: foo [internal] promise=over-waits group=service-a state=rejected_timedout ERROR timed out
            service-a: foo on service-a* [consumer] promise=over-waits group=service-a outcome=suspended
            service-a: rpc bar [producer] promise=over-waits.0 group=service-b
              service-a: bar [internal] promise=over-waits.0 group=service-b state=rejected_timedout ERROR timed out
              service-b: bar on service-b* [consumer] promise=over-waits.0 group=service-b outcome=suspended
              service-b: rpc baz [producer] promise=over-waits.0.0 group=service-c
                service-b: baz [internal] promise=over-waits.0.0 group=service-c state=rejected_timedout ERROR timed out
                service-c: baz on service-c* [consumer] promise=over-waits.0.0 group=service-c outcome=suspended
                service-c: [timer] [internal] promise=over-waits.0.0.0
        "
    );
    system.stop().await
}

async fn a_flow_that_times_out_while_it_works(server: Server) -> Stopped {
    let system = Observed::shared(server).await;
    let settings = [("GATEWAY_FLOW_TIMEOUT", "1500ms")];
    let http = system.another_gateway("gateway-works", &settings).await;
    let answer = http.post("/fan-out-workflow?id=over-works&work=5s").await;
    answer.expect_problem(504);
    // The gateway observes the time-out first, the holder at the end of its step.
    let spans = expect_tree!(system, trace_of(&answer), PLAIN, @"
        gateway: fan-out-workflow [internal] promise=over-works
          gateway: POST /fan-out-workflow [server] route=/fan-out-workflow status=504 ERROR
          gateway: rpc zim [producer] promise=over-works group=service-g
            gateway: zim [internal] promise=over-works group=service-g state=rejected_timedout ERROR timed out
            service-g: zim [internal] promise=over-works group=service-g state=rejected_timedout ERROR timed out
            service-g: zim on service-g* [consumer] promise=over-works group=service-g outcome=fenced ERROR the lease was lost, or the promise is settled
            service-g: work 1/5 [internal] promise=over-works.0 group=service-g state=resolved
            service-g: work 2/5 [internal] promise=over-works.1 group=service-g state=rejected_timedout ERROR timed out
    ");
    let ends: Vec<_> = spans.iter().filter(|span| span.name == "zim").collect();
    assert_eq!(ends[0].id, ends[1].id, "both are the same span");
    assert_eq!((ends[0].start, ends[0].end), (ends[1].start, ends[1].end));
    system.stop().await
}

/// The promise by which a replica hands a call over to the first process of its group has neither a
/// context nor a span: it would be a second trace of its flow.
async fn a_call_that_is_handed_over_has_one_trace(server: Server) -> Stopped {
    let system = Observed::start(server, &[]).await;
    let mut flows = 0;
    let messenger = until(&system.log, "a call that is handed over", async || {
        flows += 1;
        let id = format!("handed-over-{flows}");
        system.http().post(&format!("/await-chain?id={id}&work=10ms")).await.expect_message(3);
        let messenger = system.resonate().promise(&format!("{id}.0.hand-over")).await;
        messenger.is_object().then_some(messenger)
    })
    .await;
    assert!(messenger["param"]["headers"].is_null(), "{messenger}");
    // Both servers end it without a process.
    until(&system.log, "its time-out", async || {
        let messenger = system.resonate().promise(messenger["id"].as_str().unwrap()).await;
        (messenger["state"] == "rejected_timedout").then_some(())
    })
    .await;
    system.stop().await
}
