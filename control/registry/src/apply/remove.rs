//! Taking fields out of a value. Rules: structured-merge-diff's `typed/remove.go`: scalars stay where their parent does, and
//! below what is owned as a whole nothing can be taken.

use super::element::Element;
use super::schema::{Relation, Type};
use super::set::Set;
use super::walk::{Form, form, resolve, step_to};
use serde_json::{Map, Value};

impl Type<'_> {
    /// `value` without these fields.
    pub fn remove(self, value: &Value, fields: &Set) -> Value {
        remove(Some(self), value, fields)
    }
}

fn remove(r#type: Option<Type<'_>>, value: &Value, fields: &Set) -> Value {
    // A type that says nothing has been refused by validation.
    let Ok(atom) = resolve(r#type).map(|atom| atom.deduce(Some(value))) else {
        return Value::Null;
    };
    match (form(&atom), value) {
        (Ok(Form::Scalar(_)), value) => value.clone(),
        (Ok(Form::List(list, relation)), Value::Array(items)) if relation != Relation::Atomic => {
            let kept = items.iter().filter_map(|item| {
                let Ok(step) = step_to(&atom, list, item) else {
                    return Some(item.clone());
                };
                match (fields.has_member(&step), fields.below(&step)) {
                    (true, _) => None,
                    (false, Some(below)) => Some(remove(atom.element(), item, below)),
                    (false, None) => Some(item.clone()),
                }
            });
            let kept: Vec<Value> = kept.collect();
            match kept.is_empty() {
                true => Value::Null,
                false => Value::Array(kept),
            }
        }
        (Ok(Form::Map(_, relation)), Value::Object(map)) if relation != Relation::Atomic => {
            let kept = map.iter().filter_map(|(name, value)| {
                let step = Element::field(name);
                let value = match (fields.has_member(&step), fields.below(&step)) {
                    (true, _) => return None,
                    (false, Some(below)) => remove(atom.member(name), value, below),
                    (false, None) => value.clone(),
                };
                Some((name.clone(), value))
            });
            let kept: Map<String, Value> = kept.collect();
            match kept.is_empty() {
                true => Value::Null,
                false => Value::Object(kept),
            }
        }
        _ => Value::Null,
    }
}
