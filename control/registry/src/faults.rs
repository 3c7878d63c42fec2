//! Collects what is wrong with an object, field by field, and says it as Kubernetes does.
//! Rule and words: apimachinery's `util/validation/field`.

use objects::Cause;
use serde_json::Value;
use std::fmt::Display;

/// The faults of one object, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    causes: Vec<Cause>,
}

impl Faults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// The faults.
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    /// A field that must be there is not; `detail` may be empty.
    pub fn required(&mut self, field: impl Display, detail: &str) {
        self.push(
            "FieldValueRequired",
            field,
            with_detail("Required value", detail),
        );
    }

    /// A value is wrong.
    pub fn invalid(&mut self, field: impl Display, value: &Value, detail: &str) {
        let message = with_detail(&format!("Invalid value: {}", shown(value)), detail);
        self.push("FieldValueInvalid", field, message);
    }

    /// A text is wrong.
    pub fn invalid_text(&mut self, field: impl Display, value: &str, detail: &str) {
        self.push(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value:?}: {detail}"),
        );
    }

    /// A value has the wrong type, whose name stands for it.
    pub fn invalid_type(&mut self, field: impl Display, found: &str, detail: &str) {
        self.push(
            "FieldValueTypeInvalid",
            field,
            format!("Invalid value: {found:?}: {detail}"),
        );
    }

    /// A list or map has more elements than allowed.
    pub fn too_many(&mut self, field: impl Display, count: u64, limit: u64) {
        let message = format!("Too many: {count}: must have at most {limit} items");
        self.push("FieldValueTooMany", field, message);
    }

    /// A text has each of these faults.
    pub fn invalid_texts(&mut self, field: impl Display, value: &str, details: &[String]) {
        for detail in details {
            self.invalid_text(&field, value, detail);
        }
    }

    /// A value is none of those that are known.
    pub fn unsupported(&mut self, field: impl Display, value: &str, supported: &[&str]) {
        let mut supported: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        supported.sort();
        let message = format!(
            "Unsupported value: {value:?}: supported values: {}",
            supported.join(", ")
        );
        self.push("FieldValueNotSupported", field, message);
    }

    /// A value comes twice where it must be unique.
    pub fn duplicate(&mut self, field: impl Display, value: &Value) {
        self.push(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", shown(value)),
        );
    }

    /// A field may not be set, or not so.
    pub fn forbidden(&mut self, field: impl Display, detail: &str) {
        self.push(
            "FieldValueForbidden",
            field,
            with_detail("Forbidden", detail),
        );
    }

    /// A field names something that is not there.
    pub fn not_found(&mut self, field: impl Display, value: &str) {
        self.push("FieldValueNotFound", field, format!("Not found: {value:?}"));
    }

    /// A value is longer than allowed.
    pub fn too_long(&mut self, field: impl Display, limit: usize) {
        let message = format!("Too long: may not be more than {limit} bytes");
        self.push("FieldValueTooLong", field, message);
    }

    fn push(&mut self, reason: &str, field: impl Display, message: String) {
        self.causes.push(Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_string(),
        });
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {detail}")
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}
