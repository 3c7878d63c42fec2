//! Who may what, on a real cluster: pods with their account's token, certificates that are asked for and renewed, and secrets that
//! lie on no disk in plain.

use crate::site::{IMAGE, Site};
use crate::told::{timed, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[test]
fn accounts_certificates_and_secrets() {
    let mut site = timed("a master and a node", || Site::cluster("access", 16, 1, 1));
    timed("a pod asks the API by its token", || {
        a_pod_asks_by_its_token(&site)
    });
    timed("a certificate is asked for", || {
        a_certificate_is_approved_and_used(&site)
    });
    timed("the node's certificates are renewed", || {
        the_node_renews(&mut site)
    });
    timed("secrets are sealed", || secrets_lie_in_no_file(&site));
}

fn a_pod_asks_by_its_token(site: &Site) {
    let manifests = format!(
        "{}\n---\n{}\n---\n{}\n---\n{}\n",
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
    );
    site.apply(&manifests);
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
    assert!(read("ca.crt").contains("BEGIN CERTIFICATE"));
    let token = read("token");
    let claims = token.split('.').nth(1).expect("three parts");
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims: Value =
        serde_json::from_slice(&engine.decode(claims).expect("base64")).expect("JSON");
    assert_eq!(claims["sub"], "system:serviceaccount:default:reader");
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "reader");
    // What a client in the pod would do, by the token and the CA that are mounted there.
    let folder = site.home().join("pod");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("ca.crt"), read("ca.crt")).expect("written");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{"name": "c", "cluster": {"server": site.url("m1"), "certificate-authority": folder.join("ca.crt")}}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "pod", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = folder.join("config");
    fs::write(&path, config.to_string()).expect("written");
    kubectl(site, &path, &["get", "configmap", "kube-root-ca.crt"]).expect("is allowed");
    let refused = kubectl(site, &path, &["get", "secrets"]).expect_err("is not allowed");
    assert!(
        refused.contains("User \"system:serviceaccount:default:reader\" cannot list resource"),
        "{refused}"
    );
}

/// Runs the newest kubectl of the machine on the first master; what it printed, or its complaint.
fn kubectl(site: &Site, config: &Path, arguments: &[&str]) -> Result<String, String> {
    let program = kubectls::all().pop().expect("one is there").program;
    let mut command = site.on("m1", &program);
    let output = command
        .arg("--kubeconfig")
        .arg(config)
        .arg("--cache-dir")
        .arg(site.home().join("kubectl-cache"))
        .args(arguments)
        .output()
        .expect("kubectl starts");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn a_certificate_is_approved_and_used(site: &Site) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut asked = rcgen::CertificateParams::new(vec![]).expect("params");
    let subject = &mut asked.distinguished_name;
    subject.push(rcgen::DnType::CommonName, "ann");
    subject.push(rcgen::DnType::OrganizationName, "devs");
    let request = asked.serialize_request(&key).expect("a request");
    let request = STANDARD.encode(request.pem().expect("PEM"));
    site.apply(
        &json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "ann"},
            "spec": {
                "request": request, "signerName": "kubernetes.io/kube-apiserver-client",
                "expirationSeconds": 3600, "usages": ["client auth"],
            },
        })
        .to_string(),
    );
    let admin = site.kubeconfig();
    let shown = kubectl(site, &admin, &["get", "csr", "ann"]).expect("is shown");
    assert!(
        shown.contains("Pending") && shown.contains("60m"),
        "{shown}"
    );
    kubectl(site, &admin, &["certificate", "approve", "ann"]).expect("is approved");
    let certificate = until("the certificate", 20, || {
        let request = site.json(&["get", "csr", "ann", "-o", "json"])?;
        let certificate = request["status"]["certificate"].as_str().map(str::to_owned);
        certificate.ok_or(request["status"].to_string())
    });
    let folder = site.home().join("ann");
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let certificate = write(
        "cert.pem",
        &STANDARD.decode(certificate).expect("is base64"),
    );
    let key = write("key.pem", key.serialize_pem().as_bytes());
    let ca = site.home().join("pod/ca.crt");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "ann",
        "clusters": [{"name": "c", "cluster": {"server": site.url("m1"), "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"client-certificate": certificate, "client-key": key}}],
        "contexts": [{"name": "ann", "context": {"cluster": "c", "user": "u"}}],
    });
    let config = write("config", config.to_string().as_bytes());
    let shown = kubectl(site, &config, &["auth", "whoami", "-o", "json"]).expect("is known");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let told = &shown["status"]["userInfo"];
    assert_eq!(told["username"], "ann");
    assert_eq!(told["groups"], json!(["devs", "system:authenticated"]));
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

/// Every file of the master is looked through; that the search finds anything is shown by a config map.
fn secrets_lie_in_no_file(site: &Site) {
    let (secret, plain) = ("trireme-hush-5c1fe9a27b", "trireme-loud-93ab60d4f1");
    let make = |kind: &str, field: &str, text: &str| {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "looked-for"}, field: {"text": text}});
        site.apply(&object.to_string());
    };
    make("Secret", "stringData", secret);
    make("ConfigMap", "data", plain);
    let kept = site.get(&["secret", "looked-for"]);
    let encoded = STANDARD.encode(secret);
    assert_eq!(kept["data"]["text"], encoded.as_str());
    let data = site.data("m1");
    let found = |text: &str| holds(&data, text.as_bytes());
    assert!(found(plain), "the search finds what lies in plain");
    assert!(!found(secret) && !found(&encoded));
    let rotated = site.ctl(&["keys", "rotate"]);
    assert!(rotated.out.contains("were sealed again"), "{rotated:?}");
    let kept = site.get(&["secret", "looked-for"]);
    assert_eq!(kept["data"]["text"], encoded.as_str());
    assert!(!found(secret) && !found(&encoded));
}

fn holds(folder: &Path, text: &[u8]) -> bool {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .any(|path| {
            if path.is_dir() {
                return holds(&path, text);
            }
            let bytes = fs::read(&path).unwrap_or_default();
            memchr::memmem::find(&bytes, text).is_some()
        })
}
