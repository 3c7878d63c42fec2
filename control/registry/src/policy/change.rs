//! What a policy makes of an object: each of its mutations sees what those before it made, and is a JSON patch or a configuration
//! to apply. Rules: Kubernetes' `patch` package of its mutating admission policies.

use super::judge::{Inputs, begin, variables};
use super::{Compiled, Policy};
use crate::apply::schema::{Atom, Relation, Type};
use cel::{Budget, Evaluation};
use objects::patch;
use serde_json::{Map, Value};

/// One change that a policy makes.
pub struct Mutation {
    kind: Kind,
    expression: Compiled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    JsonPatch,
    Apply,
}

impl Mutation {
    /// Reads a mutation of a policy's.
    pub fn read(mutation: &Value, compile: impl Fn(&str) -> Compiled) -> Self {
        let (kind, member) = match mutation["patchType"].as_str() {
            Some("JSONPatch") => (Kind::JsonPatch, "jsonPatch"),
            _ => (Kind::Apply, "applyConfiguration"),
        };
        let text = mutation[member]["expression"].as_str();
        Mutation {
            kind,
            expression: compile(text.unwrap_or_default()),
        }
    }
}

/// The object as the policy makes it; None when its conditions do not hold, an error when it cannot be said.
pub fn change(
    policy: &Policy,
    inputs: &Inputs<'_>,
    r#type: Type<'_>,
    budget: &mut Budget,
) -> Result<Option<Value>, String> {
    if begin(policy, inputs)?.is_none() {
        return Ok(None);
    }
    let mut object = inputs.object.clone();
    for mutation in &policy.mutations {
        object = one(policy, mutation, inputs, &object, r#type, budget)?;
    }
    Ok(Some(object))
}

fn one(
    policy: &Policy,
    mutation: &Mutation,
    inputs: &Inputs<'_>,
    object: &Value,
    r#type: Type<'_>,
    budget: &mut Budget,
) -> Result<Value, String> {
    let program = mutation.expression.as_ref().map_err(String::clone)?;
    let inputs = Inputs { object, ..*inputs };
    let made = Evaluation::new(variables(policy, &inputs), budget).eval(program);
    let made = made.map_err(|error| {
        let text = program.text().trim();
        format!("expression '{text}' resulted in error: {error}")
    })?;
    match mutation.kind {
        Kind::JsonPatch => {
            let mut changed = object.clone();
            patch::json_patch(&mut changed, &operations(made)?)
                .map_err(|error| format!("JSON Patch: {error}"))?;
            Ok(changed)
        }
        Kind::Apply => apply(object, made, r#type),
    }
}

/// The operations of a list of `JSONPatch{..}`; one without a value sets null.
fn operations(made: Value) -> Result<Value, String> {
    let Value::Array(operations) = made else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let whole = operations.into_iter().map(|mut operation| {
        let needs = matches!(operation["op"].as_str(), Some("add" | "replace" | "test"));
        let members = operation
            .as_object_mut()
            .ok_or("type mismatch: an operation of a JSON patch should be JSONPatch{}")?;
        if needs && !members.contains_key("value") {
            members.insert("value".to_owned(), Value::Null);
        }
        Ok(operation)
    });
    whole
        .collect::<Result<Vec<Value>, String>>()
        .map(Value::Array)
}

/// Merges what `Object{..}` says into the object. What is owned as a whole may not be part of it: a policy would take all of it.
fn apply(object: &Value, made: Value, r#type: Type<'_>) -> Result<Value, String> {
    let Value::Object(mut made) = made else {
        return Err(
            "type mismatch: ApplyConfiguration.expression should evaluate to Object".to_owned(),
        );
    };
    for member in ["apiVersion", "kind"] {
        made.insert(member.to_owned(), object[member].clone());
    }
    let mut atomic = Vec::new();
    find_atomic(r#type, &Value::Object(made.clone()), "", &mut atomic);
    if !atomic.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomic.join(", ")
        ));
    }
    let merged = r#type.merge(object, &Value::Object(made));
    merged.map_err(|fault| format!("ApplyConfiguration: {fault}"))
}

fn find_atomic(r#type: Type<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    let Some(atom) = r#type.atom().map(|atom| atom.deduce(Some(value))) else {
        return;
    };
    let is_atomic = |relation: Option<Relation>| relation == Some(Relation::Atomic);
    match value {
        Value::Object(_) if is_atomic(atom.map_relation()) && !path.is_empty() => {
            found.push(path.to_owned());
        }
        Value::Array(_) if is_atomic(atom.list_relation()) => found.push(path.to_owned()),
        Value::Object(map) => members(&atom, map, path, found),
        Value::Array(items) => {
            for item in items {
                if let Some(of) = atom.element() {
                    find_atomic(of, item, path, found);
                }
            }
        }
        _ => {}
    }
}

fn members(atom: &Atom<'_>, map: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
    for (name, value) in map {
        if let Some(of) = atom.member(name) {
            find_atomic(of, value, &format!("{path}.{name}"), found);
        }
    }
}
