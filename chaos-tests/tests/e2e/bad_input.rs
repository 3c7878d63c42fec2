//! Bad input: each time one clear error, in Kubernetes' terms where the API has one, and nothing lost or half done.

use crate::api::Api;
use crate::manifests::{SLEEP, deployment, pod};
use crate::site::{Site, bin, items};
use crate::told::{Told, assert_words, until};
use client::{Config, Error};
use http::Method;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

#[test]
fn bad_input_is_told() {
    let mut site = Site::cluster("bad", 7, 1, 0);
    the_api_names_each_fault(&site);
    ctl_names_file_and_fault(&site);
    strangers_are_refused(&mut site);
    masters_refuse_what_they_cannot_run_on(&mut site);
    joins_are_refused(&mut site);
    nodes_refuse_what_they_cannot_run_on(&mut site);
    a_port_in_use_is_told(&mut site);
    let left = items(&site.get(&["pods,deployments,configmaps", "-n", "default"]));
    let names: Vec<&Value> = left
        .iter()
        .map(|object| &object["metadata"]["name"])
        .filter(|name| *name != "kube-root-ca.crt")
        .collect();
    assert!(names.is_empty(), "nothing of all this was kept: {names:?}");
}

fn with(mut object: Value, pointer: &str, value: Value) -> String {
    *object
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{pointer} is there")) = value;
    object.to_string()
}

fn the_api_names_each_fault(site: &Site) {
    let api = Api::of(site);
    let (pods, deployments) = (
        "/api/v1/namespaces/default/pods",
        "/apis/apps/v1/namespaces/default/deployments",
    );
    let good = || {
        let mut pod = pod("good", SLEEP);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        pod
    };
    let quantity = "/spec/containers/0/resources/requests/cpu";
    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(1_100_000)}}).to_string();
    let cases: Vec<(&str, String, u16, &[&str])> = vec![
        (pods, "{\"kind\": ".to_owned(), 400, &[]),
        (pods, "no json".to_owned(), 400, &[]),
        (
            pods,
            with(good(), "/spec/containers", json!("one")),
            400,
            &["containers"],
        ),
        (
            pods,
            with(good(), "/spec/containers", json!([])),
            422,
            &["spec.containers: Required value"],
        ),
        (
            pods,
            with(good(), "/metadata/name", json!("Bad_Name")),
            422,
            &["metadata.name: Invalid value: \"Bad_Name\""],
        ),
        (
            pods,
            with(good(), quantity, json!("a lot")),
            400,
            &["quantities must match the regular expression"],
        ),
        (
            pods,
            with(good(), quantity, json!("-1")),
            422,
            &[
                "requests[cpu]: Invalid value: \"-1\"",
                "must be greater than or equal to 0",
            ],
        ),
        (
            pods,
            deployment("wrong", 1, SLEEP).to_string(),
            400,
            &["Deployment", "Pod"],
        ),
        (
            deployments,
            with(deployment("less", 1, SLEEP), "/spec/replicas", json!(-1)),
            422,
            &[
                "Deployment.apps \"less\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            deployments,
            with(
                deployment("other", 1, SLEEP),
                "/spec/selector/matchLabels/app",
                json!("b"),
            ),
            422,
            &["`selector` does not match template `labels`"],
        ),
        (
            "/api/v1/namespaces/nowhere/pods",
            good().to_string(),
            404,
            &["namespaces \"nowhere\" not found"],
        ),
        (
            "/api/v1/namespaces/default/gadgets",
            good().to_string(),
            404,
            &["could not find the requested resource"],
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            big,
            422,
            &["Too long"],
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            format!("\"{}\"", "x".repeat(4 << 20)),
            413,
            &[],
        ),
    ];
    for (path, body, wanted, words) in cases {
        let (code, message) = api.refusal(Method::POST, path, &body);
        assert_eq!(code, wanted, "{}: {message}", &body[..body.len().min(200)]);
        assert_words(&message, words);
        assert!(!message.is_empty());
    }
    let (code, message) = api.refusal(Method::GET, "/api/v1/namespaces/default/pods/none", "");
    assert_eq!((code, message.as_str()), (404, "pods \"none\" not found"));
    let (code, _) = api.refusal(Method::GET, "/api/v1/pods?labelSelector=a%20b%20c", "");
    assert_eq!(code, 400);
}

fn ctl_names_file_and_fault(site: &Site) {
    let file = site.home().join("bad.yaml");
    let cases: [(&str, &[&str]); 5] = [
        ("kind: [unclosed", &["bad.yaml"]),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n",
            &["bad.yaml"],
        ),
        ("just text", &["bad.yaml"]),
        (
            "apiVersion: v1\nkind: Gadget\nmetadata:\n  name: a\n",
            &["Gadget"],
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\nfood: {}\n",
            &["food"],
        ),
    ];
    for (text, words) in cases {
        fs::write(&file, text).expect("it can be written");
        site.ctl(&["apply", "-f", &file.display().to_string()])
            .one_line(words);
    }
    site.ctl(&["apply", "-f", "/no/such/file.yaml"])
        .one_line(&["/no/such/file.yaml"]);
    site.ctl(&["get", "gadgets"]).one_line(&["gadgets"]);
    let mut nobody = Command::new(bin("ctl"));
    nobody.args(["--kubeconfig", "/no/such/config", "get", "pods"]);
    Told::of(nobody, b"").one_line(&["/no/such/config"]);
}

fn strangers_are_refused(site: &mut Site) {
    let nobody = Api::with(&Config {
        identity: None,
        ..Api::config(site)
    });
    let (code, message) = nobody.refusal(Method::GET, "/api/v1/pods", "");
    assert_eq!(code, 403);
    assert_words(&message, &["system:anonymous", "cannot list resource"]);
    let token = Api::with(&Config {
        identity: None,
        token: Some("guessed".to_owned().into()),
        ..Api::config(site)
    });
    assert_eq!(token.refusal(Method::GET, "/api/v1/pods", "").0, 401);
    // A certificate of another cluster's CA, of a cluster of its own.
    site.start_master("x9", &["--init"]);
    let kubeconfig = site.data("x9").join("admin.kubeconfig");
    until("the other cluster's kubeconfig", 30, || {
        if kubeconfig.is_file() {
            Ok(())
        } else {
            Err(site.log("x9"))
        }
    });
    let other = Config::load(Some(&kubeconfig), None).expect("the kubeconfig is good");
    let foreign = Config {
        identity: other.identity.clone(),
        ..Api::config(site)
    };
    match Api::with(&foreign).get("/api/v1/pods") {
        Err(Error::Api(status)) => assert_eq!(status.code, 401),
        Err(Error::Unreachable { .. } | Error::Interrupted { .. }) => {}
        accepted => panic!("a foreign certificate must be refused: {accepted:?}"),
    }
    // And a server of another CA is not believed.
    let impostor = Config {
        servers: other.servers,
        ..Api::config(site)
    };
    let error = Api::with(&impostor)
        .get("/api/v1/pods")
        .expect_err("its CA is another");
    assert_words(&error.to_string().to_lowercase(), &["certificate"]);
    site.end("x9", nix::sys::signal::Signal::SIGKILL);
}

/// Runs a program on a machine of the site, to its end.
fn run_on(site: &Site, machine: &str, program: &str, arguments: &[&str]) -> Told {
    let mut command = site.on(machine, &bin(program));
    command.args(arguments);
    Told::of(command, b"")
}

fn masters_refuse_what_they_cannot_run_on(site: &mut Site) {
    let address = site.machine("x1");
    let data = site.data("x1").display().to_string();
    let run = |site: &Site, more: &[&str]| {
        run_on(
            site,
            "x1",
            "control",
            &[&["run", "--data-dir", &data, "--name", "x1"], more].concat(),
        )
    };
    run(site, &["--address", &address]).one_line(&["holds no master yet", "--init", "--join"]);
    run(site, &["--address", "10.255.255.1", "--init"])
        .one_line(&["cannot listen on 10.255.255.1:6443"]);
    assert!(
        !site.data("x1").join("identity.json").exists(),
        "nothing was made"
    );
    run(
        site,
        &[
            "--address",
            &address,
            "--init",
            "--cluster-cidr",
            "10.96.0.0/12",
        ],
    )
    .one_line(&["overlap"]);
    // Another process has the port, on the host's own address.
    let taken = TcpListener::bind((site.host_address(), 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let mut command = Command::new(bin("control"));
    command.args([
        "run",
        "--data-dir",
        &data,
        "--name",
        "x1",
        "--address",
        &site.host_address(),
        "--init",
        "--api-port",
        &port,
    ]);
    Told::of(command, b"").one_line(&["cannot listen on", &port]);
    // A data directory of another name.
    let m1 = site.data("m1").display().to_string();
    let told = run_on(
        site,
        "x1",
        "control",
        &[
            "run",
            "--data-dir",
            &m1,
            "--name",
            "x1",
            "--address",
            &address,
            "--init",
        ],
    );
    told.one_line(&["belongs to the master \"m1\"", "not to \"x1\""]);
    a_store_of_another_cluster_is_refused(site, &address);
}

/// Somebody put folders together that do not belong together.
fn a_store_of_another_cluster_is_refused(site: &Site, address: &str) {
    let mixed = site.data("mixed");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(site.data("x9")).arg(&mixed);
    Told::of(copy, b"").ok();
    for file in ["identity.json", "pki/ca.crt", "pki/ca.key"] {
        fs::copy(site.data("m1").join(file), mixed.join(file)).expect("it can be copied");
    }
    let data = mixed.display().to_string();
    let arguments = [
        "run",
        "--data-dir",
        &data,
        "--name",
        "m1",
        "--address",
        address,
    ];
    run_on(site, "x1", "control", &arguments).one_line(&["cluster"]);
}

fn joins_are_refused(site: &mut Site) {
    let address = site.machine("x1");
    let data = site.data("x2").display().to_string();
    let token = fs::read_to_string(site.token())
        .expect("it is there")
        .trim()
        .to_owned();
    let file = site.home().join("token");
    let url = site.url("m1");
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let wrong_secret = format!("{}.{}.{}", parts[0], parts[1], reversed(&parts[2]));
    parts[1] = reversed(&parts[1]);
    let wrong_ca = parts.join(".");
    for (text, words) in [
        ("gibberish", vec!["token"]),
        (wrong_secret.as_str(), vec!["join", "Unauthorized"]),
        (
            wrong_ca.as_str(),
            vec!["could not join", "is not trusted", "CA"],
        ),
    ] {
        fs::write(&file, text).expect("it can be written");
        let arguments = [
            "run",
            "--data-dir",
            &data,
            "--name",
            "x2",
            "--address",
            &address,
            "--join",
            &url,
            "--token-file",
            &file.display().to_string(),
        ];
        run_on(site, "x1", "control", &arguments).one_line(&words);
        assert!(
            !site.data("x2").join("identity.json").exists(),
            "nothing was made"
        );
        let node = site.data("x3").display().to_string();
        let arguments = [
            "run",
            "--data-dir",
            &node,
            "--name",
            "x3",
            "--address",
            &address,
            "--server",
            &url,
            "--token-file",
            &file.display().to_string(),
        ];
        run_on(site, "x1", "node", &arguments).one_line(&words[..1]);
        assert!(
            !site.data("x3").join("settings.json").exists(),
            "nothing was made"
        );
    }
    assert_eq!(
        site.ctl(&["member", "list"]).ok().lines().count(),
        2,
        "a head and one member"
    );
}

fn nodes_refuse_what_they_cannot_run_on(site: &mut Site) {
    let address = site.machine("x1");
    let (url, token) = (site.url("m1"), site.token().display().to_string());
    let mut unprivileged = Command::new("setpriv");
    // The agent's program may lie where only root reads: a copy lies where everybody does.
    let copy = std::env::temp_dir().join(format!("trireme-e2e-node-{}", std::process::id()));
    fs::copy(bin("node"), &copy).expect("it can be copied");
    unprivileged
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy);
    unprivileged.args([
        "run",
        "--data-dir",
        "/tmp/nobody",
        "--name",
        "x3",
        "--address",
        &address,
        "--server",
        &url,
    ]);
    let told = Told::of(unprivileged, b"");
    fs::remove_file(&copy).expect("it is ours");
    told.one_line(&["root"]);
    let data = site.data("x3").display().to_string();
    let run = |name: &str, more: &[&str]| {
        let given = [
            "run",
            "--data-dir",
            &data,
            "--name",
            name,
            "--address",
            &address,
        ];
        run_on(site, "x1", "node", &[&given, more].concat())
    };
    run("x3", &[]).one_line(&["has not joined yet", "--token-file"]);
    run("Bad_Name", &["--server", &url, "--token-file", &token])
        .one_line(&["\"Bad_Name\"", "no node name"]);
    run("x3", &["--server", &url, "--token-file", "/no/token"]).one_line(&["/no/token"]);
}

fn a_port_in_use_is_told(site: &mut Site) {
    let address = site.machine("x1");
    let (url, data) = (site.url("m1"), site.data("x4").display().to_string());
    site.start_as("x1", Path::new("busybox"), &["httpd", "-f", "-p", "10250"]);
    let given = [
        "run",
        "--data-dir",
        &data,
        "--name",
        "x4",
        "--address",
        &address,
        "--server",
        &url,
        "--token-file",
        "/no/token",
    ];
    let told = until("the port in use", 10, || {
        let told = run_on(site, "x1", "node", &given);
        if told.err.contains("10250") {
            Ok(told)
        } else {
            Err(format!("{told:?}"))
        }
    });
    told.one_line(&["10250"]);
    site.end("x1", nix::sys::signal::Signal::SIGKILL);
}
