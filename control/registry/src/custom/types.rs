//! A custom kind's type as applies see it: which lists are sets or maps, what is owned as a whole. Where nothing is said, what is there
//! tells. Rules: as structured-merge-diff reads a structural schema.

use super::schema::{Additional, Schema};
use crate::apply::schema::{
    self, Field, List, Map, Relation, Scalar, Type, TypeDef, TypeId, TypeRef,
};
use cel::ListKind;

use std::collections::BTreeMap;

const ROOT: &str = "root";

/// The types of a kind.
pub fn compile(root: &Schema) -> schema::Schema {
    let mut compiler = Compiler {
        schema: schema::Schema::default(),
    };
    let (untyped, deduced) = (compiler.schema.untyped(), compiler.schema.deduced());
    let metadata = compiler.metadata(untyped);
    let whole = compiler.schema.declare(ROOT);
    let mut fields = compiler.fields(root, deduced);
    compiler.add_own(&mut fields, metadata);
    let map = Map {
        fields,
        element: root.preserves.then(|| deduced.into()),
        relation: Relation::Separable,
        deduced: false,
    };
    compiler.schema.define(
        whole,
        TypeDef {
            map: Some(map),
            ..TypeDef::default()
        },
    );
    compiler.schema
}

/// The type of the whole object.
pub fn root(schema: &schema::Schema) -> Type<'_> {
    schema.named(ROOT).expect("compile declares it")
}

struct Compiler {
    schema: schema::Schema,
}

impl Compiler {
    fn fields(&mut self, of: &Schema, deduced: TypeId) -> BTreeMap<String, Field> {
        let mut fields = BTreeMap::new();
        for (name, property) in &of.properties {
            let field = Field {
                r#type: self.value(property, deduced),
                default: property.default.clone(),
                absent: None,
            };
            fields.insert(name.clone(), field);
        }
        fields
    }

    fn add_own(&mut self, fields: &mut BTreeMap<String, Field>, metadata: TypeId) {
        let text = self.scalar(Scalar::Text);
        for (name, r#type) in [
            ("apiVersion", text),
            ("kind", text),
            ("metadata", metadata.into()),
        ] {
            fields.insert(name.to_owned(), plain(r#type));
        }
    }

    fn value(&mut self, of: &Schema, deduced: TypeId) -> TypeRef {
        if of.int_or_string {
            return self.scalar(Scalar::Untyped);
        }
        match of.kind.as_str() {
            "string" => self.scalar(Scalar::Text),
            "integer" | "number" => self.scalar(Scalar::Numeric),
            "boolean" => self.scalar(Scalar::Boolean),
            "array" => {
                let element = match &of.items {
                    Some(items) => self.value(items, deduced),
                    None => deduced.into(),
                };
                let keys = match &of.list {
                    ListKind::Map(keys) => keys.clone(),
                    _ => Vec::new(),
                };
                let list = List {
                    element,
                    relation: of.relation(),
                    keys,
                };
                self.schema
                    .add(TypeDef {
                        list: Some(list),
                        ..TypeDef::default()
                    })
                    .into()
            }
            "object" => {
                let fields = self.fields(of, deduced);
                let element = match &of.additional {
                    Additional::Of(of) => Some(self.value(of, deduced)),
                    Additional::Any => Some(deduced.into()),
                    Additional::None if of.preserves || of.embedded => Some(deduced.into()),
                    Additional::None => None,
                };
                let map = Map {
                    fields,
                    element,
                    relation: of.relation(),
                    deduced: false,
                };
                self.schema
                    .add(TypeDef {
                        map: Some(map),
                        ..TypeDef::default()
                    })
                    .into()
            }
            _ => deduced.into(),
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> TypeRef {
        self.schema
            .add(TypeDef {
                scalar: Some(scalar),
                ..TypeDef::default()
            })
            .into()
    }

    /// ObjectMeta, as far as its lists and maps matter.
    fn metadata(&mut self, untyped: TypeId) -> TypeId {
        let any = self.scalar(Scalar::Untyped);
        let text = self.scalar(Scalar::Text);
        let texts = Map {
            fields: BTreeMap::new(),
            element: Some(text),
            relation: Relation::Separable,
            deduced: false,
        };
        let texts = self.schema.add(TypeDef {
            map: Some(texts),
            ..TypeDef::default()
        });
        let finalizers = List {
            element: text,
            relation: Relation::Associative,
            keys: Vec::new(),
        };
        let finalizers = self.schema.add(TypeDef {
            list: Some(finalizers),
            ..TypeDef::default()
        });
        let members = [
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ];
        let owner = Map {
            fields: members
                .iter()
                .map(|name| ((*name).to_owned(), plain(any)))
                .collect(),
            element: None,
            relation: Relation::Atomic,
            deduced: false,
        };
        let owner = self.schema.add(TypeDef {
            map: Some(owner),
            ..TypeDef::default()
        });
        let owners = List {
            element: owner.into(),
            relation: Relation::Associative,
            keys: vec!["uid".to_owned()],
        };
        let owners = self.schema.add(TypeDef {
            list: Some(owners),
            ..TypeDef::default()
        });
        let scalars = [
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ];
        let mut fields: BTreeMap<String, Field> = scalars
            .iter()
            .map(|name| ((*name).to_owned(), plain(any)))
            .collect();
        let others: [(&str, TypeId); 5] = [
            ("labels", texts),
            ("annotations", texts),
            ("finalizers", finalizers),
            ("ownerReferences", owners),
            ("managedFields", untyped),
        ];
        fields.extend(others.map(|(name, id)| (name.to_owned(), plain(id.into()))));
        let map = Map {
            fields,
            element: None,
            relation: Relation::Separable,
            deduced: false,
        };
        self.schema.add(TypeDef {
            map: Some(map),
            ..TypeDef::default()
        })
    }
}

fn plain(r#type: TypeRef) -> Field {
    Field {
        r#type,
        default: None,
        absent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Duplicates;
    use serde_json::json;

    #[test]
    fn lists_with_keys_and_free_members_are_told_apart() {
        let schema = Schema::read(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}}}),
        );
        let types = compile(&schema);
        let object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"ports": [{"name": "one", "port": 1}], "any": {"deep": {"er": 1}}}});
        let set = root(&types).field_set(&object).unwrap();
        let text = serde_json::to_string(&set.encode()).unwrap();
        assert!(
            text.contains(r#"f:ports":{"k:{\"name\":\"one\"}"#),
            "{text}"
        );
        assert!(text.contains(r#""f:deep":{".":{},"f:er":{}"#), "{text}");
        let unknown = json!({"spec": {"other": 1}});
        assert!(root(&types).validate(&unknown, Duplicates::Refuse).is_err());
    }
}
