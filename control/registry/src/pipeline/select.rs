//! Whether an object's bytes match a request's selectors, reading no more of them than the selectors ask.
//! Rule: Kubernetes' label and field selectors; which fields a kind has is said by its row.

use crate::{ListOptions, ResourceDef, Target};
use objects::{FieldSelector, LabelSelector, Status};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The selectors of one request, with the paths that they read.
#[derive(Clone)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    row: Arc<ResourceDef>,
    paths: Arc<Vec<Vec<String>>>,
}

impl Selection {
    /// The selection of a request; a 400 when it asks for a field that the kind does not offer.
    pub fn new(target: &Target, options: &ListOptions) -> Result<Self, Status> {
        let row = target.resource.clone();
        let mut paths = Vec::new();
        if !options.label_selector.is_empty() {
            paths.push(vec!["metadata".to_owned(), "labels".to_owned()]);
        }
        for term in &options.field_selector.terms {
            check_field(&row, &term.field, &options.field_selector)?;
            for path in row.strategy.field_sources(&term.field) {
                paths.push(split(&path));
            }
        }
        Ok(Selection {
            labels: options.label_selector.clone(),
            fields: options.field_selector.clone(),
            row,
            paths: Arc::new(paths),
        })
    }

    /// Whether every object matches.
    pub fn takes_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// The one name that can match, if the selectors say so.
    pub fn only_name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// Whether the stored object matches; what is no JSON matches nothing.
    pub fn matches(&self, stored: &[u8]) -> bool {
        if self.takes_all() {
            return true;
        }
        let paths: Vec<&[String]> = self.paths.iter().map(Vec::as_slice).collect();
        project(stored, &paths).is_ok_and(|fields| self.matches_fields(&fields))
    }

    /// Whether the object matches, of which `fields` is the part that selectors ask for.
    pub fn matches_fields(&self, fields: &Value) -> bool {
        let no_labels = Map::new();
        let labels = fields
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        self.labels.matches_map(labels.unwrap_or(&no_labels))
            && self
                .fields
                .matches_with(|path| self.row.strategy.field(fields, path))
    }
}

/// The part of an object that any selector of its kind may ask for; nothing of what is no JSON.
pub fn selectable(json: &[u8], row: &ResourceDef) -> Value {
    let common = ["metadata.name", "metadata.namespace", "metadata.labels"].map(str::to_owned);
    let own = row
        .field_selectors
        .iter()
        .flat_map(|path| row.strategy.field_sources(path));
    let paths: Vec<Vec<String>> = common
        .into_iter()
        .chain(own)
        .map(|path| split(&path))
        .collect();
    let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    project(json, &paths).unwrap_or_default()
}

fn split(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn check_field(row: &ResourceDef, field: &str, selector: &FieldSelector) -> Result<(), Status> {
    let common = field == "metadata.name" || (row.namespaced && field == "metadata.namespace");
    if common || row.field_selectors.iter().any(|known| known == field) {
        return Ok(());
    }
    let terms: Vec<String> = selector
        .terms
        .iter()
        .map(|term| {
            format!(
                "{}{}{}",
                term.field,
                if term.equal { "=" } else { "!=" },
                term.value
            )
        })
        .collect();
    Err(Status::bad_request(format!(
        "Unable to find {:?} that match label selector \"\", field selector {:?}: field label not supported: {field}",
        format!("{}, Resource={}", row.api_version(), row.resource),
        terms.join(","),
    )))
}

/// The part of a JSON map that lies at `paths`; all else is skipped without being built, and nothing is read behind the last of them.
/// Labels stand near an object's begin, and most of an object behind them.
fn project(json: &[u8], paths: &[&[String]]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let (mut found, mut missing) = (Map::new(), paths.len());
    let projection = Projection {
        paths: paths.to_vec(),
        found: &mut found,
        missing: &mut missing,
    };
    match projection.deserialize(&mut deserializer) {
        Err(error) if missing > 0 => Err(error),
        // What broke it off is that nothing is missing any more.
        _ => Ok(Value::Object(found)),
    }
}

struct Projection<'a, 'p> {
    paths: Vec<&'p [String]>,
    found: &'a mut Map<String, Value>,
    /// The paths, those of other maps too, of which it is not known yet what lies there.
    missing: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Projection<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Projection<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        while let Some(name) = access.next_key::<Name<'de>>()? {
            let (here, others): (Vec<&[String]>, Vec<&[String]>) = (self.paths.iter())
                .partition(|path| path.first().is_some_and(|first| *first == name.0));
            if here.is_empty() {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            self.paths = others;
            if here.iter().any(|path| path.len() == 1) {
                let value = access.next_value()?;
                self.found.insert(name.0.into_owned(), value);
                *self.missing -= here.len();
            } else {
                let mut found = Map::new();
                let inner = access.next_value_seed(Projection {
                    paths: here.iter().map(|path| &path[1..]).collect(),
                    found: &mut found,
                    missing: self.missing,
                });
                self.found.insert(name.0.into_owned(), Value::Object(found));
                inner?;
            }
            if *self.missing == 0 {
                return Err(A::Error::custom("nothing more is asked for"));
            }
        }
        *self.missing -= self.paths.len();
        Ok(())
    }
}

/// A member's name, borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn projects_only_what_is_asked() {
        let json = br#"{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"nodeName":"n","big":[1,2,{"a":3}]},"status":{}}"#;
        let paths: Vec<Vec<String>> = ["metadata.labels", "spec.nodeName", "status.phase"]
            .iter()
            .map(|path| path.split('.').map(str::to_owned).collect())
            .collect();
        let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        let expected =
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"nodeName": "n"}, "status": {}});
        assert_eq!(project(json, &paths).expect("is JSON"), expected);
        // What is asked for twice, or with what lies below it, is there once; what is absent is looked for to the end.
        let paths = ["metadata", "metadata.labels", "metadata.labels", "absent"];
        let paths: Vec<Vec<String>> = paths.iter().map(|path| split(path)).collect();
        let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        let expected = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
        assert_eq!(project(json, &paths).expect("is JSON"), expected);
    }

    #[test]
    fn nothing_is_read_behind_what_is_asked() {
        let labels = split("metadata.labels");
        let broken = br#"{"metadata":{"labels":{"x":"y"},"annotations":{"a":"b"#;
        let found = project(broken, &[&labels]).expect("the labels are there");
        assert_eq!(found, json!({"metadata": {"labels": {"x": "y"}}}));
        assert!(project(br#"{"metadata":{"annotations":{"a":"b"#, &[&labels]).is_err());
        assert!(project(b"[]", &[&labels]).is_err());
    }
}
