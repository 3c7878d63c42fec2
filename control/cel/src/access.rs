//! `authorizer`: an expression may ask whether somebody may do something. Each method adds a word to the question; `check` asks it.

use crate::Error;
use crate::inputs::Access;
use crate::value::Val;
use std::rc::Rc;

/// What is asked: as Kubernetes' `SubjectAccessReview` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessQuery {
    /// A service account's namespace and name, in whose place is asked; None for who made the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; the fields below are then empty.
    pub path: Option<String>,
    /// The group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace; empty for all.
    pub namespace: String,
    /// The object's name; empty for all.
    pub name: String,
    /// The verb.
    pub verb: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, if anybody said.
    pub reason: String,
}

/// Who decides.
pub trait Authorizer {
    /// Whether the request's user, or the service account that is named, may do it.
    fn decide(&self, query: &AccessQuery) -> Decision;
}

/// A value that an expression gets on the way to a decision.
#[derive(Clone)]
pub enum Step {
    /// `authorizer`, perhaps with a service account.
    Start(AccessQuery),
    /// `authorizer.path(..)`.
    Path(AccessQuery),
    /// `authorizer.group(..)`.
    Group(AccessQuery),
    /// `authorizer.group(..).resource(..)` and what narrows it.
    Resource(AccessQuery),
    /// What `check` answers.
    Decided(Decision),
}

impl Step {
    /// The value of `authorizer.requestResource`.
    pub fn request_resource(access: Access<'_>) -> Step {
        Step::Resource(access.request.clone())
    }

    /// Calls a method; None when there is no such one on this step.
    pub fn call(
        &self,
        method: &str,
        args: &[Val<'_>],
        access: Option<Access<'_>>,
    ) -> Option<Result<Val<'static>, Error>> {
        let words: Option<Vec<&str>> = args.iter().map(Val::text).collect();
        let words = words?;
        let next = match (self, method, words.as_slice()) {
            (Step::Start(query), "serviceAccount", [namespace, name]) => {
                let mut query = query.clone();
                query.service_account = Some(((*namespace).into(), (*name).into()));
                Step::Start(query)
            }
            (Step::Start(query), "path", [path]) => {
                let mut query = query.clone();
                query.path = Some((*path).into());
                Step::Path(query)
            }
            (Step::Start(query), "group", [group]) => {
                let mut query = query.clone();
                query.group = (*group).into();
                Step::Group(query)
            }
            (Step::Group(query), "resource", [resource]) => {
                let mut query = query.clone();
                query.resource = (*resource).into();
                Step::Resource(query)
            }
            (Step::Resource(query), "subresource" | "namespace" | "name", [word]) => {
                let mut query = query.clone();
                let field = match method {
                    "subresource" => &mut query.subresource,
                    "namespace" => &mut query.namespace,
                    _ => &mut query.name,
                };
                *field = (*word).into();
                Step::Resource(query)
            }
            (Step::Path(query) | Step::Resource(query), "check", [verb]) => {
                let mut query = query.clone();
                query.verb = (*verb).into();
                let Some(access) = access else {
                    return Some(Err(Error::Other(
                        "authorizer: nobody can be asked here".into(),
                    )));
                };
                Step::Decided(access.authorizer.decide(&query))
            }
            (Step::Decided(decision), _, []) => return decided(decision, method).map(Ok),
            _ => return None,
        };
        Some(Ok(Val::Access(Rc::new(next))))
    }
}

fn decided(decision: &Decision, method: &str) -> Option<Val<'static>> {
    Some(match method {
        "allowed" => Val::bool(decision.allowed),
        // Nobody is ever denied for good: what is not allowed by one may be by another.
        "denied" | "errored" => Val::bool(false),
        "reason" => Val::string(decision.reason.clone()),
        "error" => Val::string(String::new()),
        _ => return None,
    })
}
