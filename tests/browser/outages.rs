//! The Resonate Server is away while somebody looks, and the gateway is there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Log, Server, System, process::signal};

use crate::{
    browser::Browser,
    shown::{expect_legend, expect_whole_labels, now, rows, start, state, story},
};

/// The gateway waits for an answer for three seconds, and asks again after one. A busy machine is slower.
const SOON: Duration = Duration::from_secs(8);

const CORNER: &str = "document.querySelector('#connection').textContent";

/// What would go on in the drawing.
const LIVE: &str = "return JSON.stringify([document.querySelector('.timeline').style.cssText, \
    [...document.querySelectorAll('#rows .bar.open')].length, document.querySelector('#rows').innerHTML])";

/// Opens the page of a new flow, and waits for its second step.
async fn look(browser: &Browser, gateway: &str, id: &str, work: &str) {
    browser.open(&format!("http://{gateway}/")).await;
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    start(browser, "await-chain", &[("work", work), ("id", id)]).await;
    let runs = "document.querySelector('#holders').textContent.includes('work 2/')";
    browser.until("step 2", runs).await;
    let corner = browser.run(&format!("return {CORNER}")).await;
    assert_eq!(corner, "gateway connectedResonate Server connected");
}

/// Waits until the page of a flow says that the server is away, and checks that it claims nothing else.
async fn expect_away(browser: &Browser) {
    let since = Instant::now();
    let away = "document.querySelector('#now .alarm')?.textContent === 'Not known: the gateway cannot reach the Resonate Server.'";
    browser.until("that the server is away", away).await;
    println!("the page said so after {:.1?}", since.elapsed());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let corner = browser.run(&format!("return {CORNER}")).await;
    assert_eq!(corner, "gateway connectedResonate Server unreachable; trying again");
    let banner = "return document.querySelector('#problem').checkVisibility() && \
        document.querySelector('#problem').textContent";
    let banner = browser.run(banner).await;
    let banner = banner.as_str().unwrap();
    let expected = "The gateway cannot reach the Resonate Server: “the Resonate Server at ";
    assert!(banner.starts_with(expected), "{banner}");
    assert!(banner.ends_with("”. What this page shows is old."), "{banner}");
    let shown = now(browser).await;
    for claim in ["service-b", "lease", "run 1", "Crash it"] {
        assert!(!shown.contains(claim), "{claim}: {shown}");
    }
    let cancel = "return document.querySelector('#cancel').checkVisibility()";
    assert_eq!(browser.run(cancel).await, Value::Bool(false), "it would not be canceled");
    let title = browser.run("return document.querySelector('#state').textContent").await;
    assert!(title.as_str().unwrap().starts_with("was running · "), "{title}");
    let notes: Vec<_> = rows(browser).await.into_iter().map(|(_, note)| note).collect();
    assert_eq!((&notes[0], &notes[2]), (&"not known".to_owned(), &"✓ stored".to_owned()));
    assert!(notes.iter().all(|note| note == "not known" || note == "✓ stored"), "{notes:?}");
    // Time passes, and the drawing stays as it is.
    let drawn = browser.run(LIVE).await;
    let ago = "document.querySelector('#now').textContent.match(/ ([0-9.]+) s ago/)?.[1]";
    let before = browser.run(&format!("return Number({ago})")).await.as_f64().unwrap();
    browser.until("another second", &format!("Number({ago}) > {before} + 1")).await;
    assert_eq!(browser.run(LIVE).await, drawn);
    assert!(drawn.as_str().unwrap().contains(",0,"), "no bar grows: {drawn}");
    expect_whole_labels(browser).await;
}

/// Waits until the page shows the flow's end, by itself, and checks what it says of the outage.
async fn expect_return(browser: &Browser) {
    let back = format!(
        "['gateway connectedResonate Server connected', 'the flow has ended'].includes({CORNER}) && \
        document.querySelector('#problem').hidden && !document.querySelector('#now .alarm')"
    );
    browser.until("the return of the server", &back).await;
    state(browser, "done").await;
    let story = story(browser).await;
    println!("{}", story.join("\n"));
    assert_eq!(story.last().unwrap(), "The answer is 3");
    for told in [
        "From here on, the gateway could not reach the Resonate Server",
        "reached the Resonate Server again",
    ] {
        assert!(story.iter().any(|line| line.contains(told)), "{told}: {story:?}");
    }
    expect_legend(browser, &["not known: the gateway could not reach the Resonate Server"]).await;
    expect_whole_labels(browser).await;
    // All processes were alive.
    for blame in ["Last sign of life", "slow"] {
        assert!(!story.iter().any(|line| line.contains(blame)), "{blame}: {story:?}");
    }
    let blamed = "return [...document.querySelectorAll('.sign.death, #back code')].length";
    assert_eq!(browser.run(blamed).await, 0);
    assert!(rows(browser).await.iter().all(|(_, note)| note.starts_with('✓')));
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_seen_by_whoever_looks() {
    if !Server::official_is_here("the page while the server is away") {
        return;
    }
    let browser = browser!();
    let command = "docker start resonate";
    let settings = [("GATEWAY_SERVER_START_COMMAND", command)];
    let system = System::start(Server::Official, &settings).await;
    look(&browser, &system.gateway, "away", "8s").await;
    system.kill_server().await;
    expect_away(&browser).await;
    let shown = now(&browser).await;
    assert!(shown.contains("Nothing is lost") && shown.ends_with(command), "{shown}");
    browser.check("a flow without its server").await;
    browser.screenshots("away", 860).await;
    system.start_server().await;
    expect_return(&browser).await;
    browser.check("a flow after an outage").await;
    browser.screenshots("back", 960).await;
    browser.expect_quiet(&[]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn a_frozen_server_is_seen_on_both_pages_and_so_is_its_return() {
    let browser = browser!();
    let system = System::start(Server::Embedded, &[]).await;
    let home = format!("http://{}/", system.gateway);
    look(&browser, &system.gateway, "frozen", "8s").await;
    signal(system.pid("resonate"), "STOP");
    expect_away(&browser).await;
    assert!(now(&browser).await.contains("cargo run brings along has its store in memory"));

    browser.open(&home).await;
    // Before the first answer, nothing is claimed.
    let row =
        "return [...document.querySelectorAll('#flows td')].map(it => it.textContent).slice(0, 4)";
    browser.until("the list", "document.querySelector('#flows td')").await;
    assert_eq!(browser.run(row).await, json!(["await-chain", "not known", "", ""]));
    browser.until("the forms", "document.querySelectorAll('.kind').length === 3").await;
    let corner = browser.run(&format!("return {CORNER}")).await;
    assert!(!corner.as_str().unwrap().contains("Server connected"), "{corner}");
    let old = "document.querySelector('#old').textContent";
    let said = format!("{old}.startsWith('The gateway cannot reach the Resonate Server')");
    browser.until("that the server is away", &said).await;
    let corner = browser.run(&format!("return {CORNER}")).await;
    assert_eq!(corner, "gateway connectedResonate Server unreachable; trying again");
    assert_eq!(browser.run(row).await, json!(["await-chain", "not known", "", ""]));
    // A form says what the API says, and the cards stay in line.
    let error =
        |flow| format!("document.querySelector('form:has(#{flow}-id) > .error').textContent");
    for flow in ["await-chain", "detached-chain"] {
        start(&browser, flow, &[("work", "1s")]).await;
        let answer = json!("The gateway answered: “the Resonate Server at ");
        browser.until("the answer", &format!("{}.startsWith({answer})", error(flow))).await;
    }
    browser.fill("#await-chain-work", "2s").await;
    let errors = format!("return [{}, {} !== '']", error("await-chain"), error("detached-chain"));
    assert_eq!(browser.run(&errors).await, json!(["", true]), "a form that is used again is new");
    let tops = "return new Set([...document.querySelectorAll('[name=work], [name=id]')].map(it => \
        it.getBoundingClientRect().top)).size";
    assert_eq!(browser.run(tops).await, 2, "the fields stand side by side");
    browser.check("the start page without its server").await;
    browser.screenshots("home-away", 1_060).await;

    signal(system.pid("resonate"), "CONT");
    browser.until("the return of the server", &format!("{old} === ''")).await;
    let errors = format!("return {}", error("detached-chain"));
    assert_eq!(browser.run(&errors).await, "", "what a form said is over");
    let corner = browser.run(&format!("return {CORNER}")).await;
    assert_eq!(corner, "gateway connectedResonate Server connected");
    // Whoever opens the page of a flow meanwhile sees it later.
    signal(system.pid("resonate"), "STOP");
    browser.open(&format!("http://{}/flows/frozen", system.gateway)).await;
    browser.until("some news", "document.querySelector('#problem').checkVisibility()").await;
    signal(system.pid("resonate"), "CONT");
    expect_return(&browser).await;
    browser.expect_quiet(&["503"]).await;
    browser.quit().await;
    system.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_flows_is_seen() {
    let browser = browser!();
    let mut server = Server::Embedded.prepare(&Log::new());
    server.start().await;
    let system = System::start_on(&server.url(), &[], &[]).await;
    look(&browser, &system.gateway, "forgotten", "1m").await;
    server.kill();
    expect_away(&browser).await;
    server.start().await;
    let lost = "document.querySelector('#about').textContent.startsWith('The server does not know this flow any more.')";
    browser.until("that the flow is lost", lost).await;
    let gone = "return [...document.querySelectorAll('#columns, #state, #cancel')].every(it => !it.checkVisibility())";
    assert_eq!(browser.run(gone).await, Value::Bool(true));
    browser.expect_quiet(&["404"]).await;
    browser.quit().await;
    system.stop().await;
}
