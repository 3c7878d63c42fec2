//! What is known of a variable's type: decides how JSON is read, and which fields an expression may ask for.
//! Names of fields that are no identifiers are escaped as Kubernetes documents it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of a variable or of a part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    /// Nothing is known: JSON as it is.
    #[default]
    Any,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number; whole ones, too, are read as floating.
    Double,
    /// Text.
    String,
    /// Text in base64 that stands for bytes.
    Bytes,
    /// RFC 3339 text, or a date alone, that stands for a time.
    Timestamp,
    /// Text such as `1h30m` that stands for a duration.
    Duration,
    /// Null and nothing else.
    Null,
    /// A list.
    List(Arc<Shape>, ListKind),
    /// A map with any keys.
    Map(Arc<Shape>),
    /// An object with known fields, by their escaped names; its other fields cannot be asked for.
    Object(Arc<BTreeMap<String, Field>>),
    /// A value that may be absent.
    Optional(Arc<Shape>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name in JSON.
    pub name: String,
    /// Its type.
    pub shape: Shape,
}

/// How lists compare and add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// By order.
    #[default]
    Atomic,
    /// As sets: order and repetition mean nothing.
    Set,
    /// As maps by these fields of the elements.
    Map(Vec<String>),
}

impl Shape {
    /// An object with these fields, by their names in JSON; fields that cannot be written in an expression are left out.
    pub fn object(fields: impl IntoIterator<Item = (String, Shape)>) -> Shape {
        let fields = fields
            .into_iter()
            .filter_map(|(name, shape)| Some((escape(&name)?, Field { name, shape })));
        Shape::Object(Arc::new(fields.collect()))
    }

    /// A list in order.
    pub fn list(items: Shape) -> Shape {
        Shape::List(Arc::new(items), ListKind::Atomic)
    }

    /// The word for it in messages.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Shape::Any => "dyn",
            Shape::Bool => "bool",
            Shape::Int => "int",
            Shape::Double => "double",
            Shape::String => "string",
            Shape::Bytes => "bytes",
            Shape::Timestamp => "google.protobuf.Timestamp",
            Shape::Duration => "google.protobuf.Duration",
            Shape::Null => "null_type",
            Shape::List(..) => "list",
            Shape::Map(_) => "map",
            Shape::Object(_) => "object",
            Shape::Optional(_) => "optional_type",
        }
    }
}

pub(crate) static ANY: Shape = Shape::Any;

/// Words of the language that a field cannot be called by.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// A field's name as expressions write it; None when it cannot be written.
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if RESERVED.contains(&name) || name == "while" {
        return Some(format!("__{name}__"));
    }
    if first.is_ascii_digit() {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '_' if letters.peek() == Some(&'_') => {
                letters.next();
                escaped.push_str("__underscores__");
            }
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            letter if letter == '_' || letter.is_ascii_alphanumeric() => escaped.push(letter),
            _ => return None,
        }
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_escaped_as_documented() {
        for (name, escaped) in [
            ("foo", Some("foo")),
            ("foo_bar", Some("foo_bar")),
            ("namespace", Some("__namespace__")),
            ("foo__bar", Some("foo__underscores__bar")),
            ("x-prop", Some("x__dash__prop")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("1st", None),
            ("a b", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
