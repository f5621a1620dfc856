//! A Chromium, driven through chromedriver.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use testkit::{Log, Process, free_port, until};
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver,
};

/// Set: screenshots are taken.
const SCREENSHOTS: &str = "ASYNC_RPC_SCREENSHOTS";

/// The widths of the window, in pixels.
const WIDTH: u32 = 1_280;
pub const PHONE: u32 = 360;

/// A browser with one window.
pub struct Browser {
    driver: WebDriver,
    log: Log,
    _chromedriver: Process,
}

impl Browser {
    /// Starts it. None: there is no chromedriver here.
    pub async fn start() -> Option<Self> {
        if Command::new("chromedriver").arg("--version").output().is_err() {
            eprintln!("skipped: the page in a browser (chromedriver is not on PATH)");
            return None;
        }
        let (log, port) = (Log::new(), free_port());
        let mut command = Command::new("chromedriver");
        let chromedriver = Process::start(command.arg(format!("--port={port}")), &log);
        let mut wanted = DesiredCapabilities::chrome();
        // Chromium's sandbox does not work for root, as in containers.
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-proxy-server",
            "--hide-scrollbars",
        ] {
            wanted.add_arg(argument).unwrap();
        }
        wanted.set_logging_prefs("browser", LoggingPrefsLogLevel::All).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let driver = until(&log, "a session of chromedriver", async || {
            WebDriver::new(&url, wanted.clone()).await.ok()
        })
        .await;
        let browser = Self { driver, log, _chromedriver: chromedriver };
        browser.window(WIDTH, 900, false).await;
        Some(browser)
    }

    /// Ends it.
    pub async fn quit(self) {
        self.driver.quit().await.unwrap();
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Runs a script in the page. Returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.driver.execute(script, vec![]).await.unwrap().json().clone()
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression})");
        until(&self.log, what, async || {
            // It fails between two pages.
            let result = self.driver.execute(script.as_str(), vec![]).await.ok()?;
            (result.json() == &Value::Bool(true)).then_some(())
        })
        .await;
    }

    /// Clicks as a person does.
    pub async fn click(&self, css: &str) {
        self.driver.find(By::Css(css)).await.unwrap().click().await.unwrap();
    }

    /// Writes into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.driver.find(By::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        self.driver.action_chain().send_keys(key).perform().await.unwrap();
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(command, parameters).await.unwrap()
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

    /// Lets axe-core look for what keeps people from using the page, in light and dark.
    pub async fn check(&self, what: &str) {
        let Ok(axe) =
            std::fs::read_to_string(root().join("tests/browser/node_modules/axe-core/axe.min.js"))
        else {
            eprintln!("skipped: axe-core on {what} (npm install was not run in tests/browser)");
            return;
        };
        self.run(&axe).await;
        for scheme in ["light", "dark"] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.devtools("Emulation.setEmulatedMedia", media).await;
            let script = "const done = arguments[arguments.length - 1]; \
                axe.run().then(it => done(it.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html + ' ' + n.failureSummary).slice(0, 3)])))";
            let found = self.driver.execute_async(script, vec![]).await.unwrap();
            let found = found.json().as_array().unwrap().clone();
            assert!(found.is_empty(), "{what}, {scheme}: {found:#?}");
        }
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": "light"}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Fails if the page has written an error to the console that has none of these texts.
    pub async fn expect_quiet(&self, expected: &[&str]) {
        let entries = self.driver.browser_log().await.unwrap();
        let unexpected: Vec<_> = entries
            .iter()
            .filter(|entry| entry.level == "SEVERE" || entry.level == "WARNING")
            .filter(|entry| !expected.iter().any(|text| entry.message.contains(text)))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
