//! What an evaluation is given: variables as JSON with their shapes, expressions that are evaluated when asked for, and whom to ask
//! who may do what.

use crate::access::{AccessQuery, Authorizer};
use crate::shape::{ANY, Shape};
use crate::{Program, value::Val};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The variables of an evaluation; borrowed, so that nothing is copied.
#[derive(Clone, Default)]
pub struct Inputs<'a> {
    variables: BTreeMap<&'a str, Input<'a>>,
    pub(crate) composed: &'a [(String, Program)],
    pub(crate) access: Option<Access<'a>>,
}

#[derive(Clone, Copy)]
enum Input<'a> {
    Json(&'a Json, &'a Shape),
    Optional(Option<(&'a Json, &'a Shape)>),
}

/// Whom to ask, and for what `authorizer.requestResource` asks.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub authorizer: &'a dyn Authorizer,
    pub request: &'a AccessQuery,
}

impl<'a> Inputs<'a> {
    /// None yet.
    pub fn new() -> Self {
        Inputs::default()
    }

    /// A variable of which nothing is known but its JSON.
    #[must_use]
    pub fn json(self, name: &'a str, value: &'a Json) -> Self {
        self.typed(name, value, &ANY)
    }

    /// A variable of a type.
    #[must_use]
    pub fn typed(mut self, name: &'a str, value: &'a Json, shape: &'a Shape) -> Self {
        self.variables.insert(name, Input::Json(value, shape));
        self
    }

    /// A variable that may have no value.
    #[must_use]
    pub fn optional(mut self, name: &'a str, value: Option<(&'a Json, &'a Shape)>) -> Self {
        self.variables.insert(name, Input::Optional(value));
        self
    }

    /// What `variables.NAME` stands for; each is evaluated when it is first asked for, and may ask for those before it.
    #[must_use]
    pub fn composed(mut self, programs: &'a [(String, Program)]) -> Self {
        self.composed = programs;
        self
    }

    /// Whom `authorizer` asks; `request` is what `authorizer.requestResource` is about.
    #[must_use]
    pub fn authorizer(mut self, authorizer: &'a dyn Authorizer, request: &'a AccessQuery) -> Self {
        self.access = Some(Access {
            authorizer,
            request,
        });
        self
    }

    pub(crate) fn find(&self, name: &str) -> Option<Val<'a>> {
        let value = match self.variables.get(name)? {
            Input::Json(json, shape) => Val::of_json(json, shape),
            Input::Optional(None) => Val::none(),
            Input::Optional(Some((json, shape))) => Val::some(Val::of_json(json, shape)),
        };
        Some(value)
    }
}
