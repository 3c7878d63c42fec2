//! People and programs: tokens and certificates that they get through kubectl, and what these open.

use super::Kubectl;
use crate::site::Site;
use crate::told::{assert_words, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs;

/// An account's token opens what its role says, on every master; and the same is told of it by reviews and by impersonation.
pub fn an_account_asks(site: &Site) {
    let admin = Kubectl::admin(site, "m1");
    admin.ok(&["create", "serviceaccount", "robot"]);
    let verbs = "--verb=get,list,create";
    admin.ok(&["create", "role", "maps", verbs, "--resource=configmaps"]);
    let account = "--serviceaccount=default:robot";
    admin.ok(&["create", "rolebinding", "maps", "--role=maps", account]);
    let token = admin.ok(&["create", "token", "robot", "--duration=20m"]);
    let proof = json!({"token": token.trim()});
    for master in ["m1", "m2", "m3"] {
        let robot = Kubectl::user(site, "robot", master, &proof);
        // Another master may not have applied the binding yet.
        until("the role on every master", 10, || {
            let told = robot.run(&["get", "configmaps"]);
            (told.code == Some(0))
                .then_some(())
                .ok_or(format!("{told:?}"))
        });
        robot.ok(&["create", "configmap", &format!("by-{master}")]);
        assert_words(
            &robot.run(&["delete", "configmap", "by-m1"]).fails(1),
            &["User \"system:serviceaccount:default:robot\" cannot delete resource \"configmaps\""],
        );
        let elsewhere = robot.run(&["get", "configmaps", "-n", "kube-system"]);
        assert_words(&elsewhere.fails(1), &["Forbidden", "\"kube-system\""]);
    }
    let robot = Kubectl::user(site, "robot", "m2", &proof);
    let asked = |arguments: &[&str]| {
        let told = robot.run(&[&["auth", "can-i"], arguments].concat());
        (told.out.trim().to_owned(), told.code)
    };
    assert_eq!(asked(&["list", "configmaps"]), ("yes".to_owned(), Some(0)));
    assert_eq!(asked(&["delete", "configmaps"]), ("no".to_owned(), Some(1)));
    let all = robot.ok(&["auth", "can-i", "--list"]);
    let maps = all.lines().find(|line| line.starts_with("configmaps"));
    assert_words(maps.unwrap_or(&all), &["[get list create]"]);
    assert_words(&all, &["selfsubjectaccessreviews.authorization.k8s.io"]);
    let name = "system:serviceaccount:default:robot";
    let known = robot.json(&["auth", "whoami"])["status"]["userInfo"].clone();
    assert_eq!(known["username"], name);
    // The same by impersonation, which the account itself may not.
    let told = admin.json(&["auth", "whoami", "--as", name]);
    let told = &told["status"]["userInfo"];
    assert_eq!(
        (&told["username"], &told["groups"]),
        (&json!(name), &known["groups"])
    );
    admin.ok(&["get", "configmaps", "--as", name]);
    let refused = admin.run(&["get", "secrets", "--as", name]).fails(1);
    assert_words(&refused, &["cannot list resource \"secrets\""]);
    let refused = robot.run(&["get", "configmaps", "--as", "ann"]).fails(1);
    assert_words(&refused, &["cannot impersonate resource \"users\""]);
    let can = admin.run(&["auth", "can-i", "delete", "configmaps", "--as", name]);
    assert_eq!((can.out.trim(), can.code), ("no", Some(1)));
}

/// A token that lies in a secret: it opens what its account may, for as long as secret and account are there.
pub fn a_secret_holds_a_token(site: &Site) {
    let admin = Kubectl::admin(site, "m1");
    admin.ok(&["create", "serviceaccount", "clerk"]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "clerk", "annotations": {"kubernetes.io/service-account.name": "clerk"}}});
    let apply = ["apply", "-f", "-"];
    admin.feed(&apply, &secret.to_string()).ok();
    let held = |member: &str| {
        let held = admin.json(&["get", "secret", "clerk"])["data"][member].clone();
        let held = STANDARD.decode(held.as_str().unwrap_or_default());
        let text = String::from_utf8(held.expect("base64")).expect("a text");
        Some(text).filter(|text| !text.is_empty())
    };
    let token = until("the token in the secret", 10, || {
        held("token").ok_or("the secret is empty".to_owned())
    });
    assert_eq!(held("namespace").as_deref(), Some("default"));
    assert_words(&held("ca.crt").unwrap_or_default(), &["BEGIN CERTIFICATE"]);
    let proof = json!({ "token": token });
    let clerk = Kubectl::user(site, "clerk", "m2", &proof);
    let known = clerk.json(&["auth", "whoami"]);
    assert_eq!(
        known["status"]["userInfo"]["username"],
        "system:serviceaccount:default:clerk"
    );
    // It goes with the account, and opens nothing from then on.
    admin.ok(&["delete", "serviceaccount", "clerk"]);
    until("the secret goes", 10, || {
        let told = admin.run(&["get", "secret", "clerk"]);
        (told.code == Some(1))
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    clerk.run(&["auth", "whoami"]).fails(1);
}

/// A bootstrap token opens what bootstrappers may: to ask for a certificate, and to read it.
pub fn a_bootstrap_token_opens(site: &Site) {
    let admin = Kubectl::admin(site, "m1");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        },
    });
    admin.feed(&["create", "-f", "-"], &secret.to_string()).ok();
    let proof = json!({"token": "abcdef.0123456789abcdef"});
    let joining = Kubectl::user(site, "joining", "m3", &proof);
    let told = joining.json(&["auth", "whoami"])["status"]["userInfo"].clone();
    assert_eq!(told["username"], "system:bootstrap:abcdef");
    assert_words(
        &told["groups"].to_string(),
        &[
            "\"system:bootstrappers\"",
            "\"system:bootstrappers:workers\"",
        ],
    );
    joining.run(&["get", "nodes"]).fails(1);
    admin.ok(&[
        "create",
        "clusterrolebinding",
        "joining",
        "--clusterrole=system:node-bootstrapper",
        "--group=system:bootstrappers:workers",
    ]);
    until("what the binding allows", 10, || {
        let told = joining.run(&["auth", "can-i", "create", "csr"]);
        (told.code == Some(0))
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    admin.ok(&[
        "delete",
        "secret",
        "-n",
        "kube-system",
        "bootstrap-token-abcdef",
    ]);
    let refused = joining.run(&["auth", "whoami"]).fails(1);
    assert_words(&refused, &["Unauthorized"]);
}

/// A certificate is asked for, approved, downloaded and used.
pub fn a_certificate_is_approved_and_used(site: &Site) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut asked = rcgen::CertificateParams::new(vec![]).expect("params");
    let subject = &mut asked.distinguished_name;
    subject.push(rcgen::DnType::CommonName, "ann");
    subject.push(rcgen::DnType::OrganizationName, "devs");
    let request = asked.serialize_request(&key).expect("a request");
    let request = STANDARD.encode(request.pem().expect("PEM"));
    let asked = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "ann"},
        "spec": {
            "request": request, "signerName": "kubernetes.io/kube-apiserver-client",
            "expirationSeconds": 3600, "usages": ["client auth"],
        },
    });
    let admin = Kubectl::admin(site, "m2");
    admin.feed(&["create", "-f", "-"], &asked.to_string()).ok();
    let shown = admin.ok(&["get", "csr", "ann"]);
    assert_words(&shown, &["Pending", "60m"]);
    admin.ok(&["certificate", "approve", "ann"]);
    let certificate = until("the certificate", 20, || {
        let path = "-ojsonpath={.status.certificate}";
        let told = admin.ok(&["get", "csr", "ann", path]);
        (!told.is_empty()).then_some(told).ok_or_else(String::new)
    });
    let folder = site.home().join("ann");
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let certificate = STANDARD.decode(certificate).expect("is base64");
    let proof = json!({
        "client-certificate": write("cert.pem", &certificate),
        "client-key": write("key.pem", key.serialize_pem().as_bytes()),
    });
    let ann = Kubectl::user(site, "ann", "m3", &proof);
    let told = ann.json(&["auth", "whoami"])["status"]["userInfo"].clone();
    assert_eq!(told["username"], "ann");
    assert_eq!(told["groups"], json!(["devs", "system:authenticated"]));
    ann.run(&["get", "pods"]).fails(1);
    let admin = Kubectl::admin(site, "m3");
    let (role, group) = ("--clusterrole=view", "--group=devs");
    admin.ok(&["create", "rolebinding", "devs", role, group]);
    ann.ok(&["get", "pods"]);
    ann.run(&["get", "secrets"]).fails(1);
}
