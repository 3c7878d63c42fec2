//! What `kubectl get` prints of an object, cell by cell.

use objects::Timestamp;
use serde_json::{Value, json};

/// A column of a kind's table.
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The type of the cells.
    pub kind: ColumnKind,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: u8,
    /// What it shows, for `kubectl` and people.
    pub description: &'static str,
    /// The cell of an object, given the present.
    pub cell: fn(&Value, Timestamp) -> Value,
}

/// The type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A text.
    Text,
    /// The object's name, a text with the format `name`.
    Name,
    /// A whole number.
    Integer,
}

/// What every kind shows unless it says otherwise: name and age.
pub const PLAIN: &[Column] = &[Column {
    name: "Name",
    kind: ColumnKind::Name,
    priority: 0,
    description: "",
    cell: |object, _| json!(super::super::strategy::field_text(object, "metadata.name")),
}];
