//! A pod as the checks read it, and the words in which they tell what they found.

use crate::strategy::edit::{Members, read_map, read_maps, read_text};
use serde_json::Value;
use std::collections::BTreeMap;

/// A pod, or the template of pods.
pub struct PodView<'a> {
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its spec.
    pub spec: &'a Members,
}

/// What a check has against a pod: the reason and the detail, as Kubernetes words them.
pub struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    /// A violation.
    pub fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Violation {
            reason: reason.into(),
            detail: detail.into(),
        }
    }

    /// `privileged (container "a" must not set …)`.
    pub fn told(&self) -> String {
        format!("{} ({})", self.reason, self.detail)
    }

    /// The reason alone.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl<'a> PodView<'a> {
    /// All containers, in the order in which Kubernetes names them.
    pub fn containers(&self) -> impl Iterator<Item = &'a Members> {
        let spec = self.spec;
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists
            .into_iter()
            .flat_map(move |list| read_maps(spec, list).map(|(_, container)| container))
    }

    /// The names of the containers for which `holds`.
    pub fn names(&self, holds: impl Fn(&'a Members) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| holds(container))
            .map(|container| read_text(container, "name"))
            .collect()
    }

    /// The pod's own security context.
    pub fn context(&self) -> Option<&'a Members> {
        read_map(self.spec, "securityContext")
    }

    /// Whether it is for Windows, which knows neither privileges nor seccomp.
    pub fn is_windows(&self) -> bool {
        read_map(self.spec, "os").is_some_and(|os| read_text(os, "name") == "windows")
    }

    /// The pod and the containers whose security context is `bad`, as one subject: `pod and container "a"`.
    pub fn setters(&self, mut bad: impl FnMut(&'a Members) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if self.context().is_some_and(&mut bad) {
            setters.push("pod".to_owned());
        }
        let mut names = Vec::new();
        for container in self.containers() {
            if context_of(container).is_some_and(&mut bad) {
                names.push(read_text(container, "name"));
            }
        }
        if !names.is_empty() {
            setters.push(containers(&names));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }
}

/// A container's security context.
pub fn context_of(container: &Members) -> Option<&Members> {
    read_map(container, "securityContext")
}

/// The text at a path below a map.
pub fn text_at<'a>(members: &'a Members, path: [&str; 2]) -> Option<&'a str> {
    read_map(members, path[0])?.get(path[1])?.as_str()
}

/// The flag at a name; None when it is not set.
pub fn flag(members: &Members, name: &str) -> Option<bool> {
    members.get(name).and_then(Value::as_bool)
}

/// `container "a"`, `containers "a", "b"`.
pub fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// The word, with an s for several.
pub fn plural(word: &str, count: usize) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}

/// `"a", "b"`.
pub fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// Sorted and without what comes twice.
pub fn unique(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names.dedup();
    names
}
