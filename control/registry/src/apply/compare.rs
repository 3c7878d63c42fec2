//! What differs between two values of a type, as sets of fields. Rules: structured-merge-diff's `typed/compare.go`.

use super::element::{Element, equal};
use super::schema::{Atom, List, Map, Relation, Type};
use super::set::{Node, Set};
use super::walk::{Fault, Form, check_scalar, form, items, members, resolve, step_to};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What became of fields from one value to another. No field is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Only the second has them.
    pub added: Set,
    /// Both have them, and they differ.
    pub modified: Set,
    /// Only the first has them.
    pub removed: Set,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Without `fields` and all below them.
    pub fn without(self, fields: &Set) -> Self {
        Comparison {
            added: self.added.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            removed: self.removed.recursive_difference(fields),
        }
    }
}

impl Type<'_> {
    /// What differs between `old` and `new`.
    pub fn compare(self, old: &Value, new: &Value) -> Result<Comparison, Fault> {
        let mut change = Change::default();
        compare(Some(self), Some(old), Some(new), &mut change)?;
        Ok(Comparison {
            added: change.added.below,
            modified: change.modified.below,
            removed: change.removed.below,
        })
    }
}

/// What differs at a place and below it.
#[derive(Default)]
struct Change {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Change {
    fn attach(&mut self, step: &Element, change: Change) {
        let parts = [
            (&mut self.added, change.added),
            (&mut self.modified, change.modified),
            (&mut self.removed, change.removed),
        ];
        for (all, part) in parts {
            if !part.is_empty() {
                all.below.attach(step.clone(), part);
            }
        }
    }
}

fn compare(
    r#type: Option<Type<'_>>,
    old: Option<&Value>,
    new: Option<&Value>,
    change: &mut Change,
) -> Result<(), Fault> {
    let atom = resolve(r#type)?;
    let (left, right) = (atom.deduce(old), atom.deduce(new));
    let is_leaf = match (old, new) {
        (None, None) => return Err(Fault::new("at least one of both sides must be given")),
        (_, None) => compare_as(&left, old, new, change)?,
        (None, _) => compare_as(&right, old, new, change)?,
        _ if left.is_like(&right) => compare_as(&right, old, new, change)?,
        _ => {
            compare_as(&left, old, new, change)?;
            compare_as(&right, old, new, change)?
        }
    };
    if !is_leaf {
        change.added.member |= old.is_none();
        change.removed.member |= new.is_none();
    }
    Ok(())
}

/// Whether the values were taken as leaves.
fn compare_as(
    atom: &Atom<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    change: &mut Change,
) -> Result<bool, Fault> {
    match form(atom)? {
        Form::Scalar(scalar) => {
            let sides =
                [old, new].map(|side| side.map_or(Ok(()), |value| check_scalar(scalar, value)));
            if let [Err(fault), Err(_)] = sides {
                return Err(fault);
            }
        }
        Form::Map(map, relation) => {
            let (left, right) = (members(old), members(new));
            let is_empty =
                left.is_none_or(|map| map.is_empty()) && right.is_none_or(|map| map.is_empty());
            if relation != Relation::Atomic && !is_empty {
                compare_members(atom, map, left, right, change)?;
                return Ok(false);
            }
        }
        Form::List(list, relation) => {
            let (left, right) = (items(old), items(new));
            if relation != Relation::Atomic && !(left.is_empty() && right.is_empty()) {
                compare_items(atom, list, left, right, change)?;
                return Ok(false);
            }
        }
    }
    match (old, new) {
        (None, _) => change.added.member = true,
        (_, None) => change.removed.member = true,
        (Some(old), Some(new)) if !equal(old, new) => change.modified.member = true,
        _ => {}
    }
    Ok(true)
}

fn compare_members(
    atom: &Atom<'_>,
    map: &Map,
    old: Option<&serde_json::Map<String, Value>>,
    new: Option<&serde_json::Map<String, Value>>,
    change: &mut Change,
) -> Result<(), Fault> {
    let names = old.into_iter().chain(new).flat_map(|map| map.keys());
    let names: BTreeSet<&String> = names.collect();
    for name in names {
        let step = Element::field(name);
        let absent = map.fields.get(name).and_then(|field| field.absent.as_ref());
        let left = old.and_then(|map| map.get(name).or(absent));
        let right = new.and_then(|map| map.get(name).or(absent));
        let mut inner = Change::default();
        compare(atom.member(name), left, right, &mut inner).map_err(|fault| fault.under(&step))?;
        change.attach(&step, inner);
    }
    Ok(())
}

fn compare_items(
    atom: &Atom<'_>,
    list: &List,
    old: &[Value],
    new: &[Value],
    change: &mut Change,
) -> Result<(), Fault> {
    let mut steps: BTreeMap<Element, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, values) in [old, new].into_iter().enumerate() {
        for (at, item) in values.iter().enumerate() {
            let step = step_to(atom, list, item)
                .map_err(|fault| Fault::new(format!("element {at}: {}", fault.text)))?;
            steps.entry(step).or_default()[side].push(item);
        }
    }
    for (step, [left, right]) in steps {
        let mut inner = Change::default();
        let mut between = |old: Option<&Value>, new: Option<&Value>| {
            compare(atom.element(), old, new, &mut inner).map_err(|fault| fault.under(&step))
        };
        match (&left[..], &right[..]) {
            ([] | [_], [] | [_]) => between(left.first().copied(), right.first().copied())?,
            // Elements that come twice are owned as one.
            ([_, _, ..], [_, _, ..]) => {
                let same = left.len() == right.len()
                    && left.iter().zip(&right).all(|(old, new)| equal(old, new));
                inner.modified.member = !same;
            }
            ([_, _, ..], _) => {
                if let Some(new) = right.first() {
                    between(None, Some(new))?;
                }
                inner.removed.member = true;
            }
            (_, [_, _, ..]) => {
                if let Some(old) = left.first() {
                    between(Some(old), None)?;
                }
                inner.added.member = true;
            }
        }
        change.attach(&step, inner);
    }
    Ok(())
}
