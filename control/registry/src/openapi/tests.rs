use super::*;
use expect_test::expect;

fn documents() -> OpenApi {
    OpenApi::new(&Registry::builtin(), "v1.33.0", |_, _| None)
}

fn read(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).expect("is JSON")
}

#[test]
fn index_addresses_every_document_by_its_hash() {
    let documents = documents();
    let index = read(documents.index());
    for (group, versions) in Registry::builtin().groups() {
        for version in versions {
            let name = document_name(&group, &version);
            let hash = &documents.document(&name).expect("a document").hash;
            let address = format!("/openapi/v3/{name}?hash={hash}");
            assert_eq!(index["paths"][&name]["serverRelativeURL"], address);
        }
    }
    assert!(documents.document("apis/none/v1").is_none());
}

#[test]
fn what_nobody_asked_for_is_not_kept() {
    let documents = documents();
    let kept = || {
        let all = documents.documents.values();
        all.filter(|document| document.written.get().is_some())
            .count()
    };
    assert_eq!(kept(), 0);
    assert!(!documents.index().is_empty());
    assert_eq!(kept(), 0);
    assert!(documents.document("api/v1").is_some());
    assert_eq!(kept(), 1);
}

#[test]
fn hashes_are_those_of_the_algorithm() {
    assert_eq!(hash(b""), "6C62272E07BB014262B821756295C58D");
    assert_eq!(hash(b"a"), "D228CB696F1A8CAF78912B704E4A8964");
}

#[test]
fn every_resource_that_is_patched_shows_field_validation() {
    let documents = documents();
    for row in Registry::builtin()
        .iter()
        .filter(|row| row.verbs.contains(&crate::Verb::Patch))
    {
        let name = document_name(&row.group, &row.version);
        let document = read(&documents.document(&name).expect("a document").bytes);
        let scope = if row.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let path = format!("/{name}/{scope}{}/{{name}}", row.resource);
        let patch = &document["paths"][&path]["patch"];
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(
            parameters
                .iter()
                .any(|parameter| parameter["name"] == "fieldValidation"),
            "{path}"
        );
        assert_eq!(
            patch["x-kubernetes-group-version-kind"]["kind"], row.kind,
            "{path}"
        );
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let documents = documents();
    for name in documents.documents.keys() {
        let document = documents.document(name).expect("a document");
        let document = read(&document.bytes);
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        assert!(schemas.values().all(Value::is_object), "{name}");
        visit(&document, &mut |target| {
            let schema = target
                .strip_prefix("#/components/schemas/")
                .expect("within the document");
            assert!(schemas.contains_key(schema), "{name}: {schema}");
        });
    }
}

fn visit(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value {
            Value::String(target) if name == "$ref" => found(target),
            value => visit(value, found),
        }),
        Value::Array(list) => list.iter().for_each(|value| visit(value, found)),
        _ => {}
    }
}

#[test]
fn schemas_say_how_fields_merge() {
    let documents = documents();
    let document = read(&documents.document("api/v1").expect("a document").bytes);
    let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    expect![[r##"
        {"type":"array","items":{"allOf":[{"$ref":"#/components/schemas/io.k8s.api.core.v1.Container"}]},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"x-kubernetes-patch-strategy":"merge","x-kubernetes-patch-merge-key":"name"}
        {"type":"object","additionalProperties":{"type":"string"},"x-kubernetes-map-type":"atomic"}
        {"type":"object","additionalProperties":{"allOf":[{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"}]}}"##]]
    .assert_eq(&["containers", "nodeSelector", "overhead"].map(|name| spec[name].to_string()).join("\n"));
}

/// The document of version 2 says the same in both forms; the Protobuf form is read back as gnostic's message.
#[test]
fn version_2_holds_the_same() {
    let documents = documents();
    let json = read(&documents.v2_json().bytes);
    let definitions = json["definitions"].as_object().expect("definitions");
    visit(&json, &mut |target| {
        let name = target
            .strip_prefix("#/definitions/")
            .expect("within the document");
        assert!(definitions.contains_key(name), "{name}");
    });
    expect![[r##"
        {"$ref":"#/definitions/io.k8s.api.apps.v1.DeploymentStrategy","x-kubernetes-patch-strategy":"retainKeys"}
        {"type":"array","items":{"$ref":"#/definitions/io.k8s.api.core.v1.Container"},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"x-kubernetes-patch-strategy":"merge","x-kubernetes-patch-merge-key":"name"}
        {"format":"int-or-string","type":"string"}"##]]
    .assert_eq(
        &[
            &definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"],
            &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"],
            &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"],
        ]
        .map(Value::to_string)
        .join("\n"),
    );
    let names = protobuf_definitions(&documents.v2_protobuf().bytes);
    assert_eq!(names, definitions.keys().cloned().collect::<Vec<_>>());
}

/// The names in `Document.definitions.additional_properties`.
fn protobuf_definitions(document: &[u8]) -> Vec<String> {
    let within = |message: &[u8], number: u32| -> Vec<Vec<u8>> {
        let mut reader = crate::schema::Reader::new(message);
        let mut found = Vec::new();
        while let Some((at, payload)) = reader.next().expect("well formed") {
            if let (true, crate::schema::Payload::Bytes(bytes)) = (at == number, payload) {
                found.push(bytes.to_vec());
            }
        }
        found
    };
    let definitions = &within(document, 9)[0];
    let named = within(definitions, 1);
    let name = |schema: &Vec<u8>| String::from_utf8(within(schema, 1)[0].clone()).expect("a name");
    named.iter().map(name).collect()
}
