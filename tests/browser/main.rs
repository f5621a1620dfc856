//! The page as a person sees it, in a real Chromium:
//!
//! ```sh
//! cargo test -p launcher --test browser                             # needs chromium and chromedriver
//! ASYNC_RPC_SCREENSHOTS=1 cargo test -p launcher --test browser     # also takes pictures
//! ```
//!
//! axe-core checks the accessibility of the pages, if `npm install` was run in this folder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Starts Chromium; ends the test if there is none.
macro_rules! browser {
    () => {
        match Browser::start().await {
            Some(browser) => browser,
            None => return,
        }
    };
}

mod browser;
mod counter;
mod crashes;
mod outages;
mod shown;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Server, System, free_port, process::signal, until};

use self::{
    browser::{Browser, PHONE},
    counter::Counter,
    shown::{expect_legend, now, rows, start, state},
};

#[tokio::test]
async fn each_flow_starts_from_the_page() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let home = format!("http://{}/", system.gateway);
    browser.open(&home).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    browser.check("the start page").await;

    // The same rules and messages as those of the API, beside the field.
    start(&browser, "await-chain", &[("work", "6"), ("id", "seen")]).await;
    let message =
        "Not started: invalid work \"6\": expected a duration such as 500ms or 6s, at most 10m";
    let error = format!(
        "document.querySelector('#await-chain-work-error').textContent === {}",
        json!(message)
    );
    browser.until("the message", &error).await;
    let focused = browser.run("return document.activeElement.id").await;
    assert_eq!(focused, "await-chain-work", "the field that is wrong has the focus");

    let flows = [
        ("await-chain", "one", "done · 3"),
        ("detached-chain", "two", "done"),
        ("fan-out-workflow", "three", "done · 3"),
    ];
    for (flow, id, _) in flows {
        browser.open(&home).await;
        browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
        let work = format!("return document.querySelector('#{flow}-work').value");
        assert_eq!(browser.run(&work).await, "10s", "there is something to crash");
        start(&browser, flow, &[("work", ""), ("id", id)]).await;
        browser.until("the flow's page", &format!("location.pathname === '/flows/{id}'")).await;
        state(&browser, "done").await;
        browser.check(flow).await;
    }

    browser.open(&home).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    // The newest flow is the first one of the list.
    let ids = "[...document.querySelectorAll('#flows tbody th')].map(it => it.textContent).join()";
    browser.until("the list", &format!("{ids} === 'three,two,one'")).await;
    let states = "[...document.querySelectorAll('#flows .badge')].map(it => it.textContent).join()";
    let expected = flows.map(|(_, _, state)| state);
    let [one, two, three] = expected;
    assert_eq!(browser.run(&format!("return {states}")).await, [three, two, one].join(","));
    // Each field says what it means, where a finger and a screen reader find it.
    let hints = "return [...document.querySelectorAll('.kind input')].every(it => \
        document.getElementById(it.getAttribute('aria-describedby').split(' ')[0]).offsetHeight > 0)";
    assert_eq!(browser.run(hints).await, Value::Bool(true));
    // Nothing runs, so there is no rate.
    let quiet = "/^Flows started since the gateway started at [^:]+:[^:]+: 3\\. Failed, timed out or canceled: 0\\. Takeovers/.test(document.querySelector('#load p').textContent)";
    browser.until("the end of the rate", quiet).await;
    browser.screenshots("home", 1_040).await;

    // An id that belongs to something else.
    start(&browser, "await-chain", &[("work", ""), ("id", "two")]).await;
    let error =
        "document.querySelector('#await-chain-id-error').textContent.includes('choose another id')";
    browser.until("the conflict", error).await;

    // The browser shows this page again, as after Back: the ids that it made are new, and no others.
    browser.fill("#detached-chain-id", "mine").await;
    let id = "document.querySelector('#fan-out-workflow-id').value";
    let old = browser.run(&format!("return {id}")).await;
    let back = "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))";
    browser.until("a new id", &format!("{back} && {id} !== {old}")).await;
    let own = browser.run("return document.querySelector('#detached-chain-id').value").await;
    assert_eq!(own, "mine");

    browser.expect_quiet(&["422", "400"]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn the_page_survives_its_gateway() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let address = format!("127.0.0.1:{}", free_port());
    let gateway = ["gateway", "--server", &system.server_url, "--listen", &address];
    let start_command = [("GATEWAY_GROUP_START_COMMAND", "docker start {group}")];
    system.start_process("gateway-2", &gateway, &start_command).await;
    browser.open(&format!("http://{address}/")).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(&browser, "await-chain", &[("work", "8s"), ("id", "survivor")]).await;
    let runs = "document.querySelector('#holders').textContent.includes('work 2/8')";
    browser.until("step 2", runs).await;
    system.kill("gateway-2");
    let gone =
        "document.querySelector('#connection').textContent.startsWith('gateway unreachable')";
    browser.until("that the gateway is gone", gone).await;
    browser.until("that nothing is known", "document.querySelector('#now .alarm') !== null").await;
    let shown = now(&browser).await;
    assert!(shown.contains("Not known: this page cannot reach the gateway."), "{shown}");
    assert!(!shown.contains("work"), "{shown}");
    assert!(shown.ends_with("If it is down, start it again: docker start gateway"), "{shown}");
    let cancel = "return document.querySelector('#cancel').checkVisibility()";
    assert_eq!(browser.run(cancel).await, Value::Bool(false), "nobody would hear it");
    browser.check("a page without its gateway").await;
    browser.screenshots("gone", 820).await;
    system.start_process("gateway-2", &gateway, &start_command).await;
    // On a busy machine the flow has ended by then.
    let back = "/^(gateway connectedResonate Server connected|the flow has ended)$/.test(document.querySelector('#connection').textContent)";
    browser.until("that the gateway is back", back).await;
    state(&browser, "done").await;
    assert!(rows(&browser).await[2..10].iter().all(|(_, note)| note == "✓ stored"));
    browser.open(&format!("http://{address}/")).await;
    let connected =
        "document.querySelector('#connection').textContent.endsWith('Server connected')";
    browser.until("that all is connected", connected).await;
    // One that is frozen takes connections, and does not answer.
    signal(system.pid("gateway-2"), "STOP");
    browser.until("that the gateway is gone", gone).await;
    signal(system.pid("gateway-2"), "CONT");
    browser.until("that all is connected", connected).await;
    system.kill("gateway-2");
    let old = "/^The gateway cannot be reached\\. .* Flows go on without the gateway\\. .*docker start gateway$/.test(document.querySelector('#old').textContent)";
    browser.until("the same on the start page", old).await;
    browser
        .expect_quiet(&[
            "ERR_CONNECTION_REFUSED",
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
            "ERR_CONNECTION_RESET",
        ])
        .await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn flows_that_do_not_go_well_say_what_to_do() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[("NODE_RETRY_DELAY", "20ms")]).await;
    let http = system.http();
    http.post("/await-chain?id=fails&fail=5").await;
    browser.open(&format!("http://{}/flows/fails", system.gateway)).await;
    state(&browser, "failed").await;
    let result = "return document.querySelector('#result p').textContent";
    let text = browser.run(result).await;
    let expected =
        "The flow failed: “failed as requested (attempt 5, fail=5)”. This result is final";
    assert!(text.as_str().unwrap().starts_with(expected), "{text}");
    assert_eq!(rows(&browser).await[3].1, "✗ 5 attempts");
    let link = "return document.querySelector('#result a[href=\"/\"]').checkVisibility()";
    assert_eq!(browser.run(link).await, Value::Bool(true), "a person needs no request to POST");
    let legend = ["unreliable: the step that fails as often as the option “fail” says"];
    expect_legend(&browser, &legend).await;
    browser.check("a flow that failed").await;
    browser.screenshots("failed", 640).await;

    let short = [("GATEWAY_FLOW_TIMEOUT", "1s"), ("GATEWAY_AWAIT", "1ms")];
    let gateway = system.another_gateway("gateway-2", &short).await;
    gateway.post("/await-chain?id=late&sleep=1m").await;
    browser.open(&format!("http://{}/flows/late", system.gateway)).await;
    state(&browser, "timed out").await;
    assert!(browser.run(result).await.as_str().unwrap().contains("timed out"));

    http.post("/fan-out-workflow?id=retried&fail=2&sleep=2s").await;
    browser.open(&format!("http://{}/flows/retried", system.gateway)).await;
    state(&browser, "done").await;
    assert!(rows(&browser).await.contains(&("unreliable".to_owned(), "✓ attempt 3".to_owned())));
    assert_eq!(browser.run(link).await, Value::Bool(false));
    browser.check("a flow with a timer and retries").await;
    browser.screenshots("retried", 640).await;

    // It is canceled from the page.
    browser.open(&format!("http://{}/", system.gateway)).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(&browser, "await-chain", &[("work", "1m"), ("id", "canceled")]).await;
    let runs = "document.querySelector('#holders').textContent.includes('work 2/60')";
    browser.until("step 2", runs).await;
    browser.check("a flow that runs").await;
    browser.screenshots("running", 820).await;
    // What has the focus keeps it while the page changes.
    browser.run("document.querySelector('.danger').focus()").await;
    let next = "document.querySelector('#holders').textContent.match(/work [4-9]/)";
    browser.until("another step", next).await;
    assert_eq!(browser.run("return document.activeElement.textContent").await, "Crash it");
    // The answer to a crash that is refused is quoted.
    let misled = "const ask = window.fetch; window.canceled = () => ask('/flows/nobody', {method: 'DELETE'}); \
        window.fetch = (path, options) => options.method === 'DELETE' ? window.canceled(path, options) : \
            ask(path.endsWith('/crash') ? '/instances/nobody/x/crash' : path, options); window.ask = ask";
    browser.run(misled).await;
    browser.click(".danger").await;
    let refused = "document.querySelector('.holder .error')?.textContent.startsWith('The gateway answered: “no such service: nobody')";
    browser.until("that the crash is refused", refused).await;
    // And so is that to a cancel.
    browser.click("#cancel").await;
    let refused = "document.querySelector('#problem').textContent.startsWith('Not canceled: The gateway answered: “no such flow: nobody')";
    browser.until("that the cancel is refused", refused).await;
    // Without an answer it may have been canceled.
    browser.run("window.canceled = () => Promise.reject(new TypeError('no answer'))").await;
    browser.click("#cancel").await;
    let unknown = "document.querySelector('#problem').textContent === 'Not known whether it is canceled: The gateway cannot be reached.'";
    browser.until("that nothing is known", unknown).await;
    browser.run("window.canceled = ask").await;
    browser.click("#cancel").await;
    state(&browser, "canceled").await;
    assert_eq!(browser.run(link).await, Value::Bool(true));

    browser.expect_quiet(&["404"]).await;
    browser.open(&format!("http://{}/flows/unknown", system.gateway)).await;
    let unknown = "document.querySelector('#problem').textContent.startsWith('The gateway answered: “no such flow: unknown')";
    browser.until("that there is no such flow", unknown).await;
    let link = "return document.querySelector('#about a[href=\"/\"]').checkVisibility()";
    assert_eq!(browser.run(link).await, Value::Bool(true));
    browser.check("a flow that there is not").await;
    browser.expect_quiet(&["404"]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn each_pending_flow_of_the_list_has_its_turn() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let home = format!("http://{}/", system.gateway);
    browser.open(&home).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    let start = "for (let n = 1; n <= 12; n++) \
        await fetch(`/await-chain?id=sleeps-${n}&sleep=10m`, {method: 'POST', headers: {prefer: 'respond-async'}}); \
        const flows = Array.from({length: 12}, (_, n) => ({id: `sleeps-${n + 1}`, state: 'pending'})); \
        localStorage.setItem('flows', JSON.stringify(flows))";
    browser.run(&format!("return (async () => {{ {start} }})()")).await;
    browser.open(&home).await;
    let running = "[...document.querySelectorAll('#flows .badge')].filter(it => it.textContent === 'running').length === 12";
    browser.until("the state of all", running).await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn twenty_viewers_cost_the_server_what_one_does() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let counter = Counter::start(&system.server_url).await;
    let arguments = ["gateway", "--server", &counter.url, "--listen", "127.0.0.1:0"];
    let address = system.start_process("gateway-2", &arguments, &[]).await;
    system
        .http()
        .send(
            reqwest::Method::POST,
            "/await-chain?id=seen&work=30s",
            &[("prefer", "respond-async")],
        )
        .await
        .unwrap();
    browser.open(&format!("http://{address}/flows/seen")).await;
    browser.until("the holder", "document.querySelector('.holder') !== null").await;
    let one = counter.during(Duration::from_secs(4)).await;

    let events = format!("http://{address}/flows/seen/events");
    let mut viewers = Vec::new();
    for _ in 0..19 {
        let viewer = reqwest::Client::builder().no_proxy().build().unwrap().get(&events);
        viewers.push(viewer.send().await.unwrap());
    }
    let twenty = counter.during(Duration::from_secs(4)).await;
    println!("requests to the server in 4 s: {one} for one viewer, {twenty} for twenty");
    assert!(one > 8, "{one}");
    assert!(twenty <= one + one / 2, "{twenty} for twenty, {one} for one");

    drop(viewers);
    // Nobody looks: the page is hidden, as behind another tab.
    browser.open("about:blank").await;
    until(&system.log, "the end of all looks", async || {
        (counter.during(Duration::from_secs(1)).await == 0).then_some(())
    })
    .await;
    system.http().send(reqwest::Method::DELETE, "/flows/seen", &[]).await.unwrap();
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn a_phone_and_a_keyboard_are_enough() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    browser.window(PHONE, 800, false).await;
    browser.open(&format!("http://{}/", system.gateway)).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    let fits = "return document.documentElement.scrollWidth <= 360";
    assert_eq!(browser.run(fits).await, Value::Bool(true));
    // From the top of the page to the first form, and on.
    let mut visited = Vec::new();
    for _ in 0..12 {
        browser.press("\u{E004}").await;
        let focused = "const it = document.activeElement; return [it.id || it.textContent, \
            getComputedStyle(it).outlineStyle]";
        let [name, outline] = serde_json::from_value(browser.run(focused).await).unwrap();
        assert_ne!(outline, "none", "{name}: the focus is visible");
        visited.push(name);
    }
    for expected in ["await-chain-work", "await-chain-id", "Start", "detached-chain-work"] {
        assert!(visited.iter().any(|name: &String| name == expected), "{expected}: {visited:?}");
    }
    browser.fill("#await-chain-work", "1s").await;
    browser.press("\u{E007}").await;
    browser.until("the flow's page", "location.pathname.startsWith('/flows/await-')").await;
    state(&browser, "done").await;
    assert_eq!(browser.run(fits).await, Value::Bool(true));
    browser.check("a flow on a phone").await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}
