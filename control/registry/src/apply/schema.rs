//! What the merge knows of types: which lists are sets or maps, what is owned as a whole, which scalars are allowed.
//! Semantics: structured-merge-diff's `schema`. Where types come from is the business of [`super::builtin`] and of tests.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Types that refer to each other.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<TypeDef>,
    names: HashMap<String, TypeId>,
}

/// A place in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(usize);

/// A type as a member or an element refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeRef {
    /// The type.
    pub id: TypeId,
    /// How its elements belong together here, where this differs from what the type says.
    pub relation: Option<Relation>,
}

/// The forms that a value may take; none: no value is valid.
#[derive(Clone, Debug, Default)]
pub struct TypeDef {
    /// A scalar.
    pub scalar: Option<Scalar>,
    /// A list.
    pub list: Option<List>,
    /// A map, or a struct.
    pub map: Option<Map>,
}

/// Which scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Whole or not.
    Numeric,
    /// A text.
    Text,
    /// A boolean.
    Boolean,
    /// Any of them.
    Untyped,
}

/// How the elements of a list or map belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are owned as one.
    Atomic,
    /// Elements of a list that are told apart by key or value.
    Associative,
    /// Members of a map, each on its own.
    Separable,
}

/// A list.
#[derive(Clone, Debug)]
pub struct List {
    /// Its elements.
    pub element: TypeRef,
    /// How they belong together.
    pub relation: Relation,
    /// The members that tell elements apart; empty for sets of scalars.
    pub keys: Vec<String>,
}

/// A map or struct.
#[derive(Clone, Debug)]
pub struct Map {
    /// Members that are known by name.
    pub fields: BTreeMap<String, Field>,
    /// All others; None when there may be none.
    pub element: Option<TypeRef>,
    /// How they belong together.
    pub relation: Relation,
    /// True for `__untyped_deduced_` elements without known members: nothing is known, all is granular.
    pub deduced: bool,
}

/// A member of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its type.
    pub r#type: TypeRef,
    /// Its value where it is absent, for keys of lists.
    pub default: Option<Value>,
    /// What its absence means where two objects are compared: Go's structs hold some members always.
    pub absent: Option<Value>,
}

/// A type with the schema that explains it.
#[derive(Clone, Copy, Debug)]
pub struct Type<'s> {
    schema: &'s Schema,
    reference: TypeRef,
}

/// The forms of a type at a place.
#[derive(Clone, Copy, Debug)]
pub struct Atom<'s> {
    schema: &'s Schema,
    /// As a scalar.
    pub scalar: Option<Scalar>,
    /// As a list.
    pub list: Option<&'s List>,
    /// As a map.
    pub map: Option<&'s Map>,
    relation: Option<Relation>,
}

impl From<TypeId> for TypeRef {
    fn from(id: TypeId) -> Self {
        TypeRef { id, relation: None }
    }
}

impl Schema {
    /// A place for a type of this name, which may be defined later.
    pub fn declare(&mut self, name: &str) -> TypeId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.add(TypeDef::default());
        self.names.insert(name.to_owned(), id);
        id
    }

    /// Says what a declared type is.
    pub fn define(&mut self, id: TypeId, def: TypeDef) {
        self.types[id.0] = def;
    }

    /// A type without a name.
    pub fn add(&mut self, def: TypeDef) -> TypeId {
        self.types.push(def);
        TypeId(self.types.len() - 1)
    }

    /// The type of a name.
    pub fn named(&self, name: &str) -> Option<Type<'_>> {
        self.names.get(name).map(|id| self.at(*id))
    }

    /// The type at a place.
    pub fn at(&self, id: TypeId) -> Type<'_> {
        self.refer(id.into())
    }

    fn refer(&self, reference: TypeRef) -> Type<'_> {
        Type {
            schema: self,
            reference,
        }
    }

    /// Declares `__untyped_atomic_` (anything, owned as a whole).
    pub fn untyped(&mut self) -> TypeId {
        let id = self.declare("__untyped_atomic_");
        self.define(id, any(id, id, Relation::Atomic));
        id
    }

    /// Declares `__untyped_deduced_` (anything; maps are granular, lists owned as a whole).
    pub fn deduced(&mut self) -> TypeId {
        let untyped = self.untyped();
        let id = self.declare("__untyped_deduced_");
        self.define(id, any(untyped, id, Relation::Separable));
        id
    }
}

fn any(element: TypeId, member: TypeId, relation: Relation) -> TypeDef {
    TypeDef {
        scalar: Some(Scalar::Untyped),
        list: Some(List {
            element: element.into(),
            relation: Relation::Atomic,
            keys: Vec::new(),
        }),
        map: Some(Map {
            fields: BTreeMap::new(),
            element: Some(member.into()),
            relation,
            deduced: relation == Relation::Separable,
        }),
    }
}

impl<'s> Type<'s> {
    /// What it allows; None when its definition is missing or cannot take the relation asked for.
    pub fn atom(self) -> Option<Atom<'s>> {
        let def = self.schema.types.get(self.reference.id.0)?;
        let relation = self.reference.relation;
        if relation.is_some() && def.map.is_none() && def.list.is_none() {
            return None;
        }
        Some(Atom {
            schema: self.schema,
            scalar: def.scalar,
            list: def.list.as_ref(),
            map: def.map.as_ref(),
            relation,
        })
    }
}

impl<'s> Atom<'s> {
    /// Cut down to the form that `value` has, if it may have it.
    pub fn deduce(self, value: Option<&Value>) -> Atom<'s> {
        let nothing = Atom {
            scalar: None,
            list: None,
            map: None,
            ..self
        };
        match value {
            None | Some(Value::Null) => self,
            Some(Value::Array(_)) if self.list.is_some() => Atom {
                list: self.list,
                ..nothing
            },
            Some(Value::Object(_)) if self.map.is_some() => Atom {
                map: self.map,
                ..nothing
            },
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) if self.scalar.is_some() => {
                Atom {
                    scalar: self.scalar,
                    ..nothing
                }
            }
            Some(_) => self,
        }
    }

    /// Whether both, cut down from the same type, are of the same form.
    pub fn is_like(&self, other: &Atom<'_>) -> bool {
        let forms = |atom: &Atom<'_>| {
            (
                atom.scalar.is_some(),
                atom.list.is_some(),
                atom.map.is_some(),
            )
        };
        forms(self) == forms(other)
    }

    /// How the members of its map belong together.
    pub fn map_relation(&self) -> Option<Relation> {
        let map = self.map?;
        Some(self.relation.unwrap_or(map.relation))
    }

    /// How the elements of its list belong together. A type that is a map too keeps what the list says.
    pub fn list_relation(&self) -> Option<Relation> {
        let list = self.list?;
        let told = self.relation.filter(|_| self.map.is_none());
        Some(told.unwrap_or(list.relation))
    }

    /// The type of a member of its map; None when there may be none of that name.
    pub fn member(&self, name: &str) -> Option<Type<'s>> {
        let map = self.map?;
        let reference = match map.fields.get(name) {
            Some(field) => Some(field.r#type),
            None => map.element,
        };
        Some(self.schema.refer(reference?))
    }

    /// The type of its list's elements.
    pub fn element(&self) -> Option<Type<'s>> {
        Some(self.schema.refer(self.list?.element))
    }
}
