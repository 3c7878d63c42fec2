//! What somebody does in the first hour: the tour of the README and the obvious questions after it.

use crate::api::Api;
use crate::manifests::{
    SERVE, SLEEP, all_running, deployment, documents, name, names, pod, pods_of, service, state,
    wait_pods,
};
use crate::site::{IMAGE, Site, items, repository};
use crate::told::{assert_words, timed, until};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn a_newcomers_first_hour() {
    let site = timed("three masters and two nodes", || {
        Site::cluster("hour", 1, 3, 2)
    });
    // What needs time to go wrong begins first.
    site.apply(&documents(&[
        faller(),
        glutton(),
        huge(),
        talker(),
        measured(),
    ]));
    timed("apply", || an_application_is_applied_once(&site));
    timed("network", || every_pod_reaches_every_pod(&site));
    timed("service", || {
        a_service_has_a_name_and_only_ready_pods(&site)
    });
    timed("logs", || logs_are_read_and_followed(&site));
    timed("exec", || commands_run_in_containers(&site));
    timed("scale", || deployments_scale_and_tell_who_watches(&site));
    timed("rollout", || rollouts_go_forth_and_back(&site));
    timed("short", || {
        short_manifests_are_completed_by_ctl_and_refused_by_the_api(&site)
    });
    timed("volumes", || volumes_hold_what_they_say(&site));
    timed("explain", || what_cannot_be_placed_is_explained(&site));
    timed("failures", || failing_containers_are_told(&site));
    timed("limits", || limits_reach_the_kernel(&site));
    timed("owners", || owned_objects_go_with_their_owner(&site));
    timed("namespace", || a_namespace_goes_with_all_in_it(&site));
}

fn web() -> String {
    repository()
        .join("deploy/examples/web.yaml")
        .display()
        .to_string()
}

/// Exits with an error, again and again.
fn faller() -> Value {
    pod("faller", "echo falling; exit 3")
}

/// Takes more memory than it may have.
fn glutton() -> Value {
    let mut pod = pod("glutton", "");
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"][0]["command"] =
        json!(["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "24Mi"}});
    pod
}

/// Asks for more than any machine has.
fn huge() -> Value {
    let mut pod = pod("huge", SLEEP);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1000"}});
    pod
}

/// Counts in its log.
fn talker() -> Value {
    pod(
        "talker",
        "trap 'exit 0' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done",
    )
}

/// Has a tenth of a core and 32 MiB.
fn measured() -> Value {
    let mut pod = pod("measured", SLEEP);
    pod["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "100m", "memory": "32Mi"}});
    pod
}

fn an_application_is_applied_once(site: &Site) {
    assert_eq!(
        site.ctl(&["apply", "-f", &web()]).ok(),
        "deployment.apps/web created\nservice/web created\n"
    );
    let told = site
        .ctl(&["rollout", "status", "deployment/web", "--timeout", "60s"])
        .ok();
    assert_words(&told, &["deployment \"web\" successfully rolled out"]);
    assert_eq!(
        site.ctl(&["apply", "-f", &web()]).ok(),
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    let pods = wait_pods(site, "web", 3);
    let nodes: BTreeSet<&str> = pods
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    assert_eq!(
        nodes,
        BTreeSet::from(["n1", "n2"]),
        "the pods spread over the nodes"
    );
    assert_words(
        &site.ctl(&["get", "pods", "-o", "wide"]).ok(),
        &["READY", "NODE", "web-", "Running", "n1", "n2"],
    );
}

fn every_pod_reaches_every_pod(site: &Site) {
    let pods = pods_of(site, "web");
    for from in &pods {
        for to in &pods {
            let url = format!(
                "http://{}:8080/",
                to["status"]["podIP"].as_str().expect("it has an address")
            );
            // A pod without a probe is ready before its program listens.
            let told = until("the pod's answer", 10, || ask_from(site, &name(from), &url));
            assert_eq!(
                told,
                format!("hello from {}", name(to)),
                "from {}",
                name(from)
            );
        }
    }
}

/// What is answered to a pod.
fn ask_from(site: &Site, pod: &str, url: &str) -> Result<String, String> {
    let told = site.ctl(&["exec", pod, "--", "timeout", "3", "wget", "-qO-", url]);
    if told.code == Some(0) {
        Ok(told.out.trim().to_owned())
    } else {
        Err(format!("{told:?}"))
    }
}

fn ask(site: &Site, url: &str) -> Result<String, String> {
    ask_from(site, "talker", url)
}

fn a_service_has_a_name_and_only_ready_pods(site: &Site) {
    for url in [
        "http://web",
        "http://web.default",
        "http://web.default.svc.cluster.local",
    ] {
        let told = until("the service's answer", 20, || ask(site, url));
        assert_words(&told, &["hello from web-"]);
    }
    let mut half = deployment("half", 2, SERVE);
    half["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1});
    site.apply(&documents(&[half, service("half")]));
    let pods = site.wait(&["pods", "-l", "app=half"], 30, |list| {
        items(list).len() == 2
            && items(list)
                .iter()
                .all(|pod| pod["status"]["phase"] == "Running")
    });
    ask(site, "http://half").expect_err("no pod is ready yet, so nobody answers");
    let chosen = name(&items(&pods)[1]);
    site.ctl(&["exec", &chosen, "--", "touch", "/tmp/ready"])
        .ok();
    let first = until("the answer of the ready pod", 20, || {
        ask(site, "http://half")
    });
    let answers: BTreeSet<String> = (0..8)
        .map(|_| ask(site, "http://half").expect("a ready pod answers"))
        .chain([first])
        .collect();
    assert_eq!(
        answers,
        BTreeSet::from([chosen]),
        "only the ready pod answers"
    );
    site.ctl(&["delete", "deploy/half", "service/half", "--no-wait"])
        .ok();
}

/// The lines of a command that goes on; it is ended with the value.
struct Following {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(mut command: Command) -> Following {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let out = BufReader::new(process.stdout.take().expect("is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Following { process, lines }
    }

    fn line_with(&self, words: &[&str]) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(20))
                .unwrap_or_else(|_| panic!("no line with {words:?} came"));
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn logs_are_read_and_followed(site: &Site) {
    let all = site.ctl(&["logs", "talker"]).ok();
    assert!(all.starts_with("line 0\nline 1\n"), "{all}");
    let tail = site
        .ctl(&["logs", "talker", "--tail", "2", "--timestamps"])
        .ok();
    assert_eq!(tail.lines().count(), 2, "{tail}");
    assert!(
        tail.lines()
            .all(|line| line.starts_with("20") && line.contains("Z line ")),
        "{tail}"
    );
    let next = all.lines().count() + 10;
    let following = Following::start(site.ctl_command(&["logs", "-f", "talker"]));
    following.line_with(&[&format!("line {next}")]);
    site.ctl(&["logs", "nobody"]).fails(4);
}

fn commands_run_in_containers(site: &Site) {
    assert_eq!(
        site.ctl_with(&["exec", "-i", "talker", "--", "cat"], "typed\n")
            .ok(),
        "typed\n"
    );
    let big = "0123456789abcdef".repeat(20_000);
    assert_eq!(
        site.ctl_with(&["exec", "-i", "talker", "--", "wc", "-c"], &big)
            .ok()
            .trim(),
        "320000"
    );
    let told = site.ctl(&[
        "exec",
        "talker",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (told.code, told.out.as_str()),
        (Some(7), "out\n"),
        "{told:?}"
    );
    assert_words(&told.err, &["err", "exit code 7"]);
    let told = site
        .ctl(&[
            "exec",
            "-it",
            "talker",
            "--",
            "sh",
            "-c",
            "test -t 0 && test -t 1 && echo terminal",
        ])
        .ok();
    assert_eq!(told, "terminal\r\n");
    assert_words(
        &site.ctl(&["exec", "deploy/web", "--", "hostname"]).ok(),
        &["web-"],
    );
    let told = site.ctl(&["exec", "talker", "--", "no-such-command"]);
    assert!(
        told.code != Some(0) && told.err.contains("no-such-command"),
        "{told:?}"
    );
}

fn deployments_scale_and_tell_who_watches(site: &Site) {
    let watching = Following::start(site.ctl_command(&["get", "deploy", "web", "-w"]));
    watching.line_with(&["web", "3/3"]);
    assert_words(
        &site.ctl(&["scale", "deploy/web", "--replicas", "5"]).ok(),
        &["deployment.apps/web scaled"],
    );
    watching.line_with(&["web", "5/5"]);
    wait_pods(site, "web", 5);
    site.ctl(&["scale", "deploy/web", "--replicas", "2"]).ok();
    watching.line_with(&["web", "2/2"]);
    wait_pods(site, "web", 2);
}

fn rollouts_go_forth_and_back(site: &Site) {
    let text = std::fs::read_to_string(web()).expect("the example is there");
    let newer = text.replace(
        "          ports:\n",
        "          env:\n            - name: COLOUR\n              value: blue\n          ports:\n",
    );
    assert_ne!(text, newer);
    assert_words(
        &site.apply(&newer),
        &["deployment.apps/web configured", "service/web unchanged"],
    );
    site.ctl(&["rollout", "status", "deploy/web", "--timeout", "60s"])
        .ok();
    wait_pods(site, "web", 3);
    assert_eq!(
        site.ctl(&["exec", "deploy/web", "--", "sh", "-c", "echo $COLOUR"])
            .ok(),
        "blue\n"
    );
    assert_eq!(revisions(site), [1, 2]);
    assert_words(
        &site.ctl(&["rollout", "undo", "deploy/web"]).ok(),
        &["rolled back"],
    );
    site.ctl(&["rollout", "status", "deploy/web", "--timeout", "60s"])
        .ok();
    wait_pods(site, "web", 3);
    assert_eq!(
        site.ctl(&["exec", "deploy/web", "--", "sh", "-c", "echo $COLOUR"])
            .ok(),
        "\n"
    );
    assert_eq!(revisions(site), [2, 3]);
}

fn revisions(site: &Site) -> Vec<i64> {
    let history = site
        .json(&["rollout", "history", "deploy/web", "-o", "json"])
        .expect("the history is told");
    history
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["revision"].as_i64())
        .collect()
}

fn short_manifests_are_completed_by_ctl_and_refused_by_the_api(site: &Site) {
    let file = repository()
        .join("deploy/examples/short.yaml")
        .display()
        .to_string();
    let told = site.ctl(&["apply", "-f", &file]);
    assert_words(
        &told.err,
        &[
            "It stands for:",
            "apiVersion: apps/v1",
            "assumed:",
            "metadata.name \"backend\"",
            "the text \"true\" for DEBUG",
        ],
    );
    assert_eq!(told.ok(), "deployment.apps/backend created\n");
    let made = site.get(&["deploy", "backend"]);
    assert_eq!(
        made["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"],
        "true"
    );
    assert_eq!(names(&pods_of_owner(site, "backend")).len(), 3);
    site.ctl(&["delete", "deploy", "backend", "--no-wait"]).ok();

    let short = json!({
        "apiVersion": "v1", "kind": "Deployment", "metadata": {"app": "backend"},
        "spec": {"replicas": 3, "containers": [{"name": "a", "image": IMAGE, "env": [{"name": "DEBUG", "value": true}]}]},
    });
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (code, message) = Api::of(site).refusal(Method::POST, path, &short.to_string());
    assert_eq!(code, 400, "{message}");
    assert_words(
        &message,
        &[
            "(v1)",
            "apps/v1",
            "metadata.app",
            "spec.template.spec.containers",
            "cannot unmarshal bool",
            "metadata.name",
            "spec.selector",
        ],
    );
}

/// The pods that a deployment has made, running or not.
fn pods_of_owner(site: &Site, app: &str) -> Vec<Value> {
    let selector = format!("app={app}");
    items(&site.wait(&["pods", "-l", &selector], 20, |list| {
        items(list).len() == 3
    }))
}

fn volumes_hold_what_they_say(site: &Site) {
    let folder = site.home().join("shared");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    std::fs::write(folder.join("file"), "of the node\n").expect("it can be written");
    // A folder of the node is more than pods get that nobody vouches for.
    site.apply(&documents(&[json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "default", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
    })]));
    let script = "cat /config/colour /secret/key /node/file; echo handed over >/scratch/note; echo $COLOUR $KEY; touch /config/x || echo read-only";
    let mut pod = pod("volumes", script);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["volumes"] = json!([
        {"name": "config", "configMap": {"name": "colours"}}, {"name": "secret", "secret": {"secretName": "keys"}},
        {"name": "scratch", "emptyDir": {}}, {"name": "node", "hostPath": {"path": folder, "type": "Directory"}},
    ]);
    let scratch = json!({"name": "scratch", "mountPath": "/scratch"});
    let main = &mut pod["spec"]["containers"][0];
    main["volumeMounts"] = json!([
        {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"}, scratch, {"name": "node", "mountPath": "/node"},
    ]);
    main["env"] = json!([
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "colours", "key": "colour"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
    ]);
    let second = json!({
        "name": "second", "image": IMAGE, "volumeMounts": [scratch],
        "command": ["sh", "-c", "until cat /scratch/note 2>/dev/null; do sleep 0.1; done"],
    });
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("is a list")
        .push(second);
    let colours = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "colours"}, "data": {"colour": "blue\n"}});
    let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "hidden\n"}});
    // The pod first: it waits for what it needs and is not lost by coming too early.
    site.apply(&documents(&[pod, colours, keys]));
    site.wait(&["pod", "volumes"], 30, |pod| {
        pod["status"]["phase"] == "Succeeded"
    });
    let told = site.ctl(&["logs", "volumes", "-c", "main"]).ok();
    assert_words(
        &told,
        &["blue\nhidden\nof the node\n", "blue hidden", "read-only"],
    );
    assert_eq!(
        site.ctl(&["logs", "volumes", "-c", "second"]).ok(),
        "handed over\n"
    );
}

fn what_cannot_be_placed_is_explained(site: &Site) {
    assert_words(
        &site.ctl(&["explain", "pod/huge"]).ok(),
        &["Insufficient cpu", "n1", "n2"],
    );
    let huge = site.get(&["pod", "huge"]);
    assert_eq!(huge["status"]["phase"], "Pending");
    let scheduled = &huge["status"]["conditions"][0];
    assert_eq!(
        (
            &scheduled["type"],
            &scheduled["status"],
            &scheduled["reason"]
        ),
        (
            &json!("PodScheduled"),
            &json!("False"),
            &json!("Unschedulable")
        )
    );
    assert_words(
        scheduled["message"].as_str().unwrap_or(""),
        &["0/2 nodes are available", "2 Insufficient cpu"],
    );
    assert_words(
        &site.ctl(&["describe", "pod", "huge"]).ok(),
        &["FailedScheduling", "Insufficient cpu"],
    );
}

fn failing_containers_are_told(site: &Site) {
    let glutton = site.wait(&["pod", "glutton"], 30, |pod| {
        pod["status"]["phase"] == "Failed"
    });
    let end = &state(&glutton)["terminated"];
    assert_eq!(
        (&end["reason"], &end["exitCode"]),
        (&json!("OOMKilled"), &json!(137)),
        "{end}"
    );

    let waits = |pod: &Value| state(pod)["waiting"]["reason"] == "CrashLoopBackOff";
    let faller = site.wait(&["pod", "faller"], 60, waits);
    let status = &faller["status"]["containerStatuses"][0];
    assert!(status["restartCount"].as_u64() >= Some(1), "{status}");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status}");
    assert_words(
        &site.ctl(&["describe", "pod", "faller"]).ok(),
        &["CrashLoopBackOff", "BackOff"],
    );
    assert_eq!(
        site.ctl(&["logs", "faller", "--previous"]).ok(),
        "falling\n"
    );
    site.ctl(&["delete", "pod", "faller", "glutton", "huge", "--no-wait"])
        .ok();
}

fn limits_reach_the_kernel(site: &Site) {
    let pod = site.wait(&["pod", "measured"], 30, |pod| {
        all_running(std::slice::from_ref(pod))
    });
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .expect("it runs")
        .rsplit('/')
        .next()
        .unwrap_or("")
        .to_owned();
    let mut find = Command::new("find");
    // Other pods come and go meanwhile.
    find.args(["/sys/fs/cgroup", "-ignore_readdir_race", "-type", "d"]);
    find.args(["-name", &format!("*{id}*")]);
    let folders = crate::told::Told::of(find, b"").ok();
    let read = |file: &str| {
        folders
            .lines()
            .find_map(|folder| std::fs::read_to_string(format!("{folder}/{file}")).ok())
    };
    let quota = read("cpu.max")
        .or_else(|| read("cpu.cfs_quota_us"))
        .unwrap_or_else(|| panic!("no CPU limit in {folders}"));
    assert!(quota.starts_with("10000"), "a tenth of a core, not {quota}");
    let memory = read("memory.max")
        .or_else(|| read("memory.limit_in_bytes"))
        .unwrap_or_else(|| panic!("no memory limit in {folders}"));
    assert_eq!(memory.trim(), (32 << 20).to_string());
}

fn owned_objects_go_with_their_owner(site: &Site) {
    site.ctl(&["delete", "deploy/web"]).ok();
    let gone = |list: &Value| items(list).is_empty();
    site.wait(&["rs", "-l", "app=web"], 30, gone);
    site.wait(&["pods", "-l", "app=web"], 30, gone);
}

fn a_namespace_goes_with_all_in_it(site: &Site) {
    site.apply(&documents(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
    ]));
    let file = documents(&[deployment("inner", 2, SLEEP), service("inner")]);
    site.ctl_with(&["-n", "team", "apply", "-f", "-"], &file)
        .ok();
    site.ctl(&[
        "-n",
        "team",
        "rollout",
        "status",
        "deploy/inner",
        "--timeout",
        "60s",
    ])
    .ok();
    site.ctl(&["delete", "namespace", "team", "--timeout", "60s"])
        .ok();
    site.ctl(&["get", "namespace", "team"]).fails(4);
    assert!(items(&site.get(&["pods,deploy,rs,services", "-A", "-l", "app=inner"])).is_empty());
}
