//! The schema of a custom kind, as a structural schema has it: read once from a definition, walked often.
//! Rules: Kubernetes' documentation of structural schemas.

use super::rules::Rules;
use crate::apply::schema::Relation;
use cel::{ListKind, Shape};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The schema of a value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty for values of any type.
    pub kind: String,
    /// Null is allowed.
    pub nullable: bool,
    /// What stands for absence.
    pub default: Option<Value>,
    /// The known members of an object.
    pub properties: BTreeMap<String, Schema>,
    /// The other members of an object.
    pub additional: Additional,
    /// The elements of a list.
    pub items: Option<Box<Schema>>,
    /// Unknown members are kept.
    pub preserves: bool,
    /// A whole object with type and metadata.
    pub embedded: bool,
    /// A whole number or a text.
    pub int_or_string: bool,
    /// How the elements of a list belong together.
    pub list: ListKind,
    /// A map that is owned as a whole.
    pub atomic_map: bool,
    /// What values must keep to.
    pub limits: Limits,
    /// Expressions that must hold.
    pub rules: Rules,
}

/// Members of an object beside the known ones.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// There are none.
    #[default]
    None,
    /// Any.
    Any,
    /// All of one schema.
    Of(Box<Schema>),
}

/// What values must keep to.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// `date-time` and so on.
    pub format: String,
    /// The least number, and whether it is itself too small.
    pub minimum: Option<(f64, bool)>,
    /// The greatest number, and whether it is itself too great.
    pub maximum: Option<(f64, bool)>,
    /// What numbers are multiples of.
    pub multiple_of: Option<f64>,
    /// Letters of a text.
    pub length: Bounds,
    /// Elements of a list.
    pub items: Bounds,
    /// Members of an object.
    pub members: Bounds,
    /// What a text matches, with the expression as it was written.
    pub pattern: Option<(String, Option<Regex>)>,
    /// No element comes twice.
    pub unique: bool,
    /// The only values.
    pub one_of_values: Vec<Value>,
    /// Members that must be there.
    pub required: Vec<String>,
    /// All of these hold.
    pub all_of: Vec<Schema>,
    /// One of these holds.
    pub any_of: Vec<Schema>,
    /// Exactly one of these holds.
    pub one_of: Vec<Schema>,
    /// This does not hold.
    pub not: Option<Box<Schema>>,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// At least.
    pub min: Option<u64>,
    /// At most.
    pub max: Option<u64>,
}

impl Schema {
    /// Reads a schema as a definition holds it. Whether it is structural is the question of [`super::structural`]; what
    /// makes no sense is left out here.
    pub fn read(source: &Value) -> Schema {
        let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
        let text = |name: &str| {
            source
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let properties = source
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let mut schema = Schema {
            kind: text("type"),
            nullable: flag("nullable"),
            default: source
                .get("default")
                .filter(|value| !value.is_null())
                .cloned(),
            properties: properties
                .map(|(name, schema)| (name.clone(), Schema::read(schema)))
                .collect(),
            additional: match source.get("additionalProperties") {
                None | Some(Value::Null | Value::Bool(false)) => Additional::None,
                Some(Value::Object(of)) if !of.is_empty() => {
                    Additional::Of(Box::new(Schema::read(&Value::Object(of.clone()))))
                }
                Some(_) => Additional::Any,
            },
            items: source
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(Schema::read(items))),
            preserves: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list: match text("x-kubernetes-list-type").as_str() {
                "set" => ListKind::Set,
                "map" => ListKind::Map(texts(source.get("x-kubernetes-list-map-keys"))),
                _ => ListKind::Atomic,
            },
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            limits: Limits::read(source),
            rules: Rules::default(),
        };
        schema.rules = Rules::read(source.get("x-kubernetes-validations"), &schema.shape());
        schema
    }

    /// How applies merge elements or members of it.
    pub fn relation(&self) -> Relation {
        match (&self.list, self.atomic_map) {
            (ListKind::Set | ListKind::Map(_), _) => Relation::Associative,
            (ListKind::Atomic, true) => Relation::Atomic,
            (ListKind::Atomic, false) if self.kind == "array" => Relation::Atomic,
            _ => Relation::Separable,
        }
    }

    /// Its type as expressions see it.
    pub fn shape(&self) -> Shape {
        if self.int_or_string {
            return Shape::Any;
        }
        match self.kind.as_str() {
            "boolean" => Shape::Bool,
            "integer" => Shape::Int,
            "number" => Shape::Double,
            "string" => match self.limits.format.as_str() {
                "date" | "date-time" => Shape::Timestamp,
                "duration" => Shape::Duration,
                "byte" => Shape::Bytes,
                _ => Shape::String,
            },
            "array" => {
                let items = self.items.as_ref().map(|items| items.shape());
                Shape::List(Arc::new(items.unwrap_or_default()), self.list.clone())
            }
            "object" => match &self.additional {
                Additional::Of(of) => Shape::Map(Arc::new(of.shape())),
                Additional::Any => Shape::Map(Arc::new(Shape::Any)),
                Additional::None if self.preserves && self.properties.is_empty() => Shape::Any,
                Additional::None => {
                    let fields = self
                        .properties
                        .iter()
                        .map(|(name, of)| (name.clone(), of.shape()));
                    let fields: Vec<_> = fields.collect();
                    match self.embedded {
                        true => of_object(fields),
                        false => Shape::object(fields),
                    }
                }
            },
            _ => Shape::Any,
        }
    }
}

/// The type of a whole object: expressions see its type, its name, and what its schema says.
pub fn of_object(fields: Vec<(String, Shape)>) -> Shape {
    let text = |name: &str| (name.to_owned(), Shape::String);
    let own = [
        text("apiVersion"),
        text("kind"),
        (
            "metadata".to_owned(),
            Shape::object([text("name"), text("generateName")]),
        ),
    ];
    let fields = fields
        .into_iter()
        .filter(|(name, _)| !super::is_of_every_object(name));
    Shape::object(fields.chain(own))
}

impl Limits {
    fn read(source: &Value) -> Limits {
        let number = |name: &str| source.get(name).and_then(Value::as_f64);
        let exclusive = |name: &str| source.get(name) == Some(&Value::Bool(true));
        let bounds = |min: &str, max: &str| Bounds {
            min: source.get(min).and_then(Value::as_u64),
            max: source.get(max).and_then(Value::as_u64),
        };
        let list = |name: &str| {
            source
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let schemas = |name: &str| list(name).iter().map(Schema::read).collect();
        let pattern = source.get("pattern").and_then(Value::as_str);
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        Limits {
            format: source
                .get("format")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            minimum: number("minimum").map(|least| (least, exclusive("exclusiveMinimum"))),
            maximum: number("maximum").map(|most| (most, exclusive("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length: bounds("minLength", "maxLength"),
            items: bounds("minItems", "maxItems"),
            members: bounds("minProperties", "maxProperties"),
            pattern: pattern.map(|pattern| (pattern.to_owned(), Regex::new(pattern).ok())),
            unique: exclusive("uniqueItems"),
            one_of_values: list("enum"),
            required: texts(source.get("required")),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: source
                .get("not")
                .filter(|not| not.is_object())
                .map(|not| Box::new(Schema::read(not))),
        }
    }
}

/// The texts of a list.
pub fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
