//! A browser without a window, driven over HTTP as <https://www.w3.org/TR/webdriver2/> has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

/// Whether pages may run scripts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scripts {
    Run,
    Blocked,
}

/// One Chromium; it ends with this.
pub(super) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    client: reqwest::Client,
}

impl Browser {
    pub(super) async fn opens(scripts: Scripts) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is on the PATH");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split_once("started successfully on port ")?.1;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver tells its port");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let blocked = match scripts {
            Scripts::Run => json!({}),
            Scripts::Blocked => json!({"profile.managed_default_content_settings.javascript": 2}),
        };
        let wanted = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {
                // Containers have neither room in /dev/shm nor a user who may make a sandbox.
                "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
                "prefs": blocked,
            },
        });
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = browser.call(Method::POST, "/session", &wanted).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let address = format!("http://127.0.0.1:{}{}{path}", self.port, self.session);
        let request = self.client.request(method, address).body(body.to_string());
        let text = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{path}: {value:#}\n{body:#}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, &body).await
    }

    pub(super) async fn goes_to(&self, address: &str) {
        self.post("/url", json!({"url": address})).await;
    }

    /// The value of an expression in the page.
    pub(super) async fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.post("/execute/sync", json!({"script": script, "args": []}))
            .await
    }

    pub(super) async fn text(&self, selector: &str) -> String {
        let text = format!("document.querySelector({})?.innerText", json!(selector));
        self.value(&text)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an expression is true; the driver gives up after half a minute.
    pub(super) async fn sees(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; const look = () => ({expression}) ? done(1) : setTimeout(look, 20); look()"
        );
        self.post("/execute/async", json!({"script": script, "args": []}))
            .await;
    }

    /// A key of the keyboard, or a letter.
    pub(super) async fn presses(&self, key: char) {
        let strokes = ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key}));
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.post("/actions", json!({"actions": [keyboard]})).await;
    }

    /// A command of Chromium's own protocol.
    async fn command(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", body).await;
    }

    pub(super) async fn is_wide(&self, pixels: u32) {
        let screen =
            json!({"width": pixels, "height": 740, "deviceScaleFactor": 2, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", screen)
            .await;
    }

    /// `light` or `dark`.
    pub(super) async fn prefers(&self, scheme: &str) {
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        self.command("Emulation.setEmulatedMedia", json!({"features": [scheme]}))
            .await;
    }

    /// Errors of scripts, what the page's own policy forbids, what could not be loaded.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let lines = log.as_array().unwrap().iter();
        lines.map(|line| line["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    /// Chromium does not end with its driver.
    fn drop(&mut self) {
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.port)) {
            let session = &self.session;
            write!(
                driver,
                "DELETE {session} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            .ok();
            driver.read_exact(&mut [0; 12]).ok();
        }
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
