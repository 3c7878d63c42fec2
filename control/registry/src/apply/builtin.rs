//! The types of the built-in kinds, as a merge sees them: compiled once from [`crate::schema`].
//! How lists and maps merge follows from the marks of the sources as kube-openapi's `schemaconv` reads them.

use super::schema::{Field, List, Map, Relation, Scalar, Schema, Type, TypeDef, TypeId, TypeRef};
use crate::schema::{self, Schemas, Shape};
use objects::GroupVersionKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The type of a kind; one in which everything is deduced for a kind without a schema.
pub fn type_of(kind: &GroupVersionKind) -> Type<'static> {
    let builtin = builtin();
    let known = Schemas::builtin().kind(kind);
    let known = known.and_then(|known| builtin.named(&known.name));
    known.unwrap_or_else(|| deduced(builtin))
}

fn deduced(schema: &Schema) -> Type<'_> {
    schema
        .named("__untyped_deduced_")
        .expect("compile declares it")
}

/// The schema of all built-in kinds.
pub fn builtin() -> &'static Schema {
    static BUILTIN: OnceLock<Schema> = OnceLock::new();
    BUILTIN.get_or_init(|| compile(Schemas::builtin()))
}

fn compile(types: &Schemas) -> Schema {
    let mut compiler = Compiler {
        types,
        schema: Schema::default(),
        scalars: BTreeMap::new(),
    };
    compiler.schema.deduced();
    for r#type in types.types() {
        let id = compiler.schema.declare(&r#type.name);
        let fields = r#type.fields.iter();
        let fields = fields.map(|field| (field.name.to_owned(), compiler.field(field)));
        let map = Map {
            fields: fields.collect(),
            element: None,
            relation: match r#type.is_atomic {
                true => Relation::Atomic,
                false => Relation::Separable,
            },
            deduced: false,
        };
        let def = TypeDef {
            map: Some(map),
            ..TypeDef::default()
        };
        compiler.schema.define(id, def);
    }
    compiler.schema
}

struct Compiler<'a> {
    types: &'a Schemas,
    schema: Schema,
    scalars: BTreeMap<u8, TypeId>,
}

impl Compiler<'_> {
    fn field(&mut self, field: &schema::Field) -> Field {
        Field {
            r#type: self.member(field),
            default: default(field),
            absent: absent(field),
        }
    }

    /// The type of a member: lists and maps say beside it how they merge.
    fn member(&mut self, field: &schema::Field) -> TypeRef {
        match &field.shape {
            Shape::List(element) => {
                let (relation, keys) = list_relation(field);
                let list = List {
                    element: self.shape(element),
                    relation,
                    keys,
                };
                self.add(TypeDef {
                    list: Some(list),
                    ..TypeDef::default()
                })
            }
            Shape::Map(value) => {
                let relation = match field.topology.atomic_map {
                    true => Relation::Atomic,
                    false => Relation::Separable,
                };
                self.map(value, relation)
            }
            shape => TypeRef {
                relation: match (field.topology.atomic_map, field.topology.granular_map) {
                    (true, _) => Some(Relation::Atomic),
                    (_, true) => Some(Relation::Separable),
                    _ => None,
                },
                ..self.shape(shape)
            },
        }
    }

    fn shape(&mut self, shape: &Shape) -> TypeRef {
        let scalar = match shape {
            Shape::Text | Shape::Bytes | Shape::Duration => Scalar::Text,
            Shape::Bool => Scalar::Boolean,
            Shape::Int32 | Shape::Int64 | Shape::Double => Scalar::Numeric,
            Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime => {
                Scalar::Untyped
            }
            Shape::Raw | Shape::Json | Shape::FieldsV1 | Shape::Either(..) => {
                return self.schema.declare("__untyped_atomic_").into();
            }
            Shape::List(element) | Shape::WrappedList(element) => {
                let list = List {
                    element: self.shape(element),
                    relation: Relation::Atomic,
                    keys: Vec::new(),
                };
                return self.add(TypeDef {
                    list: Some(list),
                    ..TypeDef::default()
                });
            }
            Shape::Map(value) => return self.map(value, Relation::Separable),
            Shape::Struct(id) => return self.schema.declare(&self.types.get(*id).name).into(),
        };
        self.scalar(scalar)
    }

    fn map(&mut self, value: &Shape, relation: Relation) -> TypeRef {
        let map = Map {
            fields: BTreeMap::new(),
            element: Some(self.shape(value)),
            relation,
            deduced: false,
        };
        self.add(TypeDef {
            map: Some(map),
            ..TypeDef::default()
        })
    }

    fn scalar(&mut self, scalar: Scalar) -> TypeRef {
        let schema = &mut self.schema;
        let id = self.scalars.entry(scalar as u8).or_insert_with(|| {
            schema.add(TypeDef {
                scalar: Some(scalar),
                ..TypeDef::default()
            })
        });
        (*id).into()
    }

    fn add(&mut self, def: TypeDef) -> TypeRef {
        self.schema.add(def).into()
    }
}

/// What the list type says, else the patch strategy; without either, a list is owned as a whole.
fn list_relation(field: &schema::Field) -> (Relation, Vec<String>) {
    let keys = field.topology.keys.iter().map(|key| (*key).to_owned());
    match field.topology.list {
        Some("map") => (Relation::Associative, keys.collect()),
        Some("set") => (Relation::Associative, Vec::new()),
        Some(_) => (Relation::Atomic, Vec::new()),
        None if field.patch.merge => {
            let keys = field.patch.key.map(str::to_owned);
            (Relation::Associative, keys.into_iter().collect())
        }
        None => (Relation::Atomic, Vec::new()),
    }
}

/// What a key member is worth where it is absent: what is published, else the zero that Go writes.
fn default(field: &schema::Field) -> Option<Value> {
    let zero = || (field.keep && !field.pointer).then(|| zero(&field.shape));
    field.default.clone().or_else(|| zero().flatten())
}

fn absent(field: &schema::Field) -> Option<Value> {
    match &field.shape {
        Shape::Struct(_) if !field.pointer => Some(json!({})),
        _ if !field.keep => None,
        _ if field.pointer => Some(Value::Null),
        shape => Some(zero(shape).unwrap_or(Value::Null)),
    }
}

fn zero(shape: &Shape) -> Option<Value> {
    match shape {
        Shape::Text => Some(json!("")),
        Shape::Bool => Some(json!(false)),
        Shape::Int32 | Shape::Int64 | Shape::Double => Some(json!(0)),
        _ => None,
    }
}
