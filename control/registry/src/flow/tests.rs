//! Requests arrive, wait, run and end in a time that the tests set.

use super::*;
use objects::identities::AUTHENTICATED_GROUP;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn caller(user: &str, groups: &[&str]) -> Caller {
    let mut groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
    groups.push(AUTHENTICATED_GROUP.to_owned());
    Caller {
        user: user.to_owned(),
        groups,
        ..Caller::default()
    }
}

fn list<'a>(resource: &'a str, namespace: &'a str) -> Request<'a> {
    Request {
        verb: "list",
        resource,
        namespace,
        ..Request::default()
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Object {
    let text = json!({
        "kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": {"name": name, "uid": name}, "spec": spec,
    });
    Object::from_value(text).expect("an object")
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn each_belongs_where_kubernetes_puts_it() {
    let flows = Flows::new(600);
    let node = caller("system:node:n1", &["system:nodes"]);
    let account = "system:serviceaccount";
    let system = caller(
        &format!("{account}:kube-system:c"),
        &["system:serviceaccounts"],
    );
    let own = caller(&format!("{account}:default:c"), &["system:serviceaccounts"]);
    let (ann, root) = (caller("ann", &[]), caller("root", &["system:masters"]));
    let lease = Request {
        verb: "update",
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-node-lease",
        name: "n1",
        ..Request::default()
    };
    let (pods, nodes) = (list("pods", "default"), list("nodes", ""));
    let health = Request::path("get", "/healthz");
    for (caller, request, schema, level) in [
        (&root, &pods, "exempt", "exempt"),
        (&ann, &health, "probes", "exempt"),
        (&node, &lease, "system-node-high", "node-high"),
        (&node, &nodes, "system-node-high", "node-high"),
        (&node, &pods, "system-nodes", "system"),
        (
            &system,
            &lease,
            "workload-leader-election",
            "leader-election",
        ),
        (
            &system,
            &pods,
            "kube-system-service-accounts",
            "workload-high",
        ),
        (&own, &pods, "service-accounts", "workload-low"),
        (&ann, &pods, "global-default", "global-default"),
        (
            &ann,
            &Request::path("get", "/apis"),
            "global-default",
            "global-default",
        ),
    ] {
        let class = flows.classify(caller, request);
        assert_eq!((&*class.schema, &*class.level), (schema, level));
    }
    // Who is in no group at all is caught by the last.
    let nobody = flows.classify(&Caller::default(), &pods);
    assert_eq!(nobody.schema, "catch-all");
    // Users are flows of their own, and the same one every time.
    let other = flows.classify(&caller("bob", &[]), &pods);
    assert_ne!(flows.classify(&ann, &pods), other);
    assert_eq!(flows.classify(&ann, &pods), flows.classify(&ann, &nodes));
}

#[test]
fn a_schema_counts_once_its_level_is_there_and_no_longer_than_it() {
    let mut flows = Flows::new(600);
    let schema = object(
        "FlowSchema",
        "mine",
        json!({
            "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "mine"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}],
            }],
        }),
    );
    let level = object(
        "PriorityLevelConfiguration",
        "mine",
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 10, "limitResponse": {"type": "Reject"},
        }}),
    );
    let key = |object: &Object, plural: &str| {
        let resource = objects::GroupResource::new(GROUP, plural);
        ObjectKey::new(resource, None, &object.metadata.name)
    };
    let level_key = key(&level, "prioritylevelconfigurations");
    let (ann, pods) = (caller("ann", &[]), list("pods", "default"));
    flows.set(&key(&schema, "flowschemas"), Some(&schema));
    assert_eq!(flows.classify(&ann, &pods).schema, "global-default");
    flows.set(&level_key, Some(&level));
    let class = flows.classify(&ann, &pods);
    assert_eq!((&*class.schema, &*class.schema_uid), ("mine", "mine"));
    assert_eq!((&*class.level, &*class.level_uid), ("mine", "mine"));
    let Arrival::Runs(ticket) = flows.arrive(&class, 1, ms(0)) else {
        panic!("there is a seat");
    };
    flows.set(&level_key, None);
    assert_eq!(flows.classify(&ann, &pods).schema, "global-default");
    assert!(flows.levels().any(|level| level.name == "mine"));
    flows.end(ticket, ms(1));
    assert!(flows.levels().all(|level| level.name != "mine"));
    // The mandatory ones cannot be taken away, nor bent.
    let catch_all = object("FlowSchema", CATCH_ALL, json!({"matchingPrecedence": 1}));
    let catch_all_key = key(&catch_all, "flowschemas");
    flows.set(&catch_all_key, Some(&catch_all));
    flows.replace(&[]);
    flows.set(&catch_all_key, None);
    assert_eq!(flows.classify(&ann, &pods).level, CATCH_ALL);
}

#[test]
fn what_finds_no_seat_waits_and_what_finds_no_place_is_refused() {
    let mut flows = Flows::new(10);
    let class = flows.classify(&caller("ann", &[]), &list("pods", "default"));
    let mut running = Vec::new();
    let mut waiting = Vec::new();
    let refused = loop {
        match flows.arrive(&class, 1, ms(0)) {
            Arrival::Runs(ticket) => running.push(ticket),
            Arrival::Waits(ticket) => waiting.push(ticket),
            Arrival::Refused(why) => break why,
        }
        assert!(waiting.len() < 1000);
    };
    assert_eq!(refused, Refusal::QueueFull);
    // A hand of six queues, fifty places each.
    assert_eq!(waiting.len(), 300);
    flows.end(running[0], ms(1));
    let called = flows.take_called();
    assert!(called.len() == 1 && waiting.contains(&called[0]));
    let last = *waiting.last().expect("some wait");
    assert!(flows.time_out(last, ms(2)));
    assert!(!flows.time_out(called[0], ms(2)));
    for ticket in running.iter().chain(&waiting) {
        flows.end(*ticket, ms(3));
    }
    assert!(
        flows
            .levels()
            .all(|level| (level.seats, level.running, level.waiting) == (0, 0, 0))
    );
    let counts = &flows.counts()[&("global-default".to_owned(), "global-default".to_owned())];
    assert_eq!((counts.running, counts.waiting), (0, 0));
    assert_eq!(counts.refused[&Refusal::QueueFull], 1);
    assert_eq!(counts.refused[&Refusal::TimeOut], 1);
}

#[test]
fn a_level_without_queues_refuses_and_the_exempt_one_never() {
    let mut flows = Flows::new(10);
    let catch_all = flows.classify(&Caller::default(), &list("pods", ""));
    let arrivals: Vec<Arrival> = (0..30)
        .map(|_| flows.arrive(&catch_all, 1, ms(0)))
        .collect();
    assert!(matches!(arrivals[0], Arrival::Runs(_)));
    assert_eq!(arrivals[29], Arrival::Refused(Refusal::NoSeat));
    let exempt = caller("root", &["system:masters"]);
    let exempt = flows.classify(&exempt, &list("pods", ""));
    for _ in 0..100 {
        let arrived = flows.arrive(&exempt, 10, ms(0));
        assert!(matches!(arrived, Arrival::Runs(_)));
    }
}

#[test]
fn an_idle_level_lends_and_gets_back() {
    let mut flows = Flows::new(100);
    let robot = caller("system:serviceaccount:a:b", &["system:serviceaccounts"]);
    let robot = flows.classify(&robot, &list("pods", "a"));
    let ann = flows.classify(&caller("ann", &[]), &list("pods", "a"));
    let limit = |flows: &Flows, name: &str| {
        let mut levels = flows.levels();
        levels.find(|level| level.name == name).expect(name).limit
    };
    let own = limit(&flows, "workload-low");
    for _ in 0..200 {
        flows.arrive(&robot, 1, ms(1));
    }
    flows.tick(ms(1000));
    let borrowed = limit(&flows, "workload-low");
    assert!(borrowed > own, "{borrowed} > {own}");
    // Whoever lent has its own again at once, however busy the other one is.
    for at in 0..20 {
        flows.arrive(&ann, 1, ms(2000 + at));
    }
    flows.tick(ms(3000));
    let mut levels = flows.levels();
    let level = levels.find(|level| level.name == "global-default");
    let level = level.expect("is there");
    assert!(level.limit >= level.bounds.nominal, "{level:?}");
}

/// A flood of one user, each request a millisecond long, and one request of another user: it waits for what runs, not for what
/// waits.
#[test]
fn a_flood_does_not_drown_others() {
    let mut flows = Flows::new(20);
    let pods = list("pods", "default");
    let flood = flows.classify(&caller("flood", &[]), &pods);
    let mut running = Vec::new();
    let mut waited = Vec::new();
    let mut calm: Option<(Ticket, Duration)> = None;
    for step in 0..600 {
        let now = ms(step);
        for ticket in running.drain(..) {
            flows.end(ticket, now);
        }
        for _ in 0..50 {
            if let Arrival::Runs(ticket) = flows.arrive(&flood, 1, now) {
                running.push(ticket);
            }
        }
        if calm.is_none() && step % 20 == 10 {
            // Another name each time: some of them share queues with the flood.
            let user = caller(&format!("calm-{step}"), &[]);
            let class = flows.classify(&user, &pods);
            match flows.arrive(&class, 1, now) {
                Arrival::Runs(ticket) => {
                    running.push(ticket);
                    waited.push(Duration::ZERO);
                }
                Arrival::Waits(ticket) => calm = Some((ticket, now)),
                Arrival::Refused(why) => panic!("{why:?}"),
            }
        }
        for ticket in flows.take_called() {
            if let Some((_, since)) = calm.take_if(|(calm, _)| *calm == ticket) {
                waited.push(now - since);
            }
            running.push(ticket);
        }
    }
    assert!(waited.len() > 25, "{}", waited.len());
    // At first nothing is known of how long a request takes, and no seat is borrowed yet.
    assert!(waited.iter().all(|waited| *waited <= ms(10)), "{waited:?}");
    assert!(
        waited[5..].iter().all(|waited| *waited <= ms(2)),
        "{waited:?}"
    );
    let flood = &flows.counts()[&("global-default".to_owned(), "global-default".to_owned())];
    assert!(flood.refused[&Refusal::QueueFull] > 1000);
}

proptest! {
    /// Whatever happens: no seat is lost, none is given twice, and who waits runs once there is room.
    #[test]
    fn seats_come_back(steps in prop::collection::vec((0usize..6, 0usize..8, 1u32..12, 0u64..200), 1..300)) {
        let mut flows = Flows::new(30);
        let mut now = Duration::ZERO;
        let (mut running, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for (what, who, seats, passed) in steps {
            now += ms(passed);
            let user = match who {
                0 => Caller::default(),
                1 => caller("system:node:n", &["system:nodes"]),
                who => caller(&format!("u{who}"), &[]),
            };
            match what {
                0..=2 => {
                    let class = flows.classify(&user, &list("pods", "default"));
                    match flows.arrive(&class, seats, now) {
                        Arrival::Runs(ticket) => prop_assert!(running.insert(ticket)),
                        Arrival::Waits(ticket) => prop_assert!(waiting.insert(ticket)),
                        Arrival::Refused(_) => {}
                    }
                }
                3 => {
                    if let Some(ticket) = running.pop_first() {
                        flows.end(ticket, now);
                    }
                }
                4 => {
                    if let Some(ticket) = waiting.pop_last() && !flows.time_out(ticket, now) {
                        running.insert(ticket);
                    }
                }
                _ => flows.tick(now),
            }
            for ticket in flows.take_called() {
                prop_assert!(waiting.remove(&ticket) && running.insert(ticket));
            }
            let (runs, waits) = flows.levels().fold((0, 0), |sum, level| {
                (sum.0 + level.running, sum.1 + level.waiting)
            });
            prop_assert_eq!((runs, waits), (running.len(), waiting.len()));
        }
        while let Some(ticket) = running.pop_first() {
            now += ms(1);
            flows.end(ticket, now);
            flows.tick(now);
            for ticket in flows.take_called() {
                prop_assert!(waiting.remove(&ticket) && running.insert(ticket));
            }
        }
        prop_assert!(waiting.is_empty(), "{} starve", waiting.len());
        prop_assert!(flows.levels().all(|level| level.seats == 0));
    }
}
