//! A headless Chromium, asked over its DevTools protocol: opens pages, looks at them, clicks, types, takes pictures.

use crate::told::until;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Runs in every page before its own scripts: what the policy forbade and what went wrong, for [`Browser::complaints`].
const LISTEN: &str = r#"
    globalThis.complaints = [];
    addEventListener("securitypolicyviolation", (event) => complaints.push(`${event.violatedDirective} forbids ${event.blockedURI} in ${event.sourceFile}:${event.lineNumber}`));
    addEventListener("error", (event) => complaints.push(`${event.message} in ${event.filename}:${event.lineno}`));
    addEventListener("unhandledrejection", (event) => complaints.push(`${event.reason} was not handled`));
"#;

/// A browser with one page.
pub struct Browser {
    process: Child,
    tokio: Runtime,
    socket: WebSocketStream<TcpStream>,
    session: String,
    calls: u64,
}

impl Browser {
    /// Starts one, with its profile in a folder.
    pub fn start(folder: &Path) -> Browser {
        let mut process = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--remote-debugging-port=0",
                "--ignore-certificate-errors",
                "--window-size=1280,900",
            ])
            .arg(format!("--user-data-dir={}", folder.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium can be run; deploy/test installs it");
        let mut told = BufReader::new(process.stderr.take().expect("is piped"));
        let address = loop {
            let mut line = String::new();
            let count = told
                .read_line(&mut line)
                .expect("chromium tells where it listens");
            assert_ne!(count, 0, "chromium ended before it listened");
            if let Some(address) = line.trim().strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };
        // What else it tells is of no use, but it must be able to tell it.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = tokio.block_on(async {
            let host = address
                .trim_start_matches("ws://")
                .split('/')
                .next()
                .unwrap_or_default();
            let tcp = TcpStream::connect(host).await.expect("chromium listens");
            let (socket, _) = tokio_tungstenite::client_async(&address, tcp)
                .await
                .expect("a WebSocket");
            socket
        });
        let mut browser = Browser {
            process,
            tokio,
            socket,
            session: String::new(),
            calls: 0,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        browser.call("Page.enable", json!({}));
        browser.call(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": LISTEN}),
        );
        browser
    }

    /// Calls a method of the protocol.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let Browser { tokio, socket, .. } = self;
        let asked = async {
            socket
                .send(Message::text(message.to_string()))
                .await
                .expect("chromium runs");
            loop {
                let message = socket
                    .next()
                    .await
                    .expect("chromium runs")
                    .expect("a message");
                let Message::Text(text) = message else {
                    continue;
                };
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                if answer["id"] == id {
                    return answer;
                }
            }
        };
        let answer = tokio.block_on(async { tokio::time::timeout(ANSWER_DEADLINE, asked).await });
        let answer = answer.unwrap_or_else(|_| panic!("chromium does not answer {method}"));
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Opens an address.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// What an expression is in the page, as JSON; promises are awaited.
    pub fn look(&mut self, expression: &str) -> Result<Value, String> {
        let how = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let told = self.call("Runtime.evaluate", how);
        match told.get("exceptionDetails") {
            None => Ok(told["result"]["value"].clone()),
            Some(thrown) => Err(thrown["exception"]["description"]
                .as_str()
                .unwrap_or("it threw")
                .to_owned()),
        }
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub fn wait(&mut self, what: &str, expression: &str) {
        until(what, 30, || match self.look(expression) {
            Ok(Value::Bool(true)) => Ok(()),
            told => Err(format!(
                "{told:?}; the page says: {:?}",
                self.look("document.body.innerText")
            )),
        });
    }

    /// Waits until the page's text holds all of these.
    #[track_caller]
    pub fn reads(&mut self, texts: &[&str]) {
        let texts = json!(texts).to_string();
        self.wait(
            &texts,
            &format!("{texts}.every((text) => document.body.innerText.includes(text))"),
        );
    }

    /// Clicks on the middle of the element that a selector finds.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let find = format!("document.querySelector({})", json!(selector));
        self.wait(selector, &format!("Boolean({find})"));
        let middle = format!(
            "(() => {{ const it = {find}; it.scrollIntoView({{block: 'center'}}); const {{x, y, width, height}} = it.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()"
        );
        let middle = self.look(&middle).expect("the element is there");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text where the focus is.
    pub fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: `Enter`, `Tab`, `/`.
    pub fn press(&mut self, key: &str) {
        let (code, number, text) = match key {
            "Enter" => ("Enter", 13, "\r"),
            "Tab" => ("Tab", 9, ""),
            other => (other, 0, other),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Lets the system prefer `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Takes a picture of the page.
    pub fn picture(&mut self, file: &Path) {
        use base64::Engine;
        let told = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let data = told["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .expect("base64");
        std::fs::write(file, bytes).expect("the picture can be written");
    }

    /// What the page's policy forbade, and errors that nobody caught, since it was opened.
    pub fn complaints(&mut self) -> Vec<String> {
        let told = self.look("complaints").expect("the page listens");
        serde_json::from_value(told).expect("texts")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
