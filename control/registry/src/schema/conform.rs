//! Brings a body into the form that Go's decoder would give it: unknown members and nulls go, zeros that mean absence go,
//! times and quantities get their canonical text; and tells what was unknown, doubled or of the wrong type.
//! Never judges values: required members and ranges are the strategies' part. The texts are those of sigs.k8s.io/json.

use super::merge::go_text;
use super::{Alternative, Field, Schemas, Shape, Type, TypeId, leaf};
use crate::FieldValidation;
use objects::{Cause, GroupVersionKind, Status};
use serde_json::{Map, Value};

/// How many faults are listed; Go's decoder keeps no more either.
const STRICT_FAULTS_MAX: usize = 100;

/// What came to light when a body was brought into form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conformed {
    /// The first member with the wrong type, as Go says it. Such a body is refused in every mode.
    pub wrong_type: Option<String>,
    /// Unknown and doubled members: `unknown field "spec.replica"`.
    pub strict: Vec<String>,
}

/// Brings the body of a create or an update into form and judges it by `mode`: the texts of warnings, or a 400 with
/// Kubernetes' words. `expected` is the kind that the path takes; `duplicates` comes from [`crate::decode_json`].
pub fn accept(
    expected: &GroupVersionKind,
    value: &mut Value,
    duplicates: &[String],
    mode: FieldValidation,
) -> Result<Vec<String>, Status> {
    judge(expected, value, duplicates, mode).map_err(|why| {
        let GroupVersionKind { version, kind, .. } = expected;
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    })
}

/// Brings what a patch made into form and judges it by `mode`: the texts of warnings, or a 422 that quotes the patch (a
/// strategic one, else what it made) as Kubernetes does. `duplicates` are those of the patch.
pub fn accept_patched(
    expected: &GroupVersionKind,
    value: &mut Value,
    strategic_patch: Option<&Value>,
    duplicates: &[String],
    mode: FieldValidation,
) -> Result<Vec<String>, Status> {
    let made = strategic_patch.is_none().then(|| value.to_string());
    judge(expected, value, duplicates, mode).map_err(|why| {
        let quoted = made
            .or_else(|| strategic_patch.map(go_text))
            .unwrap_or_default();
        let cause = Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {quoted:?}: {why}"),
            field: "patch".to_owned(),
        };
        Status::invalid("", "", "", vec![cause])
    })
}

/// Warnings, or why the value is refused.
fn judge(
    expected: &GroupVersionKind,
    value: &mut Value,
    duplicates: &[String],
    mode: FieldValidation,
) -> Result<Vec<String>, String> {
    let schemas = Schemas::builtin();
    let Some(r#type) = schemas.kind(expected) else {
        return Ok(Vec::new()); // A kind without schema takes every member.
    };
    let found = conform(schemas, r#type, value, duplicates);
    if let Some(why) = found.wrong_type {
        return Err(why);
    }
    match mode {
        FieldValidation::Strict if !found.strict.is_empty() => Err(strict_error(&found.strict)),
        FieldValidation::Warn => Ok(found.strict),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// What the strict mode says of faults.
fn strict_error(faults: &[String]) -> String {
    format!("strict decoding error: {}", faults.join(", "))
}

/// Brings `value` into the form of `type` and tells what stood in the way.
pub fn conform(
    schemas: &Schemas,
    r#type: &Type,
    value: &mut Value,
    duplicates: &[String],
) -> Conformed {
    let mut walk = Walk {
        schemas,
        duplicates,
        found: Conformed::default(),
        lenient: 0,
        strict_path: String::new(),
        go_path: String::new(),
    };
    match value {
        Value::Object(map) => walk.members(r#type, map),
        other => {
            walk.found.wrong_type = Some(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                leaf::go_word(other),
                r#type.go_path
            ));
        }
    }
    walk.found
}

struct Walk<'a> {
    schemas: &'a Schemas,
    duplicates: &'a [String],
    found: Conformed,
    /// Within how many types that take unknown members in silence the walk is.
    lenient: usize,
    /// `spec.containers[0].env`, as strict faults name a place.
    strict_path: String,
    /// `spec.containers.env`, as Go names a member in type errors.
    go_path: String,
}

/// Where a value stands, as far as Go's errors tell.
struct Place<'a> {
    owner: &'a Type,
    go_type: &'a str,
}

impl Walk<'_> {
    fn members(&mut self, r#type: &Type, map: &mut Map<String, Value>) {
        map.retain(|name, value| {
            let strict_length = self.enter_member(name);
            let kept = match r#type.field(name) {
                Some(field) => self.member(r#type, field, value),
                None => {
                    self.strict_fault(format!("unknown field {:?}", self.strict_path));
                    false
                }
            };
            if r#type.field(name).is_some() {
                self.report_duplicate();
            }
            self.strict_path.truncate(strict_length);
            kept
        });
    }

    /// Whether the member stays.
    fn member(&mut self, owner: &Type, field: &Field, value: &mut Value) -> bool {
        if value.is_null() {
            return false;
        }
        let go_length = self.go_path.len();
        if go_length > 0 {
            self.go_path.push('.');
        }
        self.go_path.push_str(field.name);
        let go_type = field.go_type(self.schemas);
        let place = Place {
            owner,
            go_type: &go_type,
        };
        self.value(&field.shape, value, &place);
        self.go_path.truncate(go_length);
        field.pointer || field.keep || !leaf::is_zero(&field.shape, value)
    }

    fn value(&mut self, shape: &Shape, value: &mut Value, place: &Place<'_>) {
        match (shape, value) {
            (Shape::Struct(id), Value::Object(map)) => {
                let schemas = self.schemas;
                self.members(schemas.get(*id), map);
            }
            (Shape::Either(id, _), value @ (Value::Object(_) | Value::Array(_))) => {
                self.either(*id, value, place);
            }
            (Shape::Either(_, Alternative::Bool), Value::Bool(_)) => {}
            (Shape::Map(inner), Value::Object(map)) => {
                let place = place.inside();
                for (name, value) in map {
                    let length = self.enter_member(name);
                    self.element(inner, value, &place);
                    self.report_duplicate();
                    self.strict_path.truncate(length);
                }
            }
            (Shape::List(inner) | Shape::WrappedList(inner), Value::Array(list)) => {
                let place = place.inside();
                for (at, value) in list.iter_mut().enumerate() {
                    let length = self.strict_path.len();
                    self.strict_path.push_str(&format!("[{at}]"));
                    self.element(inner, value, &place);
                    self.strict_path.truncate(length);
                }
            }
            (shape, value) => {
                if let Err(fault) = leaf::conform(shape, value) {
                    self.wrong_type(fault, place);
                }
            }
        }
    }

    /// Go reads these types by a decoder of their own, which is never strict.
    fn either(&mut self, id: TypeId, value: &mut Value, place: &Place<'_>) {
        self.lenient += 1;
        match value {
            Value::Array(list) => {
                for element in list.iter_mut().filter(|element| element.is_object()) {
                    self.value(&Shape::Struct(id), element, place);
                }
            }
            other => self.value(&Shape::Struct(id), other, place),
        }
        self.lenient -= 1;
    }

    fn element(&mut self, shape: &Shape, value: &mut Value, place: &Place<'_>) {
        if value.is_null() {
            *value = leaf::zero(shape);
        } else {
            self.value(shape, value, place);
        }
    }

    fn wrong_type(&mut self, fault: leaf::Fault, place: &Place<'_>) {
        let text = match fault {
            leaf::Fault::Text(text) => text,
            leaf::Fault::Type(word) => format!(
                "json: cannot unmarshal {word} into Go struct field {}.{} of type {}",
                place.owner.go_name, self.go_path, place.go_type
            ),
        };
        self.found.wrong_type.get_or_insert(text);
    }

    fn strict_fault(&mut self, text: String) {
        let faults = &mut self.found.strict;
        if self.lenient == 0 && faults.len() < STRICT_FAULTS_MAX && !faults.contains(&text) {
            faults.push(text);
        }
    }

    fn report_duplicate(&mut self) {
        if !self.duplicates.is_empty() {
            let text = format!("duplicate field {:?}", self.strict_path);
            if self.duplicates.contains(&text) {
                self.strict_fault(text);
            }
        }
    }

    /// Returns the length to which the path is to be cut again.
    fn enter_member(&mut self, name: &str) -> usize {
        let length = self.strict_path.len();
        if length > 0 {
            self.strict_path.push('.');
        }
        self.strict_path.push_str(name);
        length
    }
}

impl Place<'_> {
    /// The place of the elements of a list or map: `[]v1.Container` holds `v1.Container`.
    fn inside(&self) -> Place<'_> {
        let go_type = self
            .go_type
            .split_once(']')
            .filter(|(head, _)| *head == "[" || head.starts_with("map["))
            .map_or(self.go_type, |(_, inner)| inner);
        Place {
            owner: self.owner,
            go_type,
        }
    }
}
