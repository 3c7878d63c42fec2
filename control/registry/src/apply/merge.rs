//! Merging what is applied into what is there: nothing is removed, the applied value wins, elements of lists are told apart
//! by key or value and keep an order that both sides can agree with. Rules: structured-merge-diff's `typed/merge.go`.

use super::element::Element;
use super::schema::{Atom, List, Relation, Type};
use super::walk::{Fault, Form, check_scalar, form, items, members, resolve, step_to};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Type<'_> {
    /// `live` with `applied` merged into it.
    pub fn merge(self, live: &Value, applied: &Value) -> Result<Value, Fault> {
        Ok(merge(Some(self), Some(live), Some(applied))?.unwrap_or(Value::Null))
    }
}

fn merge(
    r#type: Option<Type<'_>>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, Fault> {
    let atom = resolve(r#type)?;
    let (left, right) = (atom.deduce(live), atom.deduce(applied));
    match (live, applied) {
        (None, None) => Err(Fault::new("at least one of both sides must be given")),
        (_, None) => merge_as(&left, live, applied),
        (None, _) => merge_as(&right, live, applied),
        _ if left.is_like(&right) => merge_as(&right, live, applied),
        _ => {
            merge_as(&left, live, applied)?;
            merge_as(&right, live, applied)
        }
    }
}

fn merge_as(
    atom: &Atom<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, Fault> {
    let leaf = || Ok(applied.or(live).cloned());
    match form(atom)? {
        Form::Scalar(scalar) => {
            let sides = [live, applied]
                .map(|side| side.map_or(Ok(()), |value| check_scalar(scalar, value)));
            match sides {
                [Err(fault), Err(_)] => Err(fault),
                _ => leaf(),
            }
        }
        Form::Map(_, relation) => {
            let (left, right) = (members(live), members(applied));
            let is_empty = |map: Option<&Map<String, Value>>| map.is_none_or(Map::is_empty);
            if relation == Relation::Atomic || (is_empty(left) && is_empty(right)) {
                return leaf();
            }
            merge_members(atom, left, right)
        }
        Form::List(list, relation) => {
            let (left, right) = (items(live), items(applied));
            if relation == Relation::Atomic || (left.is_empty() && right.is_empty()) {
                return leaf();
            }
            merge_items(atom, list, left, right)
        }
    }
}

fn merge_members(
    atom: &Atom<'_>,
    live: Option<&Map<String, Value>>,
    applied: Option<&Map<String, Value>>,
) -> Result<Option<Value>, Fault> {
    let mut merged = Map::new();
    let names = live.into_iter().chain(applied).flat_map(Map::keys);
    for name in names {
        if merged.contains_key(name) {
            continue;
        }
        let left = live.and_then(|map| map.get(name));
        let right = applied.and_then(|map| map.get(name));
        let value = merge(atom.member(name), left, right);
        if let Some(value) = value.map_err(|fault| fault.under(&Element::field(name)))? {
            merged.insert(name.clone(), value);
        }
    }
    Ok((!merged.is_empty()).then_some(Value::Object(merged)))
}

/// A side of a list: its steps in order, and the value of each; None for what comes twice, which is never merged.
struct Side<'v> {
    steps: Vec<Element>,
    values: BTreeMap<Element, Option<&'v Value>>,
}

impl<'v> Side<'v> {
    fn read(
        atom: &Atom<'_>,
        list: &List,
        items: &'v [Value],
        may_repeat: bool,
    ) -> Result<Self, Fault> {
        let mut side = Side {
            steps: Vec::with_capacity(items.len()),
            values: BTreeMap::new(),
        };
        for (at, item) in items.iter().enumerate() {
            let step = step_to(atom, list, item)
                .map_err(|fault| Fault::new(format!("element {at}: {}", fault.text)))?;
            if side.values.contains_key(&step) {
                if !may_repeat {
                    return Err(Fault::new(format!("duplicate entries for key {step}")));
                }
                side.values.insert(step.clone(), None);
            } else {
                side.values.insert(step.clone(), Some(item));
            }
            side.steps.push(step);
        }
        Ok(side)
    }

    /// None when the element is absent; null when it comes twice.
    fn value(&self, step: &Element) -> Option<&'v Value> {
        self.values
            .get(step)
            .map(|value| value.unwrap_or(&Value::Null))
    }
}

fn merge_items(
    atom: &Atom<'_>,
    list: &List,
    live: &[Value],
    applied: &[Value],
) -> Result<Option<Value>, Fault> {
    let right = Side::read(atom, list, applied, false)?;
    let left = Side::read(atom, list, live, true)?;
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    // What a fault within an element would be, validation has told before.
    let mut take = |left: Option<&Value>, right: Option<&Value>| {
        merged.extend(merge(atom.element(), left, right).ok().flatten());
    };
    let shared = right
        .steps
        .iter()
        .filter(|step| left.values.contains_key(step));
    let mut shared: VecDeque<&Element> = shared.collect();
    let mut next_shared = shared.pop_front();
    let mut done = BTreeSet::new();
    let (mut l, mut r) = (0, 0);
    while l < left.steps.len() || r < right.steps.len() {
        if let (Some(step), Some(applied)) = (left.steps.get(l), right.steps.get(r)) {
            if step == applied {
                done.insert(step);
                take(left.value(step), right.value(step));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.pop_front();
                continue;
            }
            let is_later = next_shared.is_some_and(|next| next != step);
            if right.values.contains_key(step) && is_later {
                l += 1; // A shared element, but not the one whose turn it is.
                continue;
            }
        }
        if let Some(step) = left.steps.get(l) {
            if !right.values.contains_key(step) {
                take(Some(&live[l]), None);
                l += 1;
                continue;
            }
            if done.contains(step) {
                l += 1; // Merged already: it must not come twice.
            }
        }
        if let Some(step) = right.steps.get(r) {
            done.insert(step);
            take(left.value(step), right.value(step));
            r += 1;
            if next_shared == Some(step) {
                next_shared = shared.pop_front();
            }
        }
    }
    Ok((!merged.is_empty()).then_some(Value::Array(merged)))
}
