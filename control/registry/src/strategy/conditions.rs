//! Match conditions: expressions that narrow down what is asked of whom. Rules and words: Kubernetes' `matchConditions`.

use super::edit::{self, Members};
use crate::Faults;
use cel::{Environment, Shape};
use serde_json::Value;
use std::collections::BTreeSet;

/// The most conditions of one list.
const CONDITIONS_MAX: usize = 64;

/// Checks the conditions of a configuration that is written.
pub fn check(hook: &Members, field: &str, faults: &mut Faults) {
    let environment = environment();
    let field = format!("{field}.matchConditions");
    let mut names = BTreeSet::new();
    let count = edit::read_list(hook, "matchConditions").len();
    if count > CONDITIONS_MAX {
        faults.invalid_text(
            &field,
            &count.to_string(),
            &format!("must have at most {CONDITIONS_MAX} items"),
        );
    }
    for (index, condition) in edit::read_maps(hook, "matchConditions") {
        let field = format!("{field}[{index}]");
        let (name, text) = (
            edit::read_text(condition, "name"),
            edit::read_text(condition, "expression"),
        );
        match name {
            "" => faults.required(format!("{field}.name"), ""),
            name => {
                let found = objects::names::qualified_name(name);
                faults.invalid_texts(format!("{field}.name"), name, &found);
                if !names.insert(name) {
                    faults.duplicate(format!("{field}.name"), &Value::from(name));
                }
            }
        }
        let field = format!("{field}.expression");
        if text.trim().is_empty() {
            faults.required(field, "");
        } else if let Err(error) = cel::compile(text, &environment) {
            faults.invalid_text(field, text, &format!("compilation failed: {error}"));
        }
    }
}

/// What conditions may name.
pub fn environment() -> Environment {
    ["object", "oldObject", "request"]
        .into_iter()
        .fold(Environment::new().authorizer(), |environment, name| {
            environment.variable(name, Shape::Any)
        })
}
