//! Properties of the merge over pods: maps, lists by key, sets, and what is owned as a whole. The published cases and the
//! stories of whole requests are under `tests/`.

use super::*;
use objects::{GroupVersionKind, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

struct OneVersion;

impl Versions<'static> for OneVersion {
    fn convert(&self, _: &Typed<'static>, _: &str) -> Result<Option<Typed<'static>>, Fault> {
        Ok(None)
    }
}

fn pod_type() -> schema::Type<'static> {
    builtin::type_of(&GroupVersionKind::new("", "v1", "Pod"))
}

fn tracker(ignored: &Ignored, second: i64) -> Tracker<'_, 'static> {
    Tracker {
        r#type: pod_type(),
        version: "v1",
        subresource: "",
        ignored,
        versions: &OneVersion,
        now: Timestamp::from_unix(second),
    }
}

#[test]
fn steps_are_read_as_written() {
    for text in [
        "f:name",
        "f:a:b",
        r#"k:{"containerPort":80,"protocol":"TCP"}"#,
        r#"v:"a\u003cb""#,
        "v:1",
        "v:true",
        "i:3",
    ] {
        let element = Element::parse(text).expect("a step");
        assert_eq!(element.encode(), text);
    }
    assert_eq!(Element::parse("z:new"), Err(ElementError::Unknown));
    for text in ["f", "k:[]", "v:", "i:x", ""] {
        assert!(
            matches!(Element::parse(text), Err(ElementError::Malformed(_))),
            "{text}"
        );
    }
}

/// Only the newest ten updates are kept apart; of the older ones of a version, one entry is made.
#[test]
fn old_updates_become_one() {
    let none = Ignored::new();
    let mut object = json!({"metadata": {"labels": {}}});
    let mut managed = Managed::default();
    let mut live = Value::Null;
    for at in 0..14 {
        object["metadata"]["labels"][format!("l{at:02}")] = json!("x");
        let manager = format!("m{at:02}");
        managed = tracker(&none, at)
            .update(&live, &object, managed, &manager)
            .expect("is recorded");
        live = object.clone();
    }
    let entries = managed.encode();
    let names: Vec<&str> = entries
        .iter()
        .map(|entry| entry["manager"].as_str().expect("a name"))
        .collect();
    let kept = [
        "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12", "m13",
    ];
    assert_eq!(names[0], "ancient-changes");
    assert_eq!(names[1..], kept);
    assert_eq!(
        entries[0]["fieldsV1"]["f:metadata"]["f:labels"]["f:l04"],
        json!({})
    );
    assert_eq!(
        Managed::decode(&entries).expect("entries").encode(),
        entries
    );
}

fn pod() -> impl Strategy<Value = Value> {
    let port = (1..4_i64, proptest::option::of("(TCP|UDP)")).prop_map(|(number, protocol)| {
        let mut port = json!({"containerPort": number});
        if let Some(protocol) = protocol {
            port["protocol"] = json!(protocol);
        }
        port
    });
    let container = ("[a-c]", "[x-z]", proptest::collection::vec(port, 0..3)).prop_map(
        |(name, image, mut ports)| {
            ports.sort_by_key(|port| (port["containerPort"].to_string(), protocol(port)));
            ports.dedup_by_key(|port| (port["containerPort"].to_string(), protocol(port)));
            json!({"name": name, "image": image, "ports": ports})
        },
    );
    let containers = proptest::collection::vec(container, 1..4).prop_map(|mut containers| {
        containers.sort_by_key(|container| container["name"].to_string());
        containers.dedup_by_key(|container| container["name"].to_string());
        containers
    });
    let labels = proptest::collection::btree_map("[a-d]", "[x-z]", 0..4);
    let finalizers = proptest::collection::btree_set("[a-d]", 0..3);
    (
        containers,
        labels,
        finalizers,
        proptest::option::of("[x-z]"),
    )
        .prop_map(|(containers, labels, finalizers, host)| {
            let mut pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers},
            });
            if let Some(host) = host {
                pod["spec"]["hostname"] = json!(host);
            }
            pod
        })
}

fn protocol(port: &Value) -> String {
    port["protocol"].as_str().unwrap_or("TCP").to_owned()
}

fn fields_of(pod: &Value) -> Set {
    pod_type().field_set(pod).expect("a pod")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sets_are_read_as_written(one in pod(), other in pod()) {
        let (one, other) = (fields_of(&one), fields_of(&other));
        prop_assert_eq!(Set::decode(&one.encode()).expect("fields"), one.clone());
        prop_assert_eq!(one.union(&other), other.union(&one));
        let parts = one.difference(&other).union(&one.intersection(&other));
        prop_assert_eq!(parts, one.clone());
        prop_assert!(one.difference(&one).is_empty());
        prop_assert!(one.paths().iter().all(|path| one.has(path)));
    }

    #[test]
    fn what_is_equal_does_not_differ(one in pod(), other in pod()) {
        let there = pod_type().compare(&one, &other).expect("pods");
        prop_assert_eq!(there.is_same(), equal(&one, &other));
        let back = pod_type().compare(&other, &one).expect("pods");
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert!(pod_type().compare(&one, &one).expect("a pod").is_same());
    }

    /// An apply sets what it names, the same again changes nothing, and nothing at all gives back what was there before.
    #[test]
    fn an_apply_is_done_once_and_undone(live in pod(), config in pod()) {
        let none = Ignored::new();
        let first = tracker(&none, 1);
        let before = first.update(&Value::Null, &live, Managed::default(), "editor").expect("is recorded");
        let applied = first.apply(&live, &config, before, "alice", true).expect("is applied");
        let object = applied.object.unwrap_or_else(|| live.clone());
        prop_assert_eq!(pod_type().merge(&object, &config), Ok(object.clone()));
        let again = tracker(&none, 2).apply(&object, &config, applied.managed.clone(), "alice", false);
        let again = again.expect("is applied");
        prop_assert_eq!(again.object, None);
        prop_assert_eq!(&again.managed, &applied.managed);
        let nothing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let undone = tracker(&none, 3).apply(&object, &nothing, applied.managed, "alice", false);
        let undone = undone.expect("is undone");
        let left = undone.object.unwrap_or(object);
        let new = fields_of(&without_nulls(&left)).difference(&fields_of(&live)).leaves();
        prop_assert!(new.is_empty(), "{}", new);
    }

    /// Without force, nobody loses a field that he does not change himself.
    #[test]
    fn nobody_loses_what_he_owns(one in pod(), other in pod()) {
        let none = Ignored::new();
        let tracker = tracker(&none, 1);
        let first = tracker.apply(&Value::Null, &one, Managed::default(), "alice", false);
        let first = first.expect("is applied");
        let live = first.object.expect("is made");
        let second = tracker.apply(&live, &other, first.managed.clone(), "bob", false);
        match second {
            Err(ApplyError::Conflicts(conflicts)) => {
                let own = &first.managed.owners.values().next().expect("alice").set;
                prop_assert!(conflicts.iter().all(|conflict| own.has(&conflict.path)));
            }
            Err(ApplyError::Fault(fault)) => prop_assert!(false, "{}", fault),
            Ok(applied) => {
                let object = applied.object.unwrap_or(live);
                prop_assert_eq!(pod_type().merge(&object, &one), Ok(object));
            }
        }
    }
}

/// What is emptied by a removal is null until the object is decoded.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(name, value)| (name.clone(), without_nulls(value)));
            Value::Object(members.collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}
