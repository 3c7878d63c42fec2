//! Admission policies: which of them speak about a request, and what their expressions say of it, or make of its object. Rules and
//! words: Kubernetes' admissionregistration/v1 and its references of validating and mutating admission policies. Never reads the store: parameters and
//! namespaces are handed in.

mod change;
mod judge;
mod matching;

pub use change::{Mutation, change};
pub use judge::{Failure, Inputs, Verdict, judge};
pub use matching::{Asked, matches_resources};

use cel::{Environment, Program, Shape};
use serde_json::Value;
use std::sync::Arc;

/// The group of policies and bindings.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// All policies of a cluster with their bindings.
#[derive(Default)]
pub struct Policies {
    bound: Bound,
    /// Those that change objects.
    mutating: Bound,
}

type Bound = Vec<(Arc<Policy>, Binding)>;

/// A policy, its expressions compiled.
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `spec.matchConstraints`.
    pub constraints: Value,
    /// `apiVersion` and `kind` of its parameters, if it takes any.
    pub param_kind: Option<(String, String)>,
    /// Whether what cannot be judged is refused.
    pub fails_closed: bool,
    conditions: Vec<(String, Compiled)>,
    variables: Vec<(String, Program)>,
    /// Why a variable cannot be compiled.
    broken: Option<String>,
    validations: Vec<Validation>,
    mutations: Vec<Mutation>,
    /// Whether it is asked again after others changed the object.
    pub is_reinvoked: bool,
    annotations: Vec<(String, Compiled)>,
}

type Compiled = Result<Program, String>;

struct Validation {
    expression: Compiled,
    text: String,
    message: String,
    message_expression: Option<Program>,
    reason: String,
}

/// Where a policy holds, and what happens to what breaks it.
pub struct Binding {
    /// Its name.
    pub name: String,
    /// `spec.paramRef`.
    pub param_ref: Value,
    /// `spec.matchResources`.
    pub resources: Value,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

impl Policies {
    /// Compiles policies and binds them; those that change objects apart.
    pub fn new(validating: [&[Value]; 2], mutating: [&[Value]; 2]) -> Self {
        Policies {
            bound: Policies::bind(validating),
            mutating: Policies::bind(mutating),
        }
    }

    /// By the names of policies, then of bindings.
    fn bind([policies, bindings]: [&[Value]; 2]) -> Bound {
        let policies: Vec<Arc<Policy>> = policies
            .iter()
            .map(|policy| Arc::new(Policy::read(policy)))
            .collect();
        let bound = bindings.iter().filter_map(|binding| {
            let wanted = binding["spec"]["policyName"].as_str()?;
            let policy = policies.iter().find(|policy| policy.name == wanted)?;
            Some((policy.clone(), Binding::read(binding)))
        });
        let mut bound: Bound = bound.collect();
        bound.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        bound
    }

    /// Each policy that judges with each of its bindings.
    pub fn validating(&self) -> impl ExactSizeIterator<Item = (&Policy, &Binding)> {
        let bound = self.bound.iter();
        bound.map(|(policy, binding)| (&**policy, binding))
    }

    /// Each policy that changes objects with each of its bindings.
    pub fn mutating(&self) -> impl ExactSizeIterator<Item = (&Policy, &Binding)> {
        let bound = self.mutating.iter();
        bound.map(|(policy, binding)| (&**policy, binding))
    }
}

impl Policy {
    fn read(policy: &Value) -> Policy {
        let spec = &policy["spec"];
        let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
        let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
        let param_kind = spec["paramKind"].as_object();
        let mut environment = environment(param_kind.is_some());
        let compile = |text: &str, environment: &Environment| {
            cel::compile(text, environment).map_err(|error| format!("compilation failed: {error}"))
        };
        let bare = environment.clone();
        let conditions = list("matchConditions");
        let conditions = conditions.iter().map(|condition| {
            (
                text(condition, "name"),
                compile(&text(condition, "expression"), &bare),
            )
        });
        let mut variables = Vec::new();
        let mut broken = None;
        environment = environment.composed();
        for variable in list("variables") {
            match compile(&text(&variable, "expression"), &environment) {
                Ok(program) => {
                    environment.declare(&text(&variable, "name"), &program);
                    variables.push((text(&variable, "name"), program));
                }
                Err(why) => broken = broken.or(Some(why)),
            }
        }
        let validations = list("validations");
        let validations = validations.iter().map(|validation| Validation {
            expression: compile(&text(validation, "expression"), &environment),
            text: text(validation, "expression").trim().to_owned(),
            message: text(validation, "message").trim().to_owned(),
            message_expression: match text(validation, "messageExpression").as_str() {
                "" => None,
                told => compile(told, &environment).ok(),
            },
            reason: text(validation, "reason"),
        });
        let annotations = list("auditAnnotations");
        let annotations = annotations.iter().map(|annotation| {
            (
                text(annotation, "key"),
                compile(&text(annotation, "valueExpression"), &environment),
            )
        });
        let mutations = list("mutations");
        let mutations = mutations.iter().map(|mutation| {
            let compile = |text: &str| compile(text, &environment);
            Mutation::read(mutation, compile)
        });
        Policy {
            mutations: mutations.collect(),
            is_reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            name: text(&policy["metadata"], "name"),
            constraints: spec["matchConstraints"].clone(),
            param_kind: param_kind.map(|_| {
                (
                    text(&spec["paramKind"], "apiVersion"),
                    text(&spec["paramKind"], "kind"),
                )
            }),
            fails_closed: spec["failurePolicy"] != "Ignore",
            conditions: conditions.collect(),
            validations: validations.collect(),
            annotations: annotations.collect(),
            variables,
            broken,
        }
    }
}

/// What the expressions of a policy may name.
pub fn environment(has_params: bool) -> Environment {
    let mut environment = Environment::new().authorizer();
    for name in ["object", "oldObject", "request", "namespaceObject"] {
        environment = environment.variable(name, Shape::Any);
    }
    match has_params {
        true => environment.variable("params", Shape::Any),
        false => environment,
    }
}

impl Binding {
    fn read(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        Binding {
            name: binding["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            param_ref: spec["paramRef"].clone(),
            resources: spec["matchResources"].clone(),
            actions: actions
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether it asks for an action.
    pub fn wants(&self, action: &str) -> bool {
        self.actions.iter().any(|wanted| wanted == action)
    }
}
