//! Which of the types and fields that the API server publishes nobody describes.

use expect_test::expect;
use registry::Registry;
use registry::openapi::OpenApi;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn what_has_no_description() {
    let documents = OpenApi::new(&Registry::builtin(), "v1.35.0", descriptions::of);
    let index: Value = serde_json::from_slice(documents.index()).expect("is JSON");
    let names = index["paths"].as_object().expect("has paths").keys();
    let mut bare = BTreeSet::new();
    for name in names {
        let bytes = &documents.document(name).expect("is in the index").bytes;
        let document: Value = serde_json::from_slice(bytes).expect("is JSON");
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("has schemas");
        for (name, schema) in schemas {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                if property["description"].is_null() {
                    bare.insert(format!("{name}.{field}"));
                }
            }
        }
    }
    let bare: Vec<String> = bare.into_iter().collect();
    expect![[""]].assert_eq(&bare.join("\n"));
}
