//! A Chromium, driven through chromedriver.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use testkit::{
    Log, Process, free_port,
    process::{left, skipped, try_signal},
    until,
};

/// Set: screenshots are taken.
const SCREENSHOTS: &str = "ASYNC_RPC_SCREENSHOTS";

/// The widths of the window, in pixels.
const WIDTH: u32 = 1_280;
pub const PHONE: u32 = 360;

/// A browser with one window.
pub struct Browser {
    driver: Client,
    /// The address of the session, for what is not in the standard of WebDriver.
    session: String,
    log: Log,
    _chromedriver: Process,
}

impl Browser {
    /// Starts it. None: there is no chromedriver here.
    pub async fn start() -> Option<Self> {
        if Command::new("chromedriver").arg("--version").output().is_err() {
            skipped("the page in a browser", "chromedriver is not on PATH");
            return None;
        }
        let (log, port) = (Log::new(), free_port());
        let mut command = Command::new("chromedriver");
        let chromedriver = Process::start(command.arg(format!("--port={port}")), &log);
        // Chromium's sandbox does not work for root, as in containers.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-proxy-server",
            "--hide-scrollbars",
        ];
        let wanted = json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let url = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted.as_object().unwrap().clone());
        let driver =
            until(&log, "a session of chromedriver", async || builder.connect(&url).await.ok())
                .await;
        let session = format!("{url}/session/{}", driver.session_id().await.unwrap().unwrap());
        let browser = Self { driver, session, log, _chromedriver: chromedriver };
        browser.window(WIDTH, 900, false).await;
        Some(browser)
    }

    /// Ends it.
    pub async fn quit(self) {
        self.driver.clone().close().await.unwrap();
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Runs a script in the page. Returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.driver.execute(script, vec![]).await.unwrap()
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression})");
        until(&self.log, what, async || {
            // It fails between two pages.
            let result = self.driver.execute(&script, vec![]).await.ok()?;
            (result == Value::Bool(true)).then_some(())
        })
        .await;
    }

    /// Clicks as a person does.
    pub async fn click(&self, css: &str) {
        self.driver.find(Locator::Css(css)).await.unwrap().click().await.unwrap();
    }

    /// Writes into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.driver.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        self.driver.active_element().await.unwrap().send_keys(key).await.unwrap();
    }

    /// Sends chromedriver a command of its own.
    async fn post(&self, command: &str, parameters: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request =
            client.post(format!("{}/{command}", self.session)).body(parameters.to_string());
        let answer = request.send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].take()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Gives the window this size, in light or dark colours.
    pub async fn window(&self, width: u32, height: u32, dark: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", scheme).await;
    }

    /// Takes pictures of the page in light and dark, and on a phone: those that the docs show into
    /// `docs`, and the others into `target/page`.
    pub async fn screenshots(&self, name: &str, height: u32) {
        if std::env::var_os(SCREENSHOTS).is_none() {
            return;
        }
        let other = root().join("target/page");
        std::fs::create_dir_all(&other).unwrap();
        for (kind, width, dark) in
            [("", WIDTH, false), ("-dark", WIDTH, true), ("-phone", PHONE, false)]
        {
            self.window(width, height, dark).await;
            let picture = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await;
            let picture = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            let file = format!("page-{name}{kind}.png");
            let shown = root().join("docs").join(&file);
            let path = if shown.exists() { shown } else { other.join(file) };
            std::fs::write(path, picture).unwrap();
        }
        self.window(WIDTH, 900, false).await;
    }

    /// Checks the accessibility of the page with axe-core, in light and dark.
    pub async fn check(&self, what: &str) {
        let Ok(axe) =
            std::fs::read_to_string(root().join("tests/browser/node_modules/axe-core/axe.min.js"))
        else {
            skipped(&format!("axe-core on {what}"), "npm install was not run in tests/browser");
            return;
        };
        // axe-core does not see an attribute that means nothing without a value.
        let hidden = "return document.querySelectorAll('[aria-hidden=\"\"]').length";
        assert_eq!(self.run(hidden).await, 0, "{what}: aria-hidden without a value");
        self.run(&axe).await;
        for scheme in ["light", "dark"] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.devtools("Emulation.setEmulatedMedia", media).await;
            let script = "const done = arguments[arguments.length - 1]; \
                axe.run().then(it => done(it.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html + ' ' + n.failureSummary).slice(0, 3)])))";
            let found = self.driver.execute_async(script, vec![]).await.unwrap();
            let found = found.as_array().unwrap();
            assert!(found.is_empty(), "{what}, {scheme}: {found:#?}");
        }
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": "light"}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Fails if the page has written an error to the console that has none of these texts.
    pub async fn expect_quiet(&self, expected: &[&str]) {
        let entries = self.post("se/log", json!({"type": "browser"})).await;
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let unexpected: Vec<_> = entries
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| ["SEVERE", "WARNING"].contains(&text(entry, "level").as_str()))
            .map(|entry| text(entry, "message"))
            .filter(|message| !expected.iter().any(|text| message.contains(text)))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium survives its chromedriver if a test fails.
        for (pid, _) in left(&self.log) {
            try_signal(pid, "KILL");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
