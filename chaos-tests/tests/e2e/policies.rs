//! Network policies, as they are applied and as pods feel them.

use crate::manifests::{SERVE, SLEEP, documents, pod, service, wait_pods};
use crate::site::Site;
use crate::told::{timed, until};
use serde_json::{Value, json};

#[test]
fn policies_say_who_talks_to_whom() {
    let site = timed("a master and two nodes", || {
        Site::cluster("policies", 41, 1, 2)
    });
    let on = |node: &str, mut pod: Value| {
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    let mut web = on("n1", pod("web", SERVE));
    web["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    site.apply(&documents(&[
        web,
        service("web"),
        on("n1", pod("friend", SLEEP)),
        on("n2", pod("far-friend", SLEEP)),
        on("n2", pod("stranger", SLEEP)),
    ]));
    for app in ["web", "friend", "far-friend", "stranger"] {
        wait_pods(&site, app, 1);
    }
    let clients = ["friend", "far-friend", "stranger"];
    expect(&site, &clients, [true, true, true]);

    timed("default deny", || {
        site.apply(&policy("deny", json!({"podSelector": {}})));
        expect(&site, &clients, [false, false, false]);
    });
    timed("friends by label and port", || {
        let friends = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["friend", "far-friend"]}]});
        site.apply(&policy(
            "friends",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"podSelector": friends}], "ports": [{"port": 8080}]}],
            }),
        ));
        expect(&site, &clients, [true, true, false]);
        let mut befriended = on("n2", pod("stranger", SLEEP));
        befriended["metadata"]["labels"]["app"] = json!("friend");
        site.apply(&befriended.to_string());
        expect(&site, &clients, [true, true, true]);
    });
    timed("a new pod is closed from its first packet", || {
        site.apply(&policy(
            "no-way-out",
            json!({"podSelector": {"matchLabels": {"app": "caged"}}, "policyTypes": ["Egress"]}),
        ));
        let script =
            "timeout 2 wget -qO- http://web >/tmp/answer; echo $? >/tmp/code; sleep 100000";
        site.apply(&on("n1", pod("caged", script)).to_string());
        wait_pods(&site, "caged", 1);
        let code = until("the caged pod's try", 20, || {
            let told = site.ctl(&["exec", "caged", "--", "cat", "/tmp/code"]);
            if told.code == Some(0) && !told.out.is_empty() {
                Ok(told.out)
            } else {
                Err(format!("{told:?}"))
            }
        });
        assert_ne!(code.trim(), "0");
    });
    // The node's own probes reached it all the time.
    let web = &wait_pods(&site, "web", 1)[0];
    assert_eq!(web["status"]["containerStatuses"][0]["restartCount"], 0);
    timed("the last policy goes", || {
        site.ctl(&["delete", "networkpolicy", "deny", "friends", "no-way-out"])
            .ok();
        expect(&site, &["caged", "stranger", "friend"], [true, true, true]);
    });
}

fn policy(name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

/// Waits until exactly those of `clients` reach the service.
#[track_caller]
fn expect(site: &Site, clients: &[&str; 3], wanted: [bool; 3]) {
    until("who reaches the service", 20, || {
        let told = clients.map(|client| {
            let wget = ["timeout", "2", "wget", "-qO-", "http://web"];
            site.ctl(&[&["exec", client, "--"][..], &wget].concat())
        });
        let reached = told.each_ref().map(|told| told.out.trim() == "web");
        if reached == wanted {
            Ok(())
        } else {
            Err(format!("{reached:?}, not {wanted:?}: {told:?}"))
        }
    });
}
