//! `x-kubernetes-validations`: expressions that values must hold to. Compiled when the definition is read; one that does not compile
//! was refused when the definition was written, so that it is left out here.

use super::check::{same_element, type_of};
use super::schema::{Additional, Schema, of_object};
use crate::Faults;
use cel::{Budget, Environment, Error, Evaluation, Inputs, Program, Shape};
use serde_json::Value;
use std::sync::Arc;

/// The rules of one value of a schema.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// The type of `self`.
    shape: Arc<Shape>,
}

#[derive(Clone, Debug)]
struct Rule {
    at: usize,
    program: Program,
    message: String,
    message_expression: Option<Program>,
    reason: String,
    field_path: String,
    is_transition: bool,
    takes_optional_old: bool,
}

/// What is wrong with a rule, and in which of its members.
pub struct Wrong {
    /// Which rule.
    pub at: usize,
    /// `rule` or `messageExpression`.
    pub member: &'static str,
    /// The text of the member.
    pub text: String,
    /// Why.
    pub why: String,
}

impl Rules {
    /// All expressions: which rule's, in which member.
    pub fn programs(&self) -> impl Iterator<Item = (usize, &'static str, &Program)> {
        self.rules.iter().flat_map(|rule| {
            let told = rule.message_expression.as_ref();
            let told = told.map(|program| (rule.at, "messageExpression", program));
            std::iter::once((rule.at, "rule", &rule.program)).chain(told)
        })
    }

    /// The rules that compile.
    pub fn read(source: Option<&Value>, shape: &Shape) -> Rules {
        compile(source, shape).0
    }
}

/// The rules that compile, and what is wrong with the others.
pub fn compile(source: Option<&Value>, shape: &Shape) -> (Rules, Vec<Wrong>) {
    let mut wrong = Vec::new();
    let mut rules = Vec::new();
    let list = source.and_then(Value::as_array).into_iter().flatten();
    for (at, rule) in list.enumerate() {
        let text = |name: &str| {
            rule.get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let takes_optional_old = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
        let old = match takes_optional_old {
            true => Shape::Optional(Arc::new(shape.clone())),
            false => shape.clone(),
        };
        let environment = Environment::new()
            .variable("self", shape.clone())
            .variable("oldSelf", old);
        let mut compiled = |member: &'static str, wanted: Shape| {
            let text = text(member);
            if text.is_empty() {
                return None;
            }
            let why = match cel::compile(&text, &environment) {
                Ok(program) if [&wanted, &Shape::Any].contains(&program.answer()) => {
                    return Some(program);
                }
                Ok(_) if wanted == Shape::Bool => {
                    "cel expression must evaluate to a bool".to_owned()
                }
                Ok(_) => "messageExpression must evaluate to a string".to_owned(),
                Err(error) => format!("compilation failed: {error}"),
            };
            wrong.push(Wrong {
                at,
                member,
                text,
                why,
            });
            None
        };
        let message_expression = compiled("messageExpression", Shape::String);
        let Some(program) = compiled("rule", Shape::Bool) else {
            continue;
        };
        rules.push(Rule {
            at,
            is_transition: program.mentions("oldSelf"),
            program,
            message: text("message"),
            message_expression,
            reason: text("reason"),
            field_path: text("fieldPath"),
            takes_optional_old,
        });
    }
    let shape = Arc::new(shape.clone());
    (Rules { rules, shape }, wrong)
}

/// Judges a whole object by all rules of its schema; `old` is what it was before an update.
pub fn object(schema: &Schema, value: &Value, old: Option<&Value>, faults: &mut Faults) {
    let mut budget = Budget::new(cel::REQUEST_UNITS_MAX);
    let mut judge = Judge {
        budget: &mut budget,
        faults,
    };
    // Running out is told once, where it happened.
    let _ = judge.value(schema, value, old, "");
}

/// The types of the root's rules: expressions see the object's own type and name there.
pub fn root_shape(schema: &Schema) -> Shape {
    let fields = schema
        .properties
        .iter()
        .map(|(name, of)| (name.clone(), of.shape()));
    of_object(fields.collect())
}

struct Judge<'a> {
    budget: &'a mut Budget,
    faults: &'a mut Faults,
}

struct OutOfBudget;

impl Judge<'_> {
    fn value(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Result<(), OutOfBudget> {
        self.rules(&schema.rules, value, old, path)?;
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let of = match (schema.properties.get(name), &schema.additional) {
                        (Some(of), _) => of,
                        (None, Additional::Of(of)) => of,
                        (None, _) => continue,
                    };
                    let place = match path {
                        "" => name.clone(),
                        path => format!("{path}.{name}"),
                    };
                    self.value(of, value, old.and_then(|old| old.get(name)), &place)?;
                }
            }
            Value::Array(values) => {
                let Some(items) = &schema.items else {
                    return Ok(());
                };
                for (at, value) in values.iter().enumerate() {
                    let before = old.and_then(Value::as_array).into_iter().flatten();
                    let old = before
                        .into_iter()
                        .find(|before| same_element(&schema.list, before, value));
                    self.value(items, value, old, &format!("{path}[{at}]"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        rules: &Rules,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Result<(), OutOfBudget> {
        if value.is_null() {
            return Ok(());
        }
        for rule in &rules.rules {
            // A value that an update left as it was may stay so, even if it would be refused today.
            let unchanged = old == Some(value) && !rule.is_transition;
            let unborn = rule.is_transition && !rule.takes_optional_old && old.is_none();
            if unchanged || unborn {
                continue;
            }
            let inputs = Inputs::new().typed("self", value, &rules.shape);
            let inputs = match (old, rule.takes_optional_old) {
                (old, true) => inputs.optional("oldSelf", old.map(|old| (old, &*rules.shape))),
                (Some(old), false) => inputs.typed("oldSelf", old, &rules.shape),
                (None, false) => inputs,
            };
            let mut evaluation = Evaluation::new(inputs, self.budget);
            let told = match evaluation.holds(&rule.program) {
                Ok(true) => continue,
                Ok(false) => {
                    let made = rule.message_expression.as_ref();
                    let made = made.and_then(|program| evaluation.eval(program).ok());
                    let made = made.as_ref().and_then(Value::as_str).map(str::trim);
                    let made = made.filter(|text| !text.is_empty() && !text.contains('\n'));
                    made.map_or_else(|| rule.told(), str::to_owned)
                }
                Err(Error::Cost) => {
                    let told = "validation failed due to running out of cost budget, no further validation rules will be run";
                    self.faults.invalid_type(shown(path), type_of(value), told);
                    return Err(OutOfBudget);
                }
                Err(error) => format!("{error} evaluating rule: {}", rule.told()),
            };
            self.refuse(rule, value, path, &told);
        }
        Ok(())
    }

    fn refuse(&mut self, rule: &Rule, value: &Value, path: &str, told: &str) {
        let place = shown(&format!("{path}{}", rule.field_path))
            .trim_start_matches('.')
            .to_owned();
        match rule.reason.as_str() {
            "FieldValueForbidden" => self.faults.forbidden(place, told),
            "FieldValueRequired" => self.faults.required(place, told),
            "FieldValueDuplicate" => self.faults.duplicate(place, value),
            _ => self.faults.invalid_text(place, type_of(value), told),
        }
    }
}

impl Rule {
    fn told(&self) -> String {
        match self.message.is_empty() {
            true => format!("failed rule: {}", self.program.text()),
            false => self.message.clone(),
        }
    }
}

fn shown(path: &str) -> String {
    match path {
        "" => "<nil>".to_owned(),
        path => path.to_owned(),
    }
}
