//! An agent is killed and comes back, and a node is lost for good.

use crate::manifests::{SERVE, births, deployment, documents, lives, name, service, wait_pods};
use crate::site::{Site, condition, items};
use crate::told::{timed, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn an_agent_is_killed() {
    let mut site = timed("a master and two nodes", || Site::cluster("agent", 5, 1, 2));
    let mut web = deployment("web", 4, SERVE);
    // They stay on a lost node: only the endpoints are this story's matter.
    web["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    site.apply(&documents(&[web, service("web")]));
    wait_pods(&site, "web", 4);
    timed("an agent is killed and comes back", || {
        containers_outlive_their_agent(&mut site)
    });
    timed("a node is lost", || {
        a_lost_node_leaves_the_service(&mut site)
    });
    timed("the node comes back", || the_node_comes_back(&mut site));
}

fn containers_outlive_their_agent(site: &mut Site) {
    let before = (lives(site, "web"), births(site, "web"));
    for node in ["n1", "n2"] {
        site.end(node, Signal::SIGKILL);
    }
    // What is asked for meanwhile is done afterwards.
    site.ctl(&["scale", "deploy/web", "--replicas", "5"]).ok();
    for node in ["n1", "n2"] {
        site.start(node);
    }
    wait_pods(site, "web", 5);
    let after = (lives(site, "web"), births(site, "web"));
    assert_kept(&before.0, &after.0);
    assert_kept(&before.1, &after.1);
}

fn assert_kept(before: &[String], after: &[String]) {
    let lost: Vec<_> = before.iter().filter(|life| !after.contains(life)).collect();
    assert!(
        lost.is_empty(),
        "these did not live on: {lost:?}; there are {after:?}"
    );
}

/// The nodes behind the service.
fn nodes_behind(site: &Site) -> BTreeSet<String> {
    let slices = site.get(&["endpointslices", "-l", "kubernetes.io/service-name=web"]);
    let slices = items(&slices);
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready
        .filter_map(|endpoint| endpoint["nodeName"].as_str().map(str::to_owned))
        .collect()
}

fn a_lost_node_leaves_the_service(site: &mut Site) {
    let both = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
    until("both nodes behind the service", 20, || {
        let nodes = nodes_behind(site);
        if nodes == both {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
    site.end("n2", Signal::SIGKILL);
    site.wait(&["node", "n2"], 70, |node| {
        condition(node, "Ready") == "Unknown"
    });
    until("the lost node out of the service", 10, || {
        let nodes = nodes_behind(site);
        if nodes == BTreeSet::from(["n1".to_owned()]) {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
    let taints = site.get(&["node", "n2"])["spec"]["taints"].clone();
    let unreachable = |taint: &Value| taint["key"] == "node.kubernetes.io/unreachable";
    assert!(
        taints.as_array().into_iter().flatten().any(unreachable),
        "{taints}"
    );
    let pods = items(&site.get(&["pods", "-l", "app=web"]));
    let from = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"] == "n1")
        .map(name)
        .expect("n1 has pods");
    for _ in 0..4 {
        site.ctl(&[
            "exec",
            &from,
            "--",
            "timeout",
            "3",
            "wget",
            "-qO-",
            "http://web",
        ])
        .ok();
    }
}

fn the_node_comes_back(site: &mut Site) {
    site.start("n2");
    site.wait_nodes(2);
    wait_pods(site, "web", 5);
    // Their containers answer, all of them.
    assert_eq!(births(site, "web").len(), 5);
    until("both nodes behind the service again", 20, || {
        let nodes = nodes_behind(site);
        if nodes.len() == 2 {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
}
