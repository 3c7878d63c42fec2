//! One rule of a role: what it allows, and which rules it contains. Semantics: Kubernetes' rbac/v1 `PolicyRule`.

use super::Request;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// What a role allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The verbs; `*` is every one.
    #[serde(deserialize_with = "null_as_empty")]
    pub verbs: Vec<String>,
    /// The groups; `*` is every one.
    #[serde(
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub api_groups: Vec<String>,
    /// The resources, `pods/log` for a subresource; `*` is every one, `*/scale` that subresource of every one.
    #[serde(
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub resources: Vec<String>,
    /// The objects' names; none for all.
    #[serde(
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub resource_names: Vec<String>,
    /// Paths that are no resources; `*` at the end is whatever follows.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Rule {
    /// Whether it allows the request.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        if !has(&self.verbs, request.verb) {
            return false;
        }
        match request.path {
            Some(path) => self.non_resource_urls.iter().any(|url| reaches(url, path)),
            None => {
                has(&self.api_groups, request.group)
                    && self.names_resource(&request.combined(), request.subresource)
                    && self.names_object(request.name)
            }
        }
    }

    fn names_resource(&self, combined: &str, subresource: &str) -> bool {
        self.resources.iter().any(|resource| {
            resource == "*"
                || resource == combined
                || (!subresource.is_empty() && resource.strip_prefix("*/") == Some(subresource))
        })
    }

    fn names_object(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|known| known == name)
    }

    /// Whether it contains a rule of one verb on one thing.
    fn contains(&self, part: &Part<'_>) -> bool {
        if !has(&self.verbs, part.verb) {
            return false;
        }
        match part.thing {
            Thing::Url(url) => self.non_resource_urls.iter().any(|known| {
                // A pattern contains another one when what stands before its star begins the other.
                reaches(known, url)
            }),
            Thing::Resource {
                group,
                resource,
                name,
            } => {
                let subresource = resource.split_once('/').map_or("", |(_, sub)| sub);
                has(&self.api_groups, group)
                    && self.names_resource(resource, subresource)
                    && match name {
                        None => self.resource_names.is_empty(),
                        Some(name) => self.names_object(name),
                    }
            }
        }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let mut things = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                let thing = |name| Thing::Resource {
                    group,
                    resource,
                    name,
                };
                match &self.resource_names[..] {
                    [] => things.push(thing(None)),
                    names => things.extend(names.iter().map(|name| thing(Some(name.as_str())))),
                }
            }
        }
        things.extend(self.non_resource_urls.iter().map(|url| Thing::Url(url)));
        let verbs = self.verbs.iter();
        verbs
            .flat_map(|verb| {
                things.iter().map(|thing| Part {
                    verb,
                    thing: *thing,
                })
            })
            .collect()
    }
}

/// One verb on one thing: the smallest rule.
struct Part<'a> {
    verb: &'a str,
    thing: Thing<'a>,
}

#[derive(Clone, Copy)]
enum Thing<'a> {
    Resource {
        group: &'a str,
        resource: &'a str,
        name: Option<&'a str>,
    },
    Url(&'a str),
}

impl Part<'_> {
    fn to_rule(&self) -> Rule {
        let one = |text: &str| vec![text.to_owned()];
        match self.thing {
            Thing::Url(url) => Rule {
                verbs: one(self.verb),
                non_resource_urls: one(url),
                ..Rule::default()
            },
            Thing::Resource {
                group,
                resource,
                name,
            } => Rule {
                verbs: one(self.verb),
                api_groups: one(group),
                resources: one(resource),
                resource_names: name.map(one).unwrap_or_default(),
                ..Rule::default()
            },
        }
    }
}

/// Whether `owned` contain all of `wanted`; otherwise what is missing, each verb on each thing by itself, joined by verb.
pub fn covers(owned: &[Rule], wanted: &[Rule]) -> Result<(), Vec<Rule>> {
    let mut missing: Vec<Rule> = Vec::new();
    for rule in wanted {
        for part in rule.parts() {
            if owned.iter().any(|owned| owned.contains(&part)) {
                continue;
            }
            let lacking = part.to_rule();
            let same_thing = |known: &&mut Rule| {
                known.api_groups == lacking.api_groups
                    && known.resources == lacking.resources
                    && known.resource_names == lacking.resource_names
                    && known.non_resource_urls == lacking.non_resource_urls
            };
            match missing.iter_mut().find(same_thing) {
                Some(known) if known.verbs.contains(&lacking.verbs[0]) => {}
                Some(known) => known.verbs.extend(lacking.verbs),
                None => missing.push(lacking),
            }
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing)
    }
}

/// As Kubernetes shows a rule in a refusal.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, texts)| !texts.is_empty())
            .map(|(name, texts)| {
                let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
                format!("{name}:[{}]", texts.join(", "))
            })
            .collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|known| known == "*" || known == word)
}

fn reaches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rule {
            verbs: owned(verbs),
            api_groups: owned(groups),
            resources: owned(resources),
            resource_names: owned(names),
            non_resource_urls: Vec::new(),
        }
    }

    fn request<'a>(verb: &'a str, resource: &'a str, sub: &'a str, name: &'a str) -> Request<'a> {
        Request {
            verb,
            resource,
            subresource: sub,
            name,
            ..Request::default()
        }
    }

    #[test]
    fn a_resource_is_not_its_subresource() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&request("get", "pods", "", "a")));
        assert!(!pods.allows(&request("get", "pods", "log", "a")));
        assert!(!pods.allows(&request("list", "pods", "", "")));
        let scale = rule(&["*"], &["*"], &["*/scale"], &[]);
        assert!(scale.allows(&request("update", "things", "scale", "a")));
        assert!(!scale.allows(&request("update", "things", "", "a")));
        let all = rule(&["*"], &["*"], &["*"], &[]);
        assert!(all.allows(&request("get", "pods", "log", "a")));
    }

    #[test]
    fn names_bound_a_rule() {
        let one = rule(&["get", "list"], &[""], &["secrets"], &["a"]);
        assert!(one.allows(&request("get", "secrets", "", "a")));
        assert!(!one.allows(&request("get", "secrets", "", "b")));
        assert!(!one.allows(&request("list", "secrets", "", "")));
    }

    #[test]
    fn paths_match_exactly_or_by_what_stands_before_the_star() {
        let rule = Rule {
            verbs: vec!["get".to_owned()],
            non_resource_urls: vec!["/healthz".to_owned(), "/api/*".to_owned()],
            ..Rule::default()
        };
        for (path, allowed) in [
            ("/healthz", true),
            ("/healthz/x", false),
            ("/api/v1", true),
            ("/api", false),
        ] {
            assert_eq!(rule.allows(&Request::path("get", path)), allowed, "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_told_by_thing() {
        let owned = [rule(&["get"], &[""], &["pods"], &[])];
        let wanted = [rule(&["get", "list", "watch"], &[""], &["pods"], &[])];
        let missing = covers(&owned, &wanted).expect_err("list and watch are missing");
        let shown: Vec<String> = missing.iter().map(Rule::to_string).collect();
        assert_eq!(
            shown,
            [r#"{APIGroups:[""], Resources:["pods"], Verbs:["list", "watch"]}"#]
        );
        // Some names are not all of them; all of them are some names.
        let some = [rule(&["get"], &[""], &["pods"], &["a"])];
        assert!(covers(&some, &owned).is_err());
        assert!(covers(&owned, &some).is_ok());
    }

    fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(proptest::sample::select(of).prop_map(str::to_owned), 1..3)
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let names = proptest::collection::vec(
            proptest::sample::select(&["x", "y"][..]).prop_map(str::to_owned),
            0..2,
        );
        (
            words(&["get", "list", "*"]),
            words(&["", "apps", "*"]),
            words(&["pods", "pods/log", "*/log", "*"]),
            names,
        )
            .prop_map(|(verbs, api_groups, resources, resource_names)| Rule {
                verbs,
                api_groups,
                resources,
                resource_names,
                non_resource_urls: Vec::new(),
            })
    }

    proptest! {
        /// Nobody gains by a grant: with what is told to be missing, all is covered, and what covers a rule allows all of it.
        #[test]
        fn what_covers_allows_no_less(
            owned in proptest::collection::vec(any_rule(), 0..4),
            wanted in any_rule(),
        ) {
            let mut owned = owned;
            if let Err(missing) = covers(&owned, std::slice::from_ref(&wanted)) {
                owned.extend(missing);
            }
            prop_assert!(covers(&owned, std::slice::from_ref(&wanted)).is_ok());
            for verb in ["get", "list", "watch"] {
                for group in ["", "apps", "batch"] {
                    for (resource, subresource) in [("pods", ""), ("pods", "log"), ("jobs", "log")] {
                        for name in ["", "x", "y", "z"] {
                            let asked = Request { verb, group, resource, subresource, name, ..Request::default() };
                            prop_assert!(!wanted.allows(&asked) || owned.iter().any(|rule| rule.allows(&asked)));
                        }
                    }
                }
            }
        }
    }
}
