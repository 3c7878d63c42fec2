//! The module's tests as stories: each file under testdata/schema holds cases with the answers they must give.

use super::*;
use crate::FieldValidation;
use expect_test::{expect, expect_file};
use objects::GroupVersion;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn patches_merge_as_types_say() {
    check("merge", |kind, lines| {
        let r#type = Schemas::builtin().kind(kind).expect("a known kind");
        let [original, patch] = [0, 1].map(|at| parse(lines[at]));
        match strategic_merge(Schemas::builtin(), r#type, original, patch) {
            Ok(value) => value.to_string(),
            Err(error) => format!(
                "{} {}",
                error.code(),
                error.to_string().trim_end().replace('\n', " ")
            ),
        }
    });
}

#[test]
fn bodies_are_brought_into_form() {
    check("conform", |kind, lines| {
        let (mut value, duplicates) = crate::decode_json(lines[0].as_bytes()).expect("is JSON");
        match accept(kind, &mut value, &duplicates, FieldValidation::Warn) {
            Ok(warnings) if warnings.is_empty() => value.to_string(),
            Ok(warnings) => format!("{value}\nWarning: {}", warnings.join("\nWarning: ")),
            Err(status) => format!("{} {}", status.code, status.message),
        }
    });
}

/// Runs every case of a file: `# story`, `apiVersion kind`, lines of input, `=>` and the answer. UPDATE_EXPECT=1 rewrites.
fn check(name: &str, run: impl Fn(&GroupVersionKind, &[&str]) -> String) {
    let path = format!("{}/testdata/schema/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the file of stories");
    let cases = text.trim_end().split("\n\n").map(|case| {
        let head: Vec<&str> = case
            .lines()
            .take_while(|line| !line.starts_with("=>"))
            .collect();
        let input: Vec<&str> = head
            .iter()
            .copied()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let (api_version, kind) = input[0].split_once(' ').expect("apiVersion and kind");
        let version = GroupVersion::parse(api_version).expect("an apiVersion");
        let kind = GroupVersionKind::new(&version.group, &version.version, kind);
        format!("{}\n=> {}\n", head.join("\n"), run(&kind, &input[1..]))
    });
    let got: Vec<String> = cases.collect();
    expect_file![path].assert_eq(&got.join("\n"));
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("the story's JSON")
}

#[test]
fn protobuf_says_the_same_as_json() {
    check("kubectl", |kind, lines| {
        let body = hex(lines[0]);
        let (decoded, value) = Schemas::builtin()
            .decode_protobuf(&body)
            .expect("is a body");
        assert_eq!(&decoded, kind);
        let mut json = parse(lines[1]);
        accept(kind, &mut json, &[], FieldValidation::Strict).expect("is strict");
        assert_eq!(value, json);
        value.to_string()
    });
}

#[test]
fn strict_bodies_with_faults_are_refused() {
    let kind = GroupVersionKind::new("apps", "v1", "Deployment");
    let body = parse(r#"{"spec":{"replica":1},"stat":{}}"#);
    let status =
        accept(&kind, &mut body.clone(), &[], FieldValidation::Strict).expect_err("is refused");
    assert_eq!(status.code, 400);
    assert_eq!(
        status.message,
        r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.replica", unknown field "stat""#
    );
    let warnings = accept(&kind, &mut body.clone(), &[], FieldValidation::Ignore);
    assert_eq!(warnings, Ok(vec![]));
}

#[test]
fn patches_with_faults_are_quoted() {
    let kind = GroupVersionKind::new("apps", "v1", "Deployment");
    let patch = json!({"spec": {"foo": "bar"}});
    let refuse = |strategic: Option<&Value>| {
        let mut made = patch.clone();
        let status = accept_patched(&kind, &mut made, strategic, &[], FieldValidation::Strict);
        let status = status.expect_err("is refused");
        assert_eq!(status.code, 422);
        status.message
    };
    let why = r#"strict decoding error: unknown field "spec.foo""#;
    assert_eq!(
        refuse(Some(&patch)),
        format!(r#" "" is invalid: patch: Invalid value: "map[spec:map[foo:bar]]": {why}"#)
    );
    assert_eq!(
        refuse(None),
        format!(
            r#" "" is invalid: patch: Invalid value: "{{\"spec\":{{\"foo\":\"bar\"}}}}": {why}"#
        )
    );
}

/// Shapes that no type of the built-in table has.
#[test]
fn rare_shapes_are_read() {
    let table = "@package test/v1 test t.v1\n@type Rare kind\nratio 1 double\nverbs 2 items[]string\nextra 3 {}items[]string\nbig 4 int64\nok 5 bool ptr\n";
    let schemas = load::parse(table).expect("a table");
    let mut message = vec![0x09];
    message.extend(0.5_f64.to_le_bytes());
    message.extend(b"\x12\x06\x0a\x01a\x0a\x01b\x1a\x08\x0a\x01k\x12\x03\x0a\x01v");
    message.extend(b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x28\x00\x7a\x03new");
    let mut body = b"k8s\0\x0a\x0f\x0a\x07test/v1\x12\x04Rare\x12".to_vec();
    body.push(message.len() as u8);
    body.extend(message);
    let (kind, value) = schemas.decode_protobuf(&body).expect("a body");
    assert_eq!(kind, GroupVersionKind::new("test", "v1", "Rare"));
    let expected = r#"{"kind":"Rare","apiVersion":"test/v1","ratio":0.5,"verbs":["a","b"],"extra":{"k":["v"]},"big":-1,"ok":false}"#;
    assert_eq!(value, parse(expected));
}

/// What may be a struct or something else, what is any JSON, and time spans, by Protobuf and by JSON.
#[test]
fn alternatives_are_read() {
    let table = "@package test/v1 test t.v1\n@type Rare kind\nitems 1 Rare|array ptr\nmore 2 Rare|bool ptr\nneeds 3 {}Rare|strings\nany 4 json ptr\nspan 5 duration\nid 6 string\n";
    let schemas = load::parse(table).expect("a table");
    let mut body = b"k8s\0\x0a\x0f\x0a\x07test/v1\x12\x04Rare\x12".to_vec();
    let message = b"\x0a\x0a\x12\x03\x32\x01a\x12\x03\x32\x01b\
        \x12\x02\x08\x01\
        \x1a\x09\x0a\x01k\x12\x04\x12\x02xy\
        \x1a\x0a\x0a\x01l\x12\x05\x0a\x03\x32\x01c\
        \x22\x05\x0a\x03[1]\
        \x2a\x06\x08\x80\xde\xa0\xcb\x05";
    body.push(message.len() as u8);
    body.extend(message);
    let (kind, value) = schemas.decode_protobuf(&body).expect("a body");
    let expected = r#"{"kind":"Rare","apiVersion":"test/v1","items":[{"id":"a"},{"id":"b"}],"more":true,"needs":{"k":["xy"],"l":{"id":"c"}},"any":[1],"span":"1.5s"}"#;
    assert_eq!(value, parse(expected));
    let r#type = schemas.kind(&kind).expect("known");
    let text = r#"{"items":{"id":"a","new":1},"more":false,"needs":{"k":["xy"]},"any":false,"span":"0s","new":1}"#;
    let mut json = parse(text);
    let found = conform(&schemas, r#type, &mut json, &[]);
    assert_eq!(found.strict, [r#"unknown field "new""#]);
    assert_eq!(
        json,
        parse(r#"{"items":{"id":"a"},"more":false,"needs":{"k":["xy"]},"any":false,"span":"0s"}"#)
    );
    let wrong = conform(&schemas, r#type, &mut parse(r#"{"more":"yes"}"#), &[]);
    expect!["json: cannot unmarshal string into Go struct field Rare.more of type v1.RareOrBool"]
        .assert_eq(&wrong.wrong_type.expect("a fault"));
}

#[test]
fn protobuf_faults_are_told() {
    let schemas = Schemas::builtin();
    let fault = |body: &[u8]| {
        schemas
            .decode_protobuf(body)
            .expect_err("is refused")
            .to_string()
    };
    expect![[r#"
        provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]
        no kind "Pid" is registered for version "v1"
        unexpected EOF
        unable to decode a protobuf body with content encoding "gzip"
        proto: wrong wireType for field metadata"#]]
    .assert_eq(
        &[
            fault(b"{}"),
            fault(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pid"),
            fault(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Po"),
            fault(b"k8s\0\x1a\x04gzip"),
            fault(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x08\x01"),
        ]
        .join("\n"),
    );
}

#[test]
fn lists_and_kinds_are_known_by_name() {
    let schemas = Schemas::builtin();
    let pod = schemas.named("io.k8s.api.core.v1.Pod").expect("Pod");
    assert_eq!(pod.kind, Some(GroupVersionKind::new("", "v1", "Pod")));
    assert!(
        schemas
            .kind(&GroupVersionKind::new("", "v1", "PodList"))
            .is_some()
    );
    assert!(
        schemas
            .kind(&GroupVersionKind::new("", "v1", "PodSpec"))
            .is_none()
    );
    assert!(
        schemas
            .kind(&GroupVersionKind::new("policy", "v1", "DeleteOptions"))
            .is_some()
    );
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|pair| {
        std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    bytes.collect::<Option<_>>().expect("hexadecimal digits")
}

/// Pods that use maps, merged lists, pointers and embedded types.
fn pod() -> impl Strategy<Value = Value> {
    let container =
        ("[a-d]", "[a-z]{0,3}", proptest::option::of(0..3_i32)).prop_map(|(name, image, port)| {
            let ports: Vec<Value> = port
                .iter()
                .map(|port| json!({"containerPort": port + 1}))
                .collect();
            json!({"name": name, "image": image, "ports": ports})
        });
    let containers = proptest::collection::vec(container, 0..4).prop_map(|mut containers| {
        containers.sort_by_key(|container| container["name"].to_string());
        containers.dedup_by_key(|container| container["name"].to_string());
        containers
    });
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    (containers, labels, proptest::option::of(0..2_i64)).prop_map(|(containers, labels, grace)| {
        let mut pod = json!({
            "metadata": {"labels": labels, "finalizers": ["f"]},
            "spec": {"containers": containers, "terminationGracePeriodSeconds": grace, "volumes": [{"name": "v", "emptyDir": {}}]},
        });
        accept(&pod_kind(), &mut pod, &[], FieldValidation::Strict).expect("a pod");
        pod
    })
}

fn pod_kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_patch_without_difference_changes_nothing(pod in pod()) {
        let schemas = Schemas::builtin();
        let r#type = schemas.kind(&pod_kind()).expect("Pod");
        let empty = strategic_merge(schemas, r#type, pod.clone(), json!({}));
        prop_assert_eq!(empty, Ok(pod.clone()));
        let itself = strategic_merge(schemas, r#type, pod.clone(), pod.clone());
        prop_assert_eq!(itself, Ok(pod));
    }

    #[test]
    fn a_patch_that_sets_a_pod_on_nothing_makes_that_pod(pod in pod()) {
        let schemas = Schemas::builtin();
        let r#type = schemas.kind(&pod_kind()).expect("Pod");
        let made = strategic_merge(schemas, r#type, json!({}), pod.clone());
        prop_assert_eq!(made, Ok(pod));
    }

    #[test]
    fn bringing_into_form_twice_is_bringing_once(pod in pod()) {
        let mut again = pod.clone();
        accept(&pod_kind(), &mut again, &[], FieldValidation::Strict).expect("a pod");
        prop_assert_eq!(again, pod);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let schemas = Schemas::builtin();
        let _ = schemas.decode_protobuf(&tail);
        for kind in [&b"Pod"[..], b"Node", b"Service"] {
            let mut body = b"k8s\0\x0a".to_vec();
            body.extend([kind.len() as u8 + 6, 0x0a, 2, b'v', b'1', 0x12, kind.len() as u8]);
            body.extend(kind);
            body.extend([0x12, tail.len() as u8 | 0x80, (tail.len() >> 7) as u8]);
            body.extend(&tail);
            let _ = schemas.decode_protobuf(&body);
        }
    }

    #[test]
    fn no_flipped_byte_makes_the_decoder_panic(which in 0..11_usize, at in 0..220_usize, byte in any::<u8>()) {
        let stories = include_str!("../../testdata/schema/kubectl.txt");
        let recorded = stories.lines().filter(|line| line.starts_with("6b3873")).nth(which).expect("eleven bodies");
        let mut body = hex(recorded);
        let length = body.len();
        body[at % length] = byte;
        if let Ok((kind, mut value)) = Schemas::builtin().decode_protobuf(&body) {
            let _ = accept(&kind, &mut value, &[], FieldValidation::Warn);
        }
    }

    #[test]
    fn no_patch_makes_the_merge_panic(original in any_json(), patch in any_json()) {
        let schemas = Schemas::builtin();
        let r#type = schemas.kind(&pod_kind()).expect("Pod");
        let _ = strategic_merge(schemas, r#type, original, patch);
    }
}

/// JSON whose names are those that patches of pods are made of.
fn any_json() -> impl Strategy<Value = Value> {
    let names = "(metadata|spec|containers|volumes|name|finalizers|labels|env|\\$patch|\\$retainKeys|\\$setElementOrder/(containers|finalizers|env)|\\$deleteFromPrimitiveList/(finalizers|containers))";
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        "(a|b|delete|replace|merge|name)".prop_map(Value::String)
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map(names, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
