//! Which flow a request belongs to. Semantics: Kubernetes' flowcontrol/v1 `FlowSchema`: the lowest precedence that fits wins,
//! among equals the first name.

use crate::Caller;
use crate::rbac::Request;
use objects::Object;
use objects::identities::service_account_of;
use serde::Deserialize;
use serde_json::Value;

/// A flow schema, ready to be asked.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that is not stored.
    pub uid: String,
    /// Its rank: the lowest is asked first.
    pub precedence: i64,
    /// The name of its priority level.
    pub level: String,
    distinguisher: Option<Distinguisher>,
    rules: Vec<PolicyRules>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
enum Distinguisher {
    ByUser,
    ByNamespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    matching_precedence: i64,
    priority_level_configuration: Named,
    distinguisher_method: Option<Distinguisher>,
    rules: Option<Vec<PolicyRules>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PolicyRules {
    subjects: Vec<Subject>,
    resource_rules: Option<Vec<ResourceRule>>,
    non_resource_rules: Option<Vec<PathRule>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

impl Schema {
    /// Reads a stored one; None for one that cannot be read, which then fits nothing.
    pub fn read(object: &Object) -> Option<Schema> {
        let spec = object.body.get("spec").cloned().unwrap_or(Value::Null);
        let spec: Spec = serde_json::from_value(spec).ok()?;
        Some(Schema {
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.to_string(),
            precedence: spec.matching_precedence,
            level: spec.priority_level_configuration.name,
            distinguisher: spec.distinguisher_method,
            rules: spec.rules.unwrap_or_default(),
        })
    }

    /// Whether the request is one of its.
    pub fn fits(&self, caller: &Caller, request: &Request<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(caller)) && rule.covers(request)
        })
    }

    /// What tells its flows apart.
    pub fn distinguisher<'a>(&self, caller: &'a Caller, request: &Request<'a>) -> &'a str {
        match self.distinguisher {
            Some(Distinguisher::ByUser) => &caller.user,
            Some(Distinguisher::ByNamespace) => request.namespace,
            None => "",
        }
    }
}

impl Subject {
    fn is(&self, caller: &Caller) -> bool {
        let fits = |wanted: &str, name: &str| wanted == "*" || wanted == name;
        match self.kind.as_str() {
            "User" => fits(&self.user.name, &caller.user),
            "Group" => self.group.name == "*" || caller.groups.contains(&self.group.name),
            "ServiceAccount" => {
                service_account_of(&caller.user).is_some_and(|(namespace, name)| {
                    let account = &self.service_account;
                    account.namespace == namespace && fits(&account.name, name)
                })
            }
            _ => false,
        }
    }
}

impl PolicyRules {
    fn covers(&self, request: &Request<'_>) -> bool {
        match request.path {
            Some(path) => {
                let mut rules = self.non_resource_rules.iter().flatten();
                rules.any(|rule| rule.covers(request.verb, path))
            }
            None => {
                let mut rules = self.resource_rules.iter().flatten();
                rules.any(|rule| rule.covers(request))
            }
        }
    }
}

impl ResourceRule {
    fn covers(&self, request: &Request<'_>) -> bool {
        let in_scope = match request.namespace {
            "" => self.cluster_scope,
            namespace => self.namespaces.iter().any(|list| has(list, namespace)),
        };
        in_scope
            && has(&self.verbs, request.verb)
            && has(&self.api_groups, request.group)
            && has(&self.resources, &request.combined())
    }
}

impl PathRule {
    fn covers(&self, verb: &str, path: &str) -> bool {
        has(&self.verbs, verb)
            && self.non_resource_urls.iter().any(|url| {
                let below = url.strip_suffix('*');
                url == path || below.is_some_and(|prefix| path.starts_with(prefix))
            })
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|it| it == "*" || it == word)
}
