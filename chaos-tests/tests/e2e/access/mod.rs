//! Who may what, on three masters with the newest kubectl: people and pods with tokens, certificates that are asked for and
//! renewed, the audit log, and secrets that lie on no disk in plain.

mod kept;
mod people;

use crate::site::{IMAGE, Site};
use crate::told::{Told, assert_words, timed, until};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

#[test]
fn accounts_certificates_and_secrets() {
    let mut site = Site::empty("access", 16);
    timed("three masters and a node", || {
        let policy = kept::audit_policy(&site);
        let flags = |site: &Site, name: &str| {
            let log = kept::audit_log(site, name);
            [
                "--audit-policy-file",
                &policy.display().to_string(),
                "--audit-log-path",
                &log.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec()
        };
        site.start_masters_with(3, flags);
        site.start_node("n1", &[]);
        site.wait_nodes(1);
        site.import_image();
    });
    timed("an account's token", || people::an_account_asks(&site));
    timed("a token in a secret", || {
        people::a_secret_holds_a_token(&site);
    });
    timed("a bootstrap token", || {
        people::a_bootstrap_token_opens(&site)
    });
    timed("a certificate is asked for", || {
        people::a_certificate_is_approved_and_used(&site)
    });
    timed("a pod asks the API by its token", || {
        a_pod_asks_by_its_token(&site)
    });
    timed("the node's certificates are renewed", || {
        the_node_renews(&mut site)
    });
    timed("levels are kept", || kept::levels_are_kept(&site));
    timed("requests are noted", || kept::requests_are_noted(&site));
    timed("secrets are sealed", || {
        kept::secrets_outlive_their_keys(&site);
    });
}

/// The newest kubectl of the machine with a kubeconfig, asking one master.
struct Kubectl<'a> {
    site: &'a Site,
    program: PathBuf,
    config: PathBuf,
    master: &'static str,
}

impl<'a> Kubectl<'a> {
    fn of(site: &'a Site, config: PathBuf, master: &'static str) -> Self {
        let program = kubectls::all().pop().expect("one is there").program;
        Kubectl {
            site,
            program,
            config,
            master,
        }
    }

    /// The administrator's.
    fn admin(site: &'a Site, master: &'static str) -> Self {
        Kubectl::of(site, site.kubeconfig(), master)
    }

    /// That of a user who proves who he is by these members of a kubeconfig.
    fn user(site: &'a Site, name: &str, master: &'static str, proof: &Value) -> Self {
        let folder = site.home().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": "c", "cluster": {
                "server": site.url(master), "certificate-authority": authority(site),
            }}],
            "users": [{"name": "u", "user": proof}],
            "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}}],
        });
        let path = folder.join("config");
        fs::write(&path, config.to_string()).expect("written");
        Kubectl::of(site, path, master)
    }

    fn run(&self, arguments: &[&str]) -> Told {
        self.feed(arguments, "")
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Told {
        let mut command = self.site.on(self.master, &self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.config)
            .args(["--server", &self.site.url(self.master)])
            .arg("--cache-dir")
            .arg(self.site.home().join("kubectl-cache"))
            .args(arguments);
        Told::of(command, input.as_bytes())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let told = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&told).expect("kubectl prints JSON")
    }
}

/// The cluster's CA, as the first master keeps it.
fn authority(site: &Site) -> PathBuf {
    site.data("m1").join("pki/ca.crt")
}

fn a_pod_asks_by_its_token(site: &Site) {
    let objects = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader"}],
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
            "spec": {"serviceAccountName": "reader", "containers": [{
                "name": "c", "image": IMAGE, "command": ["sleep", "1000"],
            }]},
        }),
    ];
    for object in objects {
        site.apply(&object.to_string());
    }
    let phase = || {
        let pod = site.json(&["get", "pod", "reader", "-o", "json"])?;
        match pod["status"]["phase"].as_str() {
            Some("Running") => Ok(()),
            _ => Err(pod["status"].to_string()),
        }
    };
    until("the pod runs", 60, phase);
    let mounted = "/var/run/secrets/kubernetes.io/serviceaccount";
    let read = |file: &str| {
        let told = site.ctl(&["exec", "reader", "--", "cat", &format!("{mounted}/{file}")]);
        told.out
    };
    assert_eq!(read("namespace").trim(), "default");
    let known = fs::read_to_string(authority(site)).expect("is there");
    assert_eq!(read("ca.crt").trim(), known.trim());
    let token = read("token");
    let claims = token.split('.').nth(1).expect("three parts");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!(claims["sub"], "system:serviceaccount:default:reader");
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "reader");
    // What a client in the pod would do, by the token and the CA that are mounted there.
    let pod = Kubectl::user(site, "pod", "m1", &json!({"token": token.trim()}));
    pod.ok(&["get", "configmap", "kube-root-ca.crt"]);
    assert_words(
        &pod.run(&["get", "secrets"]).fails(1),
        &["User \"system:serviceaccount:default:reader\" cannot list resource"],
    );
}

fn the_node_renews(site: &mut Site) {
    let data = site.data("n1");
    let before = fs::read(data.join("node.crt")).expect("is there");
    assert!(!data.join("serving.crt").exists());
    site.end("n1", nix::sys::signal::Signal::SIGTERM);
    site.start_node("n1", &["--renew-certificate"]);
    until("new certificates", 60, || {
        let now = fs::read(data.join("node.crt")).expect("is there");
        let renewed = now != before && data.join("serving.crt").exists();
        renewed.then_some(()).ok_or_else(|| site.log("n1"))
    });
    // The masters believe the new one, and the node is believed by it.
    site.wait_nodes(1);
    let told = site.ctl(&["exec", "reader", "--", "echo", "still here"]);
    assert_eq!(told.out.trim(), "still here");
    let shown = site.ctl(&["get", "csr"]);
    assert!(shown.out.contains("Approved,Issued"), "{}", shown.out);
}
