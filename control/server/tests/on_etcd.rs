//! Two masters on Debian's etcd, asked with kubectl over TLS: objects, controllers, a leader that dies, and what is refused.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(60);
/// Addresses that no other test listens on.
const ETCD: &str = "127.83.1.1";
const MASTERS: [&str; 2] = ["127.83.1.11", "127.83.1.12"];

/// A process that ends with this.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Process {
        let log = std::fs::File::create(log).expect("a log can be written");
        let process = command.stdout(Stdio::null()).stderr(log).spawn();
        Process(process.expect("the program is there; etcd is Debian's etcd-server"))
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Certificates for an etcd that asks its clients for theirs.
struct Certificates(PathBuf);

impl Certificates {
    fn write(dir: &Path) -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(vec![]).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "an etcd's CA");
        let certificate = ca.self_signed(&key).expect("a certificate");
        let put = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).expect("it can be written");
        };
        put("ca.crt", certificate.pem());
        let issuer = Issuer::new(ca, key);
        for name in ["etcd", "client"] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, name);
            let address: IpAddr = ETCD.parse().expect("an address");
            params.subject_alt_names.push(SanType::IpAddress(address));
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            put(&format!("{name}.crt"), certificate.pem());
            put(&format!("{name}.key"), key.serialize_pem());
        }
        Certificates(dir.to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The etcd, the masters' folders, and kubectl.
struct Site {
    dir: tempfile::TempDir,
    certificates: Certificates,
    kubectl: PathBuf,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().expect("a folder");
        let certificates = Certificates::write(dir.path());
        let kubectls = kubectls::all();
        let kubectl = kubectls.last().expect("at least one").program.clone();
        Site {
            dir,
            certificates,
            kubectl,
        }
    }

    fn etcd(&self) -> Process {
        let (client, peer) = (
            format!("https://{ETCD}:2379"),
            format!("http://{ETCD}:2380"),
        );
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.dir.path().join("etcd"));
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([flag, &client]);
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([flag, &peer]);
        }
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.arg("--client-cert-auth");
        for (flag, file) in [
            ("--trusted-ca-file", "ca.crt"),
            ("--cert-file", "etcd.crt"),
            ("--key-file", "etcd.key"),
        ] {
            command.arg(flag).arg(self.certificates.path(file));
        }
        Process::start(command, &self.dir.path().join("etcd.log"))
    }

    fn command(&self, place: usize, data: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_control"));
        command.args(["run", "--store", "etcd", "--address", MASTERS[place]]);
        command.args(["--etcd-endpoints", &format!("https://{ETCD}:2379")]);
        for (flag, file) in [
            ("--etcd-ca", "ca.crt"),
            ("--etcd-cert", "client.crt"),
            ("--etcd-key", "client.key"),
        ] {
            command.arg(flag).arg(self.certificates.path(file));
        }
        command.args(["--name", &format!("m{place}")]);
        command.arg("--data-dir").arg(data).args(more);
        command
    }

    fn data(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("m{place}"))
    }

    fn master(&self, place: usize, more: &[&str]) -> Process {
        let log = self.dir.path().join(format!("m{place}.log"));
        Process::start(self.command(place, &self.data(place), more), &log)
    }

    /// kubectl, which asks one master.
    fn kubectl(&self, place: usize, args: &[&str]) -> Output {
        let config = self.data(0).join("admin.kubeconfig");
        Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(config)
            .args(["--server", &format!("https://{}:6443", MASTERS[place])])
            .args(["--request-timeout=10s"])
            .args(args)
            .output()
            .expect("kubectl starts")
    }

    /// Until kubectl says what is wanted.
    fn until(&self, place: usize, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let output = self.kubectl(place, args);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && wanted(&text) {
                return text;
            }
            assert!(
                began.elapsed() < WAIT_MAX,
                "kubectl {args:?} says {text} {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn logs(&self) -> String {
        let log = |place| {
            let path = self.dir.path().join(format!("m{place}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            format!("m{place}:\n{text}\n")
        };
        (0..MASTERS.len()).map(log).collect()
    }

    fn until_there(&self, path: &Path) {
        let began = Instant::now();
        while !path.exists() {
            assert!(
                began.elapsed() < WAIT_MAX,
                "{} is not there\n{}",
                path.display(),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

const PODS: &[&str] = &["get", "pods", "-o", "name"];

fn count(wanted: usize) -> impl Fn(&str) -> bool {
    move |text| text.lines().count() == wanted
}

#[test]
fn kubectl_finds_a_cluster_on_an_etcd() {
    let site = Site::new();
    let _etcd = site.etcd();
    let mut first = loop_until_up(&site);
    let token = site.data(0).join("join-token");
    site.until_there(&token);
    let url = format!("https://{}:6443", MASTERS[0]);
    let join = ["--join", &url, "--token-file", &token.to_string_lossy()];
    let _second = site.master(1, &join);
    site.until(1, &["get", "namespaces"], |text| {
        text.contains("kube-system")
    });

    // The controllers of whoever leads work, and both masters show it.
    let create = [
        "create",
        "deployment",
        "web",
        "--image=web:1",
        "--replicas=3",
    ];
    site.until(1, &create, |_| true);
    site.until(0, PODS, count(3));
    site.until(1, PODS, count(3));
    let members = site.until(0, &["get", "--raw", "/cluster/v1/status"], |text| {
        text.contains("m0") && text.contains("m1")
    });
    assert!(members.contains(r#""leader":true"#), "{members}");

    // The first one leads; when it dies, the other does once its lease has ended.
    first.kill();
    site.until(1, &["scale", "deployment/web", "--replicas=5"], |_| true);
    site.until(1, PODS, count(5));
    site.until(1, &["delete", "deployment/web", "--wait=false"], |_| true);
    site.until(1, PODS, count(0));

    // It comes back, and is told of what it cannot have here.
    let _again = site.master(0, &[]);
    site.until(0, &["get", "--raw", "/readyz"], |text| text.contains("ok"));
    let refused = site.kubectl(0, &["get", "--raw", "/cluster/v1/snapshots"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && text.contains("ask it with etcdctl"),
        "{text}"
    );

    // Another cluster cannot come upon this one's state, and what is of our own store is not passed over.
    let other = site.dir.path().join("other");
    let founded = site
        .command(1, &other, &["--init", "--api-port", "7443"])
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&founded.stderr);
    assert!(
        !founded.status.success() && text.contains("the etcd holds the cluster"),
        "{text}"
    );
    let history = site
        .command(1, &other, &["--etcd-port", "2379"])
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&history.stderr);
    assert!(
        !history.status.success() && text.contains("leave it out"),
        "{text}"
    );
}

/// The etcd may still be starting when the master asks it; it then says so and ends.
fn loop_until_up(site: &Site) -> Process {
    let began = Instant::now();
    loop {
        let mut process = site.master(0, &["--init"]);
        while process.0.try_wait().expect("it can be asked").is_none() {
            if site.data(0).join("admin.kubeconfig").exists() {
                return process;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(began.elapsed() < WAIT_MAX, "{}", site.logs());
    }
}
