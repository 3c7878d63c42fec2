//! The dashboard in a real browser, on a real cluster: what it shows, that it is live, and what can be done with it.
//!
//! Pictures of it are left in the target folder, `tmp/dashboard/`.

use crate::browser::Browser;
use crate::site::{Site, repository};
use crate::told::{timed, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

#[test]
fn the_dashboard_shows_and_does() {
    let mut site = timed("three masters and two nodes", || {
        Site::cluster("dash", 21, 3, 2)
    });
    let web =
        fs::read_to_string(repository().join("deploy/examples/web.yaml")).expect("the example");
    site.apply(&web);
    site.ctl(&["rollout", "status", "deploy/web", "--timeout", "60s"])
        .ok();
    let proxy = Proxy::start(&site);
    let mut browser = Browser::start(&site.home().join("browser"));
    timed("the whole cluster at a glance", || {
        overview(&mut browser, &proxy.address)
    });
    timed("what changes is shown at once", || {
        live(&site, &mut browser)
    });
    timed("scaling and restarting", || {
        scale_and_restart(&site, &mut browser)
    });
    timed("a pod's detail, log and shell", || {
        a_pod(&site, &mut browser)
    });
    timed("what objects say stays text", || {
        hostile_texts(&site, &mut browser)
    });
    timed("search, namespaces and the keyboard", || {
        search(&mut browser)
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());
    timed("the leader is killed", || {
        another_leads(&mut site, &mut browser)
    });
    timed("without an identity one must sign in", || {
        sign_in(&site, &mut browser)
    });
    timed("who may read one namespace alone sees that one", || {
        one_namespace(&site, &mut browser)
    });
}

/// `ctl dashboard`, and the address that it printed.
struct Proxy {
    process: Child,
    address: String,
}

impl Proxy {
    fn start(site: &Site) -> Proxy {
        let mut command = site.ctl_command(&["dashboard"]);
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("ctl can be run");
        let mut address = String::new();
        let out = process.stdout.take().expect("is piped");
        BufReader::new(out)
            .read_line(&mut address)
            .expect("it prints its address");
        let address = address.trim().to_owned();
        assert!(address.starts_with("http://127.0.0.1:"), "{address:?}");
        Proxy { process, address }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

fn overview(browser: &mut Browser, address: &str) {
    browser.prefer("light");
    browser.open(address);
    browser.reads(&[
        "Cluster",
        "3/3",
        "led by",
        "2/2",
        "all ready",
        "Leader",
        "Follower",
        "web-",
    ]);
    browser.wait(
        "every pod on its node",
        "document.querySelectorAll('.machine .chip.good').length === 3",
    );
    browser.picture(&pictures().join("cluster-light.png"));
    let light = browser
        .look("getComputedStyle(document.body).backgroundColor")
        .expect("a colour");
    browser.prefer("dark");
    browser.picture(&pictures().join("cluster-dark.png"));
    let dark = browser
        .look("getComputedStyle(document.body).backgroundColor")
        .expect("a colour");
    assert_ne!(light, dark);
    // The switch overrules the system: automatic, then light.
    browser.click("#theme");
    browser.wait(
        "the light theme",
        &format!("getComputedStyle(document.body).backgroundColor === {light}"),
    );
    browser.click("#theme");
    browser.click("#theme");
    browser.prefer("light");
}

fn live(site: &Site, browser: &mut Browser) {
    browser
        .look("location.hash = '#/pods'; globalThis.same = true")
        .expect("goes there");
    browser.reads(&["web-", "Running"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": crate::site::IMAGE, "command": ["sh", "-c", "n=0; while true; do n=$((n+1)); echo line-$n; sleep 1; done"]}]}});
    site.apply(&pod.to_string());
    browser.wait("the new pod, running", &row_says("bare", "Running"));
    assert_eq!(
        browser.look("same"),
        Ok(Value::Bool(true)),
        "the page was loaded again"
    );
}

/// Whether the row of the first table that begins with a name holds a text.
fn row_says(name: &str, text: &str) -> String {
    format!(
        "[...document.querySelectorAll('main tbody tr')].some((row) => row.cells[0].innerText.trim() === {} && row.innerText.includes({}))",
        json!(name),
        json!(text)
    )
}

fn scale_and_restart(site: &Site, browser: &mut Browser) {
    browser
        .look("location.hash = '#/workloads'")
        .expect("goes there");
    browser.wait("the workload, healthy", &row_says("web", "3/3"));
    browser.picture(&pictures().join("workloads.png"));
    browser.click("main tbody a");
    browser.reads(&["Deployment in default", "Scale", "Restart", "Available"]);
    browser.click("header .buttons button:first-child");
    browser.wait("the dialog", "document.activeElement.name === 'replicas'");
    browser.types("2");
    browser.picture(&pictures().join("scale.png"));
    browser.press("Enter");
    browser.reads(&["is scaled to 2"]);
    browser.reads(&["2 of 2"]);
    assert_eq!(site.get(&["deploy", "web"])["spec"]["replicas"], 2);
    browser.wait(
        "two pods are left",
        "document.querySelectorAll('main tbody tr td.name').length === 2",
    );

    let old = site.get(&["deploy", "web"])["metadata"]["generation"].clone();
    browser.click("header .buttons button:last-child");
    browser.click("dialog .primary");
    browser.reads(&["web restarts"]);
    let web = site.get(&["deploy", "web"]);
    assert_ne!(web["metadata"]["generation"], old);
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    assert!(
        annotations["kubectl.kubernetes.io/restartedAt"].is_string(),
        "{annotations}"
    );
    site.ctl(&["rollout", "status", "deploy/web", "--timeout", "60s"])
        .ok();
    browser.wait(
        "it is healthy again",
        "document.querySelector('h1').innerText.includes('Healthy')",
    );
    browser
        .look("location.hash += '/yaml'")
        .expect("goes there");
    browser.reads(&[
        "apiVersion: apps/v1",
        "kind: Deployment",
        "replicas: 2",
        "image: trireme.local/busybox:1",
    ]);
}

fn a_pod(site: &Site, browser: &mut Browser) {
    browser
        .look("location.hash = '#/pods/default/bare'")
        .expect("goes there");
    browser.reads(&[
        "Pod in default",
        "Containers",
        "main",
        "Conditions",
        "PodScheduled",
        "Scheduled",
        "Events",
    ]);
    browser.picture(&pictures().join("pod.png"));
    browser
        .look("location.hash = '#/pods/default/bare/log'")
        .expect("goes there");
    browser.reads(&["line-1\n"]);
    let lines = "document.querySelectorAll('.log span').length";
    let before = browser
        .look(lines)
        .expect("a number")
        .as_u64()
        .expect("a number");
    browser.wait("the log is followed", &format!("{lines} > {}", before + 1));
    browser.picture(&pictures().join("log.png"));
    browser
        .look("location.hash = '#/pods/default/bare/shell'")
        .expect("goes there");
    let terminal = "document.querySelector('.xterm-rows')?.innerText ?? ''";
    browser.wait("a prompt", &format!("({terminal}).includes('#')"));
    browser.types("echo $((6 * 7))-seen; tty; stty size");
    browser.press("Enter");
    browser.wait(
        "what the shell said",
        &format!("({terminal}).includes('42-seen') && ({terminal}).includes('/dev/pts/')"),
    );
    browser.picture(&pictures().join("shell.png"));
    browser.types("exit 3");
    browser.press("Enter");
    browser.wait(
        "how the shell ended",
        &format!("({terminal}).includes('The shell has ended')"),
    );
    let deleted = ["delete", "pod", "bare"];
    site.ctl(&deleted).ok();
    browser.reads(&["There is no pod bare in default"]);
}

/// Texts that would be markup, script or an end of an attribute elsewhere.
fn hostile_texts(site: &Site, browser: &mut Browser) {
    let hostile =
        "<img src=x onerror=\"complaints.push('ran')\"><script>complaints.push('ran')</script>'\"";
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "hostile", "namespace": "default"}, "type": "Warning",
        "reason": "Hostile", "message": hostile, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "../../x"},
        "firstTimestamp": now(), "lastTimestamp": now(), "count": 1});
    site.apply(&event.to_string());
    browser
        .look("location.hash = '#/events'")
        .expect("goes there");
    browser.reads(&[hostile]);
    assert_eq!(
        browser.look("document.querySelectorAll('main img, main script').length"),
        Ok(json!(0))
    );
}

#[expect(clippy::disallowed_methods, reason = "an event needs a time")]
fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn search(browser: &mut Browser) {
    browser
        .look("location.hash = '#/pods'")
        .expect("goes there");
    browser.reads(&["web-"]);
    browser.press("/");
    browser.wait(
        "the search has the focus",
        "document.activeElement.id === 'search'",
    );
    browser.types("nothing-like-this");
    browser.reads(&["No pod matches"]);
    browser
        .look("document.activeElement.select()")
        .expect("is an input");
    browser.types("app=web");
    browser.reads(&["web-"]);
    browser.look("(() => { const it = document.getElementById('namespace'); it.value = 'kube-system'; it.dispatchEvent(new Event('change')); })()").expect("is there");
    browser.reads(&["No pod matches"]);
    // Each control says what it is, and whatever can be clicked can be reached by Tab.
    let nameless = "[...document.querySelectorAll('a, button, input, select')].filter((it) => !(it.innerText || it.ariaLabel || it.labels?.length)).length";
    assert_eq!(browser.look(nameless), Ok(json!(0)));
}

fn another_leads(site: &mut Site, browser: &mut Browser) {
    browser
        .look("location.hash = '#/cluster'")
        .expect("goes there");
    let old = site.leader();
    browser.reads(&["3/3", &format!("led by {old}")]);
    site.end(&old, Signal::SIGKILL);
    browser.reads(&["2/3", "Silent", "led by"]);
    browser.wait(
        "another leader",
        &format!("!document.body.innerText.includes('led by {old}')"),
    );
    site.ctl(&["scale", "deploy/web", "--replicas", "1"]).ok();
    browser.look("location.hash = '#/workloads'; document.getElementById('namespace').value = ''; document.getElementById('namespace').dispatchEvent(new Event('change'))").expect("goes there");
    browser.wait("the page is still live", &row_says("web", "1/1"));
    site.start(&old);
}

fn sign_in(site: &Site, browser: &mut Browser) {
    let url = site.url("m1");
    until("the master answers again", 30, || {
        site.json(&["get", "nodes", "-o", "json"]).map(drop)
    });
    browser.open(&format!("{url}/"));
    browser.reads(&["Sign in to Trireme", "Bearer token", "ctl dashboard"]);
    assert_eq!(browser.look("location.pathname"), Ok(json!("/dashboard/")));
    browser.picture(&pictures().join("sign-in.png"));
    browser.click("#token");
    browser.types("no-token-of-this-cluster");
    browser.press("Enter");
    browser.reads(&["Unauthorized"]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(
        browser.look("location.href.includes('no-token')"),
        Ok(json!(false))
    );
}

fn one_namespace(site: &Site, browser: &mut Browser) {
    site.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: viewer, namespace: default}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: viewer, namespace: default}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\n\
         subjects: [{kind: ServiceAccount, name: viewer, namespace: default}]\n",
    );
    let kubectl = kubectls::all().pop().expect("one is there").program;
    let mut command = site.on("m1", &kubectl);
    command.arg("--kubeconfig").arg(site.kubeconfig()).args([
        "--server",
        &site.url("m1"),
        "create",
        "token",
        "viewer",
    ]);
    let token = command.output().expect("kubectl runs");
    assert!(token.status.success(), "{token:?}");
    let token = String::from_utf8(token.stdout).expect("a token");
    browser.open(&format!("{}/dashboard/#/pods", site.url("m1")));
    browser.click("#token");
    // The page is the same, and what was typed before may still be there.
    browser
        .look("document.activeElement.select()")
        .expect("is an input");
    browser.types(token.trim());
    browser.press("Enter");
    browser.reads(&["system:serviceaccount:default:viewer", "web-"]);
    browser.wait(
        "the namespace to be chosen by its name",
        "document.querySelector('input#namespace')?.value === 'default'",
    );
    browser.picture(&pictures().join("one-namespace.png"));
}
