//! Processes that crash while somebody looks.

use serde_json::json;
use testkit::{Server, System};

use crate::{
    browser::{Browser, PHONE},
    shown::{expect_legend, expect_whole_labels, now, rows, start, state, story},
};

#[tokio::test]
async fn a_crash_is_seen_from_the_button_to_the_answer() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    browser.open(&format!("http://{}/", system.gateway)).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(&browser, "await-chain", &[("work", "6s"), ("id", "crash-1")]).await;
    let at_step = "document.querySelector('#holders').textContent.includes('work 4/6')";
    browser.until("step 4", at_step).await;
    let holder = browser.run("return document.querySelector('.holder .name').textContent").await;
    assert_eq!(holder, "service-b");
    let command = browser.run("return document.querySelector('.holder code').textContent").await;
    assert_eq!(command, format!("kill -9 {}", system.pid("service-b")));
    let late = "the command, this page sees the death only when the lease has run out; after the button, at once.";
    assert!(now(&browser).await.contains(late));
    browser.click(".danger").await;
    browser.until("the death", "document.querySelector('.holder.dying') !== null").await;
    let left =
        "document.querySelector('#now').textContent.match(/runs out within [0-2]\\.[0-9] s/)";
    browser.until("the countdown", left).await;
    // Whether another process is alive is not known, so nothing is promised.
    assert!(now(&browser).await.contains("If none is alive, the work waits for one"));
    let notes =
        async || rows(&browser).await[2..8].iter().map(|it| it.1.clone()).collect::<Vec<_>>();
    // On a busy machine, the next step has begun by then.
    let step = notes().await.iter().position(|note| note == "interrupted").unwrap() + 1;
    assert!(step >= 4, "{step}");
    let line = system.exit_line("service-b").await;
    let (_, restart) = line.text.split_once("Restart it with: ").unwrap();
    let back = browser.run("return document.querySelector('#now code').textContent").await;
    assert_eq!(back, restart);

    let taken = "document.querySelector('.holder .name')?.textContent === 'service-b-replica'";
    browser.until("the takeover", taken).await;
    state(&browser, "done").await;
    let shown = rows(&browser).await;
    let mut expected = ["✓ stored"; 6];
    expected[step - 1] = "✓ ran again";
    assert_eq!(notes().await, expected, "{shown:?}");
    let story = story(&browser).await;
    let expected = format!(
        "service-b-replica took over with step {step} of 6; \
        steps 1 to {} are stored and did not run again",
        step - 1
    );
    assert!(story.contains(&format!("service-b was crashed in step {step} of 6")), "{story:?}");
    // Before that, its lease ran out: in a line of its own if somebody saw when.
    assert!(story.iter().any(|line| line.ends_with(&expected)), "{story:?}");
    assert!(
        story.iter().any(|line| line.contains("ease") && line.contains("ran out")),
        "{story:?}"
    );
    let again = "✓ ran again: it was interrupted, and then run from its start";
    let empty = "empty row: it is not called yet, does not run, or is over";
    expect_legend(&browser, &["process service-b-replica", "takes over", again, empty]).await;
    expect_whole_labels(&browser).await;
    assert_eq!(story.last().unwrap(), "The answer is 3");
    browser.check("a flow that was taken over").await;
    // The command names the folder of this test.
    browser
        .run(
            "const code = document.querySelector('#back code'); \
            code.textContent = code.textContent.replace(/^\\S*\\//, 'target/release/')",
        )
        .await;
    browser.screenshots("crash", 1_000).await;

    // A later look shows the same, but for the moment of the crash.
    browser.run("history.replaceState(null, '', '/flows/crash-1')").await;
    browser.open(&format!("http://{}/flows/crash-1", system.gateway)).await;
    state(&browser, "done").await;
    assert_eq!(rows(&browser).await, shown);
    let back = "return document.querySelector('#back').textContent";
    let back = browser.run(back).await;
    let back = back.as_str().unwrap();
    assert!(back.contains("Bring back service-b (crashed at"), "{back}");
    assert!(back.contains("this page cannot see whether the process is back"), "{back}");
    browser.open(&format!("http://{}/", system.gateway)).await;
    let survived = "document.querySelector('#flows')?.textContent.includes('1 takeover')";
    browser.until("that the flow survived a crash", survived).await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn nobody_knows_how_long_a_process_worked_that_was_killed_in_a_terminal() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    browser.open(&format!("http://{}/", system.gateway)).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(&browser, "await-chain", &[("work", "4s"), ("id", "silent")]).await;
    let runs = "document.querySelector('#holders').textContent.includes('work 2/4')";
    browser.until("step 2", runs).await;
    system.kill("service-b");
    state(&browser, "done").await;
    let story = story(&browser).await;
    let sign = "Last sign of life of service-b, in step ";
    let told = story.iter().find(|line| line.starts_with(sign)).unwrap();
    assert!(told.ends_with("; not known whether it still worked"), "{told}");
    let unknown = "not known whether it still worked: the lease of a silent process runs out";
    expect_legend(&browser, &[unknown]).await;
    let legend = browser.run("return document.querySelector('#legend').textContent").await;
    assert!(!legend.as_str().unwrap().contains("nobody works"), "{legend}");
    browser.check("a flow whose process was killed in a terminal").await;
    expect_whole_labels(&browser).await;
    browser.screenshots("killed", 860).await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn a_flow_that_nobody_runs_says_so_and_how_to_bring_a_process_back() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let http = system.http();
    browser.open(&format!("http://{}/", system.gateway)).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(&browser, "await-chain", &[("work", "6s"), ("id", "stuck")]).await;
    let runs = "document.querySelector('#holders').textContent.includes('work 2/6')";
    browser.until("step 2", runs).await;
    for instance in ["service-b-replica", "service-b"] {
        let crash = format!("/instances/service-b/{instance}/crash");
        assert_eq!(http.post(&crash).await.status, 200);
    }
    browser.until("the death", "document.querySelector('.holder.dying') !== null").await;
    let watch = "window.least = 9; setInterval(() => \
        (least = Math.min(least, document.querySelectorAll('#now code').length)), 10)";
    browser.run(watch).await;
    let stuck = "document.querySelector('#now .alarm')?.textContent.startsWith('No process of group service-b has taken bar yet.')";
    browser.until("that nobody has taken over", stuck).await;
    assert_eq!(browser.run("return least").await, 1, "the command was there all the time");
    // Both commands are there without scrolling, on a phone too.
    for width in [1_280, PHONE] {
        browser.window(width, 800, false).await;
        let seen = "[...document.querySelectorAll('#now code')].map(it => it.getBoundingClientRect()).filter(it => it.top > 0 && it.bottom < innerHeight).length === 2";
        browser.until("both commands", seen).await;
        // Each stays in one line, and scrolls in its box.
        let lines = "const lines = [...document.querySelectorAll('#now code')].map(it => \
            [it.clientHeight / parseFloat(getComputedStyle(it).fontSize) < 3, it.scrollWidth > it.clientWidth]); \
            return [...lines, document.documentElement.scrollWidth <= innerWidth].flat()";
        assert_eq!(browser.run(lines).await, json!([true, true, true, true, true]));
        expect_whole_labels(&browser).await;
    }
    browser.window(1_280, 900, false).await;
    browser.check("a flow that nobody runs").await;
    browser.screenshots("nobody", 820).await;
    let during = story(&browser).await;
    assert!(during.last().unwrap().starts_with("The lease of service-b ran out"), "{during:?}");

    // Another flow that no process takes names them too.
    http.send(reqwest::Method::POST, "/await-chain?id=queued", &[("prefer", "respond-async")])
        .await
        .unwrap();
    browser.open(&format!("http://{}/flows/queued", system.gateway)).await;
    browser.until("that nobody has taken it", stuck).await;
    assert!(now(&browser).await.contains("Bring back service-b (crashed before this flow)"));
    state(&browser, "waits for a process").await;
    // A gateway that knows nothing of the crashes names the first process.
    let command = ["--group-start-command", "docker start x-{group}"];
    let arguments = ["gateway", "--server", &system.server_url, "--listen", "127.0.0.1:0"];
    let address =
        system.start_process("gateway-2", &[&arguments[..], &command].concat(), &[]).await;
    browser.open(&format!("http://{address}/flows/queued")).await;
    browser.until("that nobody has taken it", stuck).await;
    assert!(now(&browser).await.ends_with("nothing is lost.docker start x-service-b"));
    browser.open(&format!("http://{}/", system.gateway)).await;
    let waits = "document.querySelector('#flows tr:has([href=\"/flows/stuck\"]) .badge').textContent === 'waits for a process'";
    browser.until("the same in the list", waits).await;

    browser.open(&format!("http://{}/flows/stuck", system.gateway)).await;
    browser.until("that nobody has taken over", stuck).await;
    let arguments = ["service-b", "--server", &system.server_url, "--crash-button", "true"];
    system.start_process("service-b", &arguments, &[]).await;
    // A process can be crashed again after its return.
    let button = "document.querySelector('.danger:enabled') !== null";
    browser.until("a button", button).await;
    browser.click(".danger").await;
    browser.until("that nobody has taken over", stuck).await;
    system.start_process("service-b", &arguments, &[]).await;
    browser.until("another button", button).await;
    state(&browser, "done").await;
    let after = story(&browser).await;
    assert_eq!(during[..], after[..during.len()], "what was said stays");
    assert!(after[during.len()].starts_with("service-b (restarted) took over with"), "{after:?}");
    expect_legend(&browser, &["lease of a process", "waits for a process to take it"]).await;
    expect_whole_labels(&browser).await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}
