//! One typed value: whether it fits its type, and which fields it names. Rules: structured-merge-diff's `typed` package.

use super::element::Element;
use super::schema::{Atom, List, Relation, Type};
use super::set::{Node, Set};
use super::walk::{Fault, Form, check_scalar, form, resolve, step_to};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether a set or a list with keys may hold the same element twice: what is stored may, what is applied may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// They are taken as they come.
    Allow,
    /// They are a fault.
    Refuse,
}

impl<'s> Type<'s> {
    /// Whether `value` fits; every fault.
    pub fn validate(self, value: &Value, duplicates: Duplicates) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        validate(Some(self), value, duplicates, &mut faults);
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults),
        }
    }

    /// The fields that `value` names: leaves, elements of lists, members of maps.
    pub fn field_set(self, value: &Value) -> Result<Set, Fault> {
        Ok(fields(Some(self), value)?.below)
    }
}

fn validate(
    r#type: Option<Type<'_>>,
    value: &Value,
    duplicates: Duplicates,
    faults: &mut Vec<Fault>,
) {
    let first_new = faults.len();
    let atom = match resolve(r#type) {
        Ok(atom) => atom.deduce(Some(value)),
        Err(fault) => return faults.push(fault),
    };
    let below = |step: &Element, r#type, value, faults: &mut Vec<Fault>| {
        let from = faults.len();
        validate(r#type, value, duplicates, faults);
        for fault in &mut faults[from..] {
            *fault = std::mem::take(fault).under(step);
        }
    };
    match (form(&atom), value) {
        (Err(fault), _) => faults.push(fault),
        (Ok(Form::Scalar(scalar)), value) => faults.extend(check_scalar(scalar, value).err()),
        (Ok(_), Value::Null) => {}
        (Ok(Form::Map(..)), Value::Object(map)) => {
            for (name, value) in map {
                below(&Element::field(name), atom.member(name), value, faults);
            }
        }
        (Ok(Form::List(list, relation)), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                let step = match relation {
                    Relation::Associative => step_to(&atom, list, item),
                    _ => Ok(Element::Index(at as i64)),
                };
                let step = match step {
                    Ok(step) => step,
                    Err(fault) => {
                        faults.push(Fault::new(format!("element {at}: {}", fault.text)));
                        return;
                    }
                };
                below(&step, atom.element(), item, faults);
                if !seen.insert(step.clone()) && duplicates == Duplicates::Refuse {
                    faults.push(Fault::new(format!("duplicate entries for key {step}")));
                }
            }
        }
        (Ok(Form::Map(..)), _) => faults.push(Fault::new("expected map")),
        (Ok(Form::List(..)), _) => faults.push(Fault::new("expected list")),
    }
    debug_assert!(faults.len() >= first_new);
}

fn fields(r#type: Option<Type<'_>>, value: &Value) -> Result<Node, Fault> {
    let atom = resolve(r#type)?.deduce(Some(value));
    let leaf = Node {
        member: true,
        below: Set::default(),
    };
    match form(&atom)? {
        Form::Scalar(_) | Form::List(_, Relation::Atomic) | Form::Map(_, Relation::Atomic) => {
            Ok(leaf)
        }
        Form::List(list, _) => fields_of_list(&atom, list, value),
        Form::Map(map, _) => {
            let mut node = Node::default();
            for (name, value) in value.as_object().into_iter().flatten() {
                let step = Element::field(name);
                let mut inner =
                    fields(atom.member(name), value).map_err(|fault| fault.under(&step))?;
                let is_empty =
                    value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                inner.member |= is_empty || !map.fields.contains_key(name);
                node.below.attach(step, inner);
            }
            Ok(node)
        }
    }
}

/// Elements that come twice are owned as one, without what lies below them.
fn fields_of_list(atom: &Atom<'_>, list: &List, value: &Value) -> Result<Node, Fault> {
    let mut node = Node::default();
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let steps: Vec<Option<Element>> = items
        .iter()
        .map(|item| step_to(atom, list, item).ok())
        .collect();
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&Element> = steps
        .iter()
        .flatten()
        .filter(|step| !seen.insert(*step))
        .collect();
    for (item, step) in items.iter().zip(&steps) {
        let Some(step) = step else { continue };
        let below = match twice.contains(step) {
            true => Set::default(),
            false => {
                fields(atom.element(), item)
                    .map_err(|fault| fault.under(step))?
                    .below
            }
        };
        node.below.attach(
            step.clone(),
            Node {
                member: true,
                below,
            },
        );
    }
    Ok(node)
}
