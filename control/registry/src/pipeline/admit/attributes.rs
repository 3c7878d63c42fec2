//! What a request wants, as the rules of admission see it, and what they leave beside the object: warnings and annotations.

use crate::{Caller, DeleteOptions, Target, WriteOptions};
use objects::{Object, Status};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It comes into being.
    Create,
    /// It changes.
    Update,
    /// It goes, or begins to.
    Delete,
    /// Something is opened to it: an exec, a tunnel, a proxy.
    Connect,
}

impl Operation {
    /// The word in webhooks' rules and reviews.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// With which options it was asked.
#[derive(Clone, Copy)]
pub enum Options<'a> {
    /// Of a create or an update.
    Write(&'a WriteOptions),
    /// Of a delete.
    Delete(&'a DeleteOptions),
}

/// A request on its way to the store.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub target: &'a Target,
    /// To do what.
    pub operation: Operation,
    /// The object as it is; None when it is new.
    pub old: Option<&'a Object>,
    /// How.
    pub options: Options<'a>,
}

impl Attributes<'_> {
    /// Whether it is about the resource itself, not a subresource, and of this group and plural.
    pub fn is_of(&self, group: &str, resource: &str) -> bool {
        let row = &self.target.resource;
        self.target.subresource_name().is_empty() && row.group == group && row.resource == resource
    }

    /// Whether one of these comes into being.
    pub fn creates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Create && self.is_of(group, resource)
    }

    /// Whether nothing will be stored.
    pub fn is_dry_run(&self) -> bool {
        match self.options {
            Options::Write(options) => options.dry_run,
            Options::Delete(options) => options.dry_run,
        }
    }

    /// Where warnings and annotations go.
    pub fn remarks(&self) -> &Remarks {
        match self.options {
            Options::Write(options) => &options.remarks,
            Options::Delete(options) => &options.remarks,
        }
    }

    /// The refusal of an object of this name.
    pub fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(&self.target.group_resource(), name, why)
    }
}

/// What was said about a request beside its answer. Clones share what they hold.
#[derive(Clone, Default)]
pub struct Remarks(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Remarks {
    /// Warns the client, once, however often a write is tried.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.warnings.contains(&warning) {
            said.warnings.push(warning);
        }
    }

    /// Notes something for the audit log.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.annotations.insert(key.into(), value.into());
    }

    /// The warnings, in the order in which they came.
    pub fn warnings(&self) -> Vec<String> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.warnings.clone()
    }

    /// The notes for the audit log.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.annotations.clone()
    }
}

impl fmt::Debug for Remarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remarks").field(&self.warnings()).finish()
    }
}
