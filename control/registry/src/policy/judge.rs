//! What a policy says of a request, with one set of parameters.

use super::{Compiled, Policy, Validation};
use cel::{AccessQuery, Authorizer, Budget, Evaluation};
use serde_json::Value;

/// What the expressions see.
pub struct Inputs<'a> {
    /// The object; null for a delete.
    pub object: &'a Value,
    /// The object as it was; null for a create.
    pub old: &'a Value,
    /// The request, as `AdmissionRequest` has it.
    pub request: &'a Value,
    /// The namespace; null for what lives in none.
    pub namespace: &'a Value,
    /// The parameters; null for none.
    pub params: &'a Value,
    /// Whom to ask who may do what.
    pub authorizer: &'a dyn Authorizer,
    /// What `authorizer.requestResource` is about.
    pub access: &'a AccessQuery,
}

/// What a policy says.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// What is wrong.
    pub failures: Vec<Failure>,
    /// What could not be judged.
    pub errors: Vec<String>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

/// A validation that does not hold.
#[derive(Debug, Default, PartialEq)]
pub struct Failure {
    /// Its place among the policy's.
    pub index: usize,
    /// For people.
    pub message: String,
    /// The reason of a status; empty for the default.
    pub reason: String,
}

/// Judges a request; nothing when the policy's conditions do not hold.
pub fn judge(policy: &Policy, inputs: &Inputs<'_>, budget: &mut Budget) -> Verdict {
    let mut verdict = Verdict::default();
    let variables = match begin(policy, inputs) {
        Ok(Some(variables)) => variables,
        Ok(None) => return verdict,
        Err(why) => {
            verdict.errors.push(why);
            return verdict;
        }
    };
    let mut evaluation = Evaluation::new(variables, budget);
    for (index, validation) in policy.validations.iter().enumerate() {
        match holds(&validation.expression, &mut evaluation) {
            Ok(true) => {}
            Ok(false) => verdict.failures.push(Failure {
                index,
                message: told(validation, &mut evaluation),
                reason: validation.reason.clone(),
            }),
            Err(why) => {
                let text = &validation.text;
                verdict
                    .errors
                    .push(format!("expression '{text}' resulted in error: {why}"));
            }
        }
    }
    for (key, value) in &policy.annotations {
        let value = value.as_ref().map_err(String::clone);
        match value.and_then(|program| evaluation.eval(program).map_err(|error| error.to_string()))
        {
            Ok(Value::String(text)) => verdict.annotations.push((key.clone(), text)),
            Ok(Value::Null) => {}
            Ok(_) => verdict.errors.push(format!(
                "the value of the audit annotation {key} is no text"
            )),
            Err(why) => verdict.errors.push(why),
        }
    }
    verdict
}

/// What a policy's expressions may name; None when its conditions do not hold, an error when that cannot be said or a variable
/// is broken.
pub(super) fn begin<'a>(
    policy: &'a Policy,
    inputs: &Inputs<'a>,
) -> Result<Option<cel::Inputs<'a>>, String> {
    let variables = variables(policy, inputs);
    let mut conditions = Budget::new(cel::MATCH_CONDITIONS_UNITS_MAX);
    if !applies(
        policy,
        &mut Evaluation::new(variables.clone(), &mut conditions),
    )? {
        return Ok(None);
    }
    match &policy.broken {
        Some(why) => Err(why.clone()),
        None => Ok(Some(variables)),
    }
}

pub(super) fn variables<'a>(policy: &'a Policy, inputs: &Inputs<'a>) -> cel::Inputs<'a> {
    cel::Inputs::new()
        .json("object", inputs.object)
        .json("oldObject", inputs.old)
        .json("request", inputs.request)
        .json("namespaceObject", inputs.namespace)
        .json("params", inputs.params)
        .composed(&policy.variables)
        .authorizer(inputs.authorizer, inputs.access)
}

/// All conditions must hold; one that fails to be judged matters only where none says no.
fn applies(policy: &Policy, evaluation: &mut Evaluation<'_, '_>) -> Result<bool, String> {
    let mut failed = None;
    for (name, condition) in &policy.conditions {
        match holds(condition, evaluation) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => failed = Some(format!("matchCondition {name:?} resulted in error: {why}")),
        }
    }
    failed.map_or(Ok(true), Err)
}

fn holds(compiled: &Compiled, evaluation: &mut Evaluation<'_, '_>) -> Result<bool, String> {
    let program = compiled.as_ref().map_err(String::clone)?;
    evaluation.holds(program).map_err(|error| error.to_string())
}

fn told(validation: &Validation, evaluation: &mut Evaluation<'_, '_>) -> String {
    let made = validation.message_expression.as_ref();
    let made = made.and_then(|program| evaluation.eval(program).ok());
    let made = made.as_ref().and_then(Value::as_str).map(str::trim);
    let made = made.filter(|text| !text.is_empty() && !text.contains('\n'));
    match (made, validation.message.as_str()) {
        (Some(text), _) => text.to_owned(),
        (None, "") => format!("failed expression: {}", validation.text),
        (None, text) => text.to_owned(),
    }
}
