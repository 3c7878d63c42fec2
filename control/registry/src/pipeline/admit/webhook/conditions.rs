//! Match conditions: expressions that must all hold before a webhook is asked. Rules and words: Kubernetes' `matchConditions`.

use super::super::Attributes;
use crate::Caller;
use crate::pipeline::Pipeline;
use crate::rbac::Request;
use crate::strategy::conditions::environment;
use crate::strategy::edit::{self, Members};
use cel::{
    AccessQuery, Authorizer, Budget, Decision, Evaluation, Inputs, MATCH_CONDITIONS_UNITS_MAX,
    Program,
};
use objects::identities::service_account_user;
use serde_json::Value;

/// The conditions of a webhook.
pub struct Conditions(Vec<(String, Result<Program, String>)>);

/// What the conditions say.
pub enum Verdict {
    /// All hold.
    Holds,
    /// One does not.
    No,
    /// None says no, but one could not be evaluated.
    Failed(String),
}

impl Conditions {
    /// Reads those of a webhook.
    pub fn of(hook: &Members) -> Self {
        let environment = environment();
        let conditions = edit::read_maps(hook, "matchConditions").map(|(_, condition)| {
            let program = cel::compile(edit::read_text(condition, "expression"), &environment);
            let name = edit::read_text(condition, "name").to_owned();
            (name, program.map_err(|error| error.to_string()))
        });
        Conditions(conditions.collect())
    }

    /// Whether there are none, so that nothing has to be shown to them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Evaluates them over a review's request.
    pub fn judge(&self, pipeline: &Pipeline, asked: &Attributes<'_>, request: &Value) -> Verdict {
        let null = Value::Null;
        let member = |name: &str| request.get(name).unwrap_or(&null);
        let (authorizer, query) = (Asks::new(pipeline, asked.caller), query(asked));
        let inputs = Inputs::new()
            .json("object", member("object"))
            .json("oldObject", member("oldObject"))
            .json("request", request)
            .authorizer(&authorizer, &query);
        let mut budget = Budget::new(MATCH_CONDITIONS_UNITS_MAX);
        let mut evaluation = Evaluation::new(inputs, &mut budget);
        let mut failed = None;
        for (name, program) in &self.0 {
            let held = match program {
                Ok(program) => evaluation.holds(program).map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            match held {
                Ok(true) => {}
                Ok(false) => return Verdict::No,
                Err(error) => {
                    let told = format!("expression {name:?} resulted in error: {error}");
                    failed.get_or_insert(told);
                }
            }
        }
        failed.map_or(Verdict::Holds, Verdict::Failed)
    }
}

/// What `authorizer.requestResource` is about.
fn query(asked: &Attributes<'_>) -> AccessQuery {
    let target = asked.target;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    AccessQuery {
        group: target.resource.group.clone(),
        resource: target.resource.resource.clone(),
        subresource: text(&target.subresource),
        namespace: text(&target.namespace),
        name: text(&target.name),
        ..AccessQuery::default()
    }
}

/// Asks the roles.
struct Asks<'a> {
    pipeline: &'a Pipeline,
    caller: &'a Caller,
}

impl<'a> Asks<'a> {
    fn new(pipeline: &'a Pipeline, caller: &'a Caller) -> Self {
        Asks { pipeline, caller }
    }
}

impl Authorizer for Asks<'_> {
    fn decide(&self, query: &AccessQuery) -> Decision {
        let account = query.service_account.as_ref().map(|(namespace, name)| {
            use objects::identities::{AUTHENTICATED_GROUP, SERVICE_ACCOUNTS_GROUP};
            Caller {
                user: service_account_user(namespace, name),
                groups: vec![
                    SERVICE_ACCOUNTS_GROUP.to_owned(),
                    format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}"),
                    AUTHENTICATED_GROUP.to_owned(),
                ],
                ..Caller::default()
            }
        });
        let request = Request {
            verb: &query.verb,
            group: &query.group,
            resource: &query.resource,
            subresource: &query.subresource,
            namespace: &query.namespace,
            name: &query.name,
            path: query.path.as_deref(),
            ..Request::default()
        };
        let caller = account.as_ref().unwrap_or(self.caller);
        let decision = self.pipeline.access().decide(caller, &request);
        Decision {
            allowed: decision.is_allowed(),
            reason: match decision {
                crate::rbac::Decision::Allowed(why) | crate::rbac::Decision::NotAllowed(why) => why,
                crate::rbac::Decision::Unknown => String::new(),
            },
        }
    }
}
