//! What a page shows, and its forms.

use serde_json::json;

use crate::browser::Browser;

/// The text of an element, without what varies.
const STATE: &str = "return document.querySelector('#state').textContent.split(' · ')[0]";

/// Starts a flow from its form on the start page, with these values in its fields.
pub async fn start(browser: &Browser, flow: &str, fields: &[(&str, &str)]) {
    for name in ["work", "sleep", "fail", "id"] {
        if let Some((_, value)) = fields.iter().find(|(field, _)| *field == name) {
            browser.fill(&format!("#{flow}-{name}"), value).await;
        }
    }
    browser.click(&format!("form:has(#{flow}-id) .primary")).await;
}

/// Waits until the flow on the page is in this state.
pub async fn state(browser: &Browser, expected: &str) {
    browser
        .until(expected, &format!("{STATE} === {}", json!(expected)).replace("return ", ""))
        .await;
}

/// What the page says happened.
pub async fn story(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#story li span:last-child')].map(it => it.textContent)";
    serde_json::from_value(browser.run(script).await).unwrap()
}

/// The rows of the drawing: name and note.
pub async fn rows(browser: &Browser) -> Vec<(String, String)> {
    let script = "return [...document.querySelectorAll('#rows tr')].map(it => \
        [it.querySelector('th span').textContent, it.querySelector('.note').textContent])";
    serde_json::from_value(browser.run(script).await).unwrap()
}

/// What the page says happens now.
pub async fn now(browser: &Browser) -> String {
    let text = browser.run("return document.querySelector('#now').textContent").await;
    text.as_str().unwrap().to_owned()
}

/// Fails if the legend lacks one of these.
pub async fn expect_legend(browser: &Browser, expected: &[&str]) {
    let text = browser.run("return document.querySelector('#legend').textContent").await;
    for part in expected {
        assert!(text.as_str().unwrap().contains(part), "{part}: {text}");
    }
}

/// Fails if a bar or the line above the drawing shows a part of a label.
pub async fn expect_whole_labels(browser: &Browser) {
    let script = "const box = (it) => it.getBoundingClientRect(); \
        const cut = [...document.querySelectorAll('.call .bar > span')].filter(it => it.textContent && \
            box(it).top < box(it.parentNode).bottom - 4 && box(it).right > box(it.parentNode).right + 1); \
        const signs = [...document.querySelectorAll('.sign')]; \
        const cover = signs.filter((a, n) => signs.slice(n + 1).some(b => box(a).left < box(b).right && \
            box(b).left < box(a).right && box(a).top < box(b).bottom - 4 && box(b).top < box(a).bottom - 4)); \
        const axis = box(document.querySelector('#axis')); \
        const out = signs.filter(it => box(it).left < axis.left - 1 || box(it).right > axis.right + 1); \
        return [...cut, ...cover, ...out].map(it => it.textContent)";
    assert_eq!(browser.run(script).await, json!([]));
}
