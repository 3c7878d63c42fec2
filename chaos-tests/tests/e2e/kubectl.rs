//! kubectl, unchanged, in every version that this machine has.

use crate::manifests::{SERVE, SLEEP, deployment, documents, pod, service};
use crate::site::{IMAGE, Site};
use crate::told::{Told, assert_words, timed, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn kubectl_of_every_version() {
    let site = Site::cluster("kubectl", 3, 3, 2);
    std::thread::scope(|scope| {
        for found in kubectls::all() {
            let kubectl = Kubectl::new(&site, found);
            scope.spawn(move || {
                timed(&kubectl.namespace, || {
                    kubectl.objects();
                    kubectl.deployments();
                    kubectl.pods();
                });
            });
        }
    });
}

/// One version in a namespace of its own, with a cold cache.
struct Kubectl {
    program: PathBuf,
    namespace: String,
    home: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(site: &Site, found: kubectls::Kubectl) -> Self {
        let namespace = format!("k-1-{}", found.minor);
        let home = site.home().join(&namespace);
        std::fs::create_dir_all(&home).expect("a folder can be made");
        Kubectl {
            program: found.program,
            namespace,
            home,
            kubeconfig: site.kubeconfig(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("HOME", &self.home)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["-n", &self.namespace])
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Told {
        Told::of(self.command(arguments), b"")
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Told {
        Told::of(self.command(arguments), input.as_bytes())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat()).ok())
            .expect("it prints JSON")
    }

    /// Plain objects: create, apply, label, get in its forms, refusals, delete.
    fn objects(&self) {
        let namespace = &self.namespace;
        assert_eq!(
            self.run(&["create", "namespace", namespace]).ok(),
            format!("namespace/{namespace} created\n")
        );
        let mut colours = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "colours"}, "data": {"a": "1"}});
        assert_eq!(
            self.feed(&["create", "-f", "-"], &colours.to_string()).ok(),
            "configmap/colours created\n"
        );
        assert_words(
            &self
                .feed(&["create", "-f", "-"], &colours.to_string())
                .fails(1),
            &["AlreadyExists", "\"colours\" already exists"],
        );
        colours["metadata"]["name"] = json!("applied");
        assert_eq!(
            self.feed(&["apply", "-f", "-"], &colours.to_string()).ok(),
            "configmap/applied created\n"
        );
        assert_eq!(
            self.feed(&["apply", "-f", "-"], &colours.to_string()).ok(),
            "configmap/applied unchanged\n"
        );
        colours["data"] = json!({"b": "2"});
        assert_eq!(
            self.feed(&["apply", "-f", "-"], &colours.to_string()).ok(),
            "configmap/applied configured\n"
        );
        assert_eq!(
            self.json(&["get", "cm", "applied"])["data"],
            json!({"b": "2"})
        );
        assert_eq!(
            self.run(&["label", "cm", "applied", "tier=front"]).ok(),
            "configmap/applied labeled\n"
        );
        assert_eq!(
            self.run(&["get", "cm", "-l", "tier=front", "-o", "name"])
                .ok(),
            "configmap/applied\n"
        );
        assert_words(
            &self.run(&["get", "cm", "applied", "-o", "yaml"]).ok(),
            &["kind: ConfigMap", "b: \"2\"", "tier: front"],
        );
        assert_words(
            &self.run(&["get", "cm"]).ok(),
            &["NAME", "DATA", "AGE", "applied"],
        );
        assert_words(
            &self.run(&["get", "cm", "nothing"]).fails(1),
            &["Error from server (NotFound): configmaps \"nothing\" not found"],
        );
        colours["metadata"]["name"] = json!("Not_A_Name");
        assert_words(
            &self
                .feed(&["create", "-f", "-"], &colours.to_string())
                .fails(1),
            &["is invalid", "metadata.name", "Not_A_Name"],
        );
        colours["data"] = json!({"a": 5});
        assert_words(
            &self
                .feed(
                    &["create", "--validate=true", "-f", "-"],
                    &colours.to_string(),
                )
                .fails(1),
            &["data"],
        );
        assert_words(
            &self.run(&["delete", "cm", "colours"]).ok(),
            &["configmap \"colours\" deleted"],
        );
        let short = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"app": "backend"},
            "spec": {"replicas": 3, "containers": [{"name": "a", "image": IMAGE}]},
        });
        assert_words(
            &self
                .feed(&["create", "-f", "-"], &short.to_string())
                .fails(1),
            &[
                "metadata.app",
                "spec.template.spec.containers",
                "metadata.name",
                "spec.selector",
            ],
        );
        assert_words(
            &self.run(&["get", "nodes", "-o", "wide"]).ok(),
            &["STATUS", "INTERNAL-IP", "Ready", "n1", "n2"],
        );
    }

    /// A deployment: created, watched, rolled out, scaled, described, deleted.
    fn deployments(&self) {
        assert_eq!(
            self.run(&[
                "create",
                "deployment",
                "made",
                "--image",
                IMAGE,
                "--",
                "sh",
                "-c",
                SLEEP
            ])
            .ok(),
            "deployment.apps/made created\n"
        );
        let watching = self.watch(&["get", "deployments", "-w"]);
        assert_words(
            &self
                .run(&["rollout", "status", "deployment/made", "--timeout=60s"])
                .ok(),
            &["successfully rolled out"],
        );
        assert_words(
            &self.run(&["scale", "deployment/made", "--replicas=2"]).ok(),
            &["scaled"],
        );
        self.run(&["rollout", "status", "deployment/made", "--timeout=60s"])
            .ok();
        watching.until(&["made", "2/2"]);
        let file = documents(&[deployment("web", 1, SERVE), service("web")]);
        assert_words(
            &self.feed(&["apply", "-f", "-"], &file).ok(),
            &["deployment.apps/web created", "service/web created"],
        );
        self.run(&["rollout", "status", "deployment/web", "--timeout=60s"])
            .ok();
        assert_words(
            &self.run(&["get", "deploy,rs,pods,svc", "-o", "wide"]).ok(),
            &[
                "deployment.apps/made",
                "2/2",
                "replicaset.apps/made-",
                "pod/web-",
                "service/web",
                "SELECTOR",
            ],
        );
        assert_words(
            &self.run(&["rollout", "history", "deployment/made"]).ok(),
            &["REVISION", "1"],
        );
        assert_words(
            &self.run(&["describe", "deployment", "made"]).ok(),
            &["Replicas:", "2 desired", "ScalingReplicaSet"],
        );
        assert_words(
            &self.run(&["delete", "deployment", "made"]).ok(),
            &["deployment.apps \"made\" deleted"],
        );
    }

    /// A pod: logs, exec, describe, delete.
    fn pods(&self) {
        let talker = pod(
            "talker",
            "trap 'exit 0' TERM; echo begun; sleep 100000 & wait",
        );
        assert_eq!(
            self.feed(&["create", "-f", "-"], &talker.to_string()).ok(),
            "pod/talker created\n"
        );
        self.run(&[
            "wait",
            "pod/talker",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .ok();
        until("the first line", 10, || {
            let told = self.run(&["logs", "talker"]).ok();
            if told == "begun\n" { Ok(()) } else { Err(told) }
        });
        assert_eq!(self.run(&["logs", "talker", "--tail=1"]).ok(), "begun\n");
        assert_eq!(
            self.run(&["exec", "talker", "--", "hostname"]).ok(),
            "talker\n"
        );
        assert_eq!(
            self.feed(&["exec", "-i", "talker", "--", "cat"], "typed\n")
                .ok(),
            "typed\n"
        );
        let told = self.run(&["exec", "talker", "--", "sh", "-c", "echo err >&2; exit 7"]);
        assert_words(&told.fails(7), &["err", "exit code 7"]);
        assert_words(
            &self.run(&["describe", "pod", "talker"]).ok(),
            &["Status:", "Running", "Container ID:", "Events:", "Started"],
        );
        assert_words(
            &self.run(&["get", "pod", "talker", "-o", "wide"]).ok(),
            &["1/1", "Running", "10.244."],
        );
        assert_words(
            &self.run(&["delete", "pod", "talker"]).ok(),
            &["pod \"talker\" deleted"],
        );
        assert_words(&self.run(&["get", "pod", "talker"]).fails(1), &["NotFound"]);
    }

    fn watch(&self, arguments: &[&str]) -> Watching {
        let file = self.home.join("watched");
        let out = std::fs::File::create(&file).expect("a file can be made");
        let mut command = self.command(arguments);
        Watching {
            process: command
                .stdin(Stdio::null())
                .stdout(out)
                .spawn()
                .expect("it can be run"),
            file,
        }
    }
}

/// A watching kubectl; it ends with the value.
struct Watching {
    process: std::process::Child,
    file: PathBuf,
}

impl Watching {
    fn until(&self, words: &[&str]) {
        until("a watched line", 30, || {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let found = text
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err(text) }
        });
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
