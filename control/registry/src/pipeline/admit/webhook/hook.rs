//! A webhook as its configuration has it.

use super::conditions::Conditions;
use super::rule::Rule;
use crate::WebhookClient;
use crate::strategy::edit::{self, Members};
use objects::{LabelSelector, Object};
use serde_json::Value;
use std::time::Duration;

/// Whether the objects may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They may, one webhook after the other.
    Mutating,
    /// They may only be refused; all are asked at once.
    Validating,
}

impl Kind {
    /// The plural of its configurations.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Mutating => "mutatingwebhookconfigurations",
            Kind::Validating => "validatingwebhookconfigurations",
        }
    }

    /// The word in annotations.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Mutating => "mutating",
            Kind::Validating => "validating",
        }
    }
}

/// One webhook.
pub struct Hook {
    /// The configuration's name.
    pub configuration: String,
    /// Its own name.
    pub name: String,
    /// Where it is; None when its configuration cannot be read.
    pub client: Option<WebhookClient>,
    /// What it is asked about.
    pub rules: Vec<Rule>,
    /// Whether it is also asked about the same object in another version.
    pub equivalent: bool,
    /// Of which namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Of which objects.
    pub objects: Option<LabelSelector>,
    /// What else must hold.
    pub conditions: Conditions,
    /// Whether a failure to ask it is let pass.
    pub ignores_failure: bool,
    /// Whether it may be asked about what will not be stored.
    pub takes_dry_run: bool,
    /// Whether it is asked again when others changed the object after it.
    pub reinvoked: bool,
    /// How long it may take.
    pub timeout: Duration,
}

impl Hook {
    /// The webhooks of a configuration, in their order.
    pub fn all_of(configuration: &Object) -> Vec<Hook> {
        edit::read_maps(&configuration.body, "webhooks")
            .map(|(_, hook)| Hook::of(&configuration.metadata.name, hook))
            .collect()
    }

    fn of(configuration: &str, hook: &Members) -> Hook {
        let text = |name: &str| edit::read_text(hook, name);
        // A selector that cannot be read was never valid: it selects nothing.
        let selector = |name: &str| match hook.get(name) {
            None | Some(Value::Null) => Some(LabelSelector::default()),
            Some(selector) => LabelSelector::from_value(selector).ok(),
        };
        let seconds = edit::read_number(hook, "timeoutSeconds").unwrap_or(10);
        Hook {
            configuration: configuration.to_owned(),
            name: text("name").to_owned(),
            client: edit::read_map(hook, "clientConfig").and_then(WebhookClient::of),
            rules: edit::read_maps(hook, "rules")
                .map(|(_, rule)| Rule::of(rule))
                .collect(),
            equivalent: text("matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            conditions: Conditions::of(hook),
            ignores_failure: text("failurePolicy") == "Ignore",
            takes_dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(seconds.unsigned_abs().clamp(1, 30)),
        }
    }
}
