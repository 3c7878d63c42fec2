//! What each type and field of Kubernetes' API is for: the text that `kubectl explain` prints under a field.
//!
//! The project's own table of types (`control/registry/data/schema.txt`) holds facts and no prose. The prose is taken, when a
//! document is first asked for, from the schemas that k8s-openapi can write of its structs.

mod kinds;

use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

static TEXTS: LazyLock<HashMap<String, Texts>> = LazyLock::new(read);

#[derive(Clone, Default)]
struct Texts {
    whole: String,
    fields: HashMap<String, String>,
}

/// The description of a type, such as `io.k8s.api.core.v1.PodSpec`, or of one of its fields by its name in JSON. None where
/// there is none to be had: for types that Kubernetes does not publish, and for fields newer than the dependency.
pub fn of(r#type: &str, field: Option<&str>) -> Option<&'static str> {
    let texts = TEXTS.get(r#type)?;
    let text = match field {
        None => &texts.whole,
        Some(field) => texts.fields.get(field)?,
    };
    (!text.is_empty()).then_some(text.as_str())
}

fn read() -> HashMap<String, Texts> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    kinds::visit(&mut generator);
    let definitions = generator.take_definitions(false);
    let mut all: HashMap<String, Texts> = definitions
        .into_iter()
        .map(|(name, schema)| (name, texts(&schema)))
        .collect();
    // What the dependency knows in beta alone says the same once it is stable.
    let grown = all.iter().filter_map(|(name, texts)| {
        let (package, name) = name.split_once(".v1beta1.")?;
        let name = format!("{package}.v1.{name}");
        (!all.contains_key(&name)).then(|| (name, texts.clone()))
    });
    let grown: Vec<(String, Texts)> = grown.collect();
    all.extend(grown);
    all
}

fn texts(schema: &Value) -> Texts {
    let description = |schema: &Value| {
        schema["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    Texts {
        whole: description(schema),
        fields: properties
            .map(|(name, property)| (name.clone(), description(property)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn types_and_fields_are_described() {
        let pod = of("io.k8s.api.core.v1.Pod", None);
        assert!(pod.is_some_and(|text| text.contains("collection of containers")));
        // A field whose type is described elsewhere has words of its own.
        let spec = of("io.k8s.api.core.v1.Pod", Some("spec"));
        assert!(spec.is_some_and(|text| text.contains("desired behavior of the pod")));
        let nested = of("io.k8s.api.core.v1.Container", Some("image"));
        assert!(nested.is_some_and(|text| text.contains("image name")));
        assert!(
            of(
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                Some("labels")
            )
            .is_some()
        );
    }

    #[test]
    fn what_is_unknown_has_no_description() {
        assert_eq!(of("io.k8s.api.core.v1.Trireme", None), None);
        assert_eq!(of("io.k8s.api.core.v1.Pod", Some("oars")), None);
    }
}
