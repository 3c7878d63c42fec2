//! Ports and files of pods, and the proxies to pods, services and nodes, as the oldest and the newest kubectl and `ctl` reach them.

use crate::manifests::{SERVE, documents, pod, service, wait_pods};
use crate::site::Site;
use crate::told::{Told, assert_words, timed, until};
use kubectls::Kubectl;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Says back on 9000 what it is told, and serves its name on 9001, where its loopback address alone listens.
const BESIDE: &str = "nc -ll -p 9000 -e cat & mkdir -p /www; hostname >/www/index.html; httpd -f -p 127.0.0.1:9001 -h /www & ";
const MEGABYTE: usize = 1 << 20;

#[test]
fn ports_files_and_proxies() {
    let site = Site::cluster("streams", 40, 3, 1);
    let mut web = pod("web", &format!("{BESIDE}{SERVE}"));
    web["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    site.apply(&documents(&[web, service("web")]));
    wait_pods(&site, "web", 1);
    let all = kubectls::all();
    for kubectl in [&all[0], &all[all.len() - 1]] {
        timed(&format!("kubectl 1.{}", kubectl.minor), || {
            let clients = Clients {
                site: &site,
                kubectl,
            };
            clients.ports();
            clients.files();
            clients.proxies();
        });
    }
    timed("ctl", || ctl(&site));
}

struct Clients<'a> {
    site: &'a Site,
    kubectl: &'a Kubectl,
}

impl Clients<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl.program);
        let home = self
            .site
            .home()
            .join(format!("home-{}", self.kubectl.minor));
        command
            .env("HOME", home)
            .arg("--kubeconfig")
            .arg(self.site.kubeconfig())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Told {
        Told::of(self.command(arguments), b"")
    }

    /// Connections side by side, one that ends its sending first, and a port where nobody listens.
    fn ports(&self) {
        let forward = Forward::start(self.command(&["port-forward", "pod/web", ":9000"]));
        forward.echoes();
        drop(forward);
        for (target, port) in [("service/web", ":80"), ("pod/web", ":9001")] {
            let forward = Forward::start(self.command(&["port-forward", target, port]));
            assert_words(&forward.get("/"), &["200 OK", "web"]);
        }
        let forward = Forward::start(self.command(&["port-forward", "pod/web", ":9"]));
        let mut socket = forward.connect();
        assert_eq!(socket.read_to_end(&mut vec![]).unwrap_or(0), 0);
        assert_words(
            &forward.complaint(),
            &["an error occurred forwarding", "-> 9:", "onnection refused"],
        );
    }

    fn files(&self) {
        let (there, back) = (
            self.site.home().join("there"),
            self.site.home().join("back"),
        );
        let sent = noise(3 * MEGABYTE);
        std::fs::write(&there, &sent).expect("a file");
        let in_pod = format!("web:/tmp/copied-{}", self.kubectl.minor);
        self.run(&["cp", &there.display().to_string(), &in_pod])
            .ok();
        self.run(&["cp", &in_pod, &back.display().to_string()]).ok();
        assert!(
            std::fs::read(&back).expect("copied") == sent,
            "the bytes differ"
        );
    }

    fn proxies(&self) {
        let raw = |path: &str| self.run(&["get", "--raw", path]);
        let namespace = "/api/v1/namespaces/default";
        for name in [
            "services/web",
            "services/http:web:80",
            "pods/web",
            "pods/web:8080",
        ] {
            let told = raw(&format!("{namespace}/{name}/proxy/")).ok();
            assert_eq!(told, "web\n", "{name}");
        }
        assert_eq!(raw("/api/v1/nodes/n1/proxy/healthz").ok(), "ok");
        assert_words(
            &raw("/api/v1/nodes/n1:10250/proxy/pods").ok(),
            &["PodList", "web"],
        );
        assert_words(
            &raw(&format!("{namespace}/services/web:81/proxy/")).fails(1),
            &["no service port 81 found for service \"web\""],
        );
        assert_words(
            &raw(&format!("{namespace}/pods/web:9/proxy/")).fails(1),
            &["error trying to reach service"],
        );
    }
}

fn ctl(site: &Site) {
    let forward = Forward::start(site.ctl_command(&["port-forward", "web", ":9000"]));
    forward.echoes();
    drop(forward);
    let forward = Forward::start(site.ctl_command(&["port-forward", "svc/web", ":80"]));
    assert_words(&forward.get("/"), &["200 OK", "web"]);
    drop(forward);
    let forward = Forward::start(site.ctl_command(&["port-forward", "web", ":9"]));
    let mut socket = forward.connect();
    assert_eq!(socket.read_to_end(&mut vec![]).unwrap_or(0), 0);
    assert_words(
        &forward.complaint(),
        &["error forwarding port 9 to pod web"],
    );
}

/// A port-forward that runs; it ends with the value.
struct Forward {
    process: Child,
    port: u16,
    complaint: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Forward {
    fn start(mut command: Command) -> Forward {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let said = gather(process.stdout.take().expect("is piped"));
        let complaint = gather(process.stderr.take().expect("is piped"));
        let port = until("the local port", 20, || {
            let said = said.lock().expect("no panic").clone();
            let port = said.lines().find_map(|line| {
                line.strip_prefix("Forwarding from 127.0.0.1:")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            });
            port.ok_or_else(|| format!("{said}{}", complaint.lock().expect("no panic")))
        });
        Forward {
            process,
            port,
            complaint,
        }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).expect("a time");
        socket
    }

    /// What nobody but this connection says comes back, whole, also when eight go at once and send all before they read.
    fn echoes(&self) {
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let sent = noise(MEGABYTE + number);
                    let mut socket = self.connect();
                    let mut writing = socket.try_clone().expect("a second handle");
                    let to_send = sent.clone();
                    let writer = std::thread::spawn(move || {
                        writing.write_all(&to_send).expect("it is taken");
                        writing.shutdown(Shutdown::Write).expect("half closed");
                    });
                    let mut said = Vec::new();
                    socket.read_to_end(&mut said).expect("it is said back");
                    writer.join().expect("no panic");
                    assert!(said == sent, "{} of {} bytes", said.len(), sent.len());
                });
            }
        });
    }

    fn get(&self, path: &str) -> String {
        let mut socket = self.connect();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
        )
        .expect("it is taken");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// What it wrote to standard error once it wrote anything.
    fn complaint(&self) -> String {
        until("a complaint", 20, || {
            let text = self.complaint.lock().expect("no panic").clone();
            if text.is_empty() {
                Err("nothing".to_owned())
            } else {
                Ok(text)
            }
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn gather(mut from: impl Read + Send + 'static) -> std::sync::Arc<std::sync::Mutex<String>> {
    let text = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let gathered = text.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = String::from_utf8_lossy(&buffer[..count]);
            gathered.lock().expect("no panic").push_str(&piece);
        }
    });
    text
}

/// Bytes without a pattern that a shifted copy could match, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
