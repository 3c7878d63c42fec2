//! What the server serves, from its aggregated discovery, and the names under which people ask for it.

use anyhow::{Result, bail};
use client::{Client, encode_segment};
use serde_json::Value;

const ACCEPT: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural.
    pub plural: String,
    /// The singular.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Whether it lies in namespaces.
    pub namespaced: bool,
    /// Whether its objects can be listed; reviews and bindings can only be created.
    pub listable: bool,
}

impl Resource {
    /// `deployments.apps`, as errors and `-o name` write it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `deployment.apps/web`.
    pub fn named(&self, name: &str) -> String {
        match self.group.as_str() {
            "" => format!("{}/{name}", self.singular),
            group => format!("{}.{group}/{name}", self.singular),
        }
    }

    /// The path of the collection.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!(
                "{root}/namespaces/{}/{}",
                encode_segment(namespace),
                self.plural
            ),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!(
            "{}/{}",
            self.collection(Some(namespace)),
            encode_segment(name)
        )
    }

    fn answers_to(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let (name, group) = word.split_once('.').unwrap_or((&word, ""));
        let group_fits = group.is_empty()
            || self.group == group
            || format!("{}.{}", self.version, self.group) == group;
        let name_fits = self.plural == name
            || self.singular == name
            || self.short_names.iter().any(|short| short == name);
        (name_fits || self.kind.to_lowercase() == name) && group_fits
    }
}

/// All resources of a server.
pub struct Resources(Vec<Resource>);

impl Resources {
    /// Asks the server.
    pub async fn discover(client: &Client) -> Result<Self> {
        let mut all = Vec::new();
        for path in ["/api", "/apis"] {
            let document: Value = client.get_accepting(path, ACCEPT).await?;
            for group in list(&document["items"]) {
                // The first version of a group is the one to prefer.
                if let Some(version) = list(&group["versions"]).first() {
                    all.extend(
                        list(&version["resources"])
                            .iter()
                            .map(|resource| parse(group, version, resource)),
                    );
                }
            }
        }
        Ok(Resources(all))
    }

    /// Those whose objects can be listed.
    pub fn listable(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter().filter(|resource| resource.listable)
    }

    /// The resources of a word: a name in any form, several joined by commas, or a category such as `all`.
    pub fn resolve(&self, words: &str) -> Result<Vec<&Resource>> {
        let mut found = Vec::new();
        for word in words.split(',') {
            let of_category = self
                .0
                .iter()
                .filter(|resource| resource.categories.iter().any(|category| category == word));
            let before = found.len();
            found.extend(of_category);
            if found.len() == before {
                found.push(self.one(word)?);
            }
        }
        Ok(found)
    }

    /// The resource of a word that names just one.
    pub fn one(&self, word: &str) -> Result<&Resource> {
        match self.0.iter().find(|resource| resource.answers_to(word)) {
            Some(resource) => Ok(resource),
            None => bail!(
                "the server doesn't have a resource type {word:?}; it has {}",
                self.names()
            ),
        }
    }

    /// The resource of an object.
    pub fn of_object(&self, object: &Value) -> Result<&Resource> {
        let api_version = object["apiVersion"].as_str().unwrap_or("");
        let kind = object["kind"].as_str().unwrap_or("");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.0.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.kind == kind
        });
        match found {
            Some(resource) => Ok(resource),
            None => bail!(
                "no matches for kind {kind:?} in version {api_version:?}: check both, or install its definition first"
            ),
        }
    }

    fn names(&self) -> String {
        self.0
            .iter()
            .map(Resource::qualified)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn parse(group: &Value, version: &Value, resource: &Value) -> Resource {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let texts = |value: &Value| list(value).iter().map(text).collect();
    let plural = text(&resource["resource"]);
    let singular = text(&resource["singularResource"]);
    Resource {
        group: text(&group["metadata"]["name"]),
        version: text(&version["version"]),
        singular: if singular.is_empty() {
            plural.clone()
        } else {
            singular
        },
        plural,
        kind: text(&resource["responseKind"]["kind"]),
        short_names: texts(&resource["shortNames"]),
        categories: texts(&resource["categories"]),
        namespaced: resource["scope"] == "Namespaced",
        listable: list(&resource["verbs"]).iter().any(|verb| verb == "list"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_resource_finds_it() {
        let deployments = Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            singular: "deployment".into(),
            kind: "Deployment".into(),
            short_names: vec!["deploy".into()],
            categories: vec!["all".into()],
            namespaced: true,
            listable: true,
        };
        let resources = Resources(vec![deployments.clone()]);
        for word in [
            "deployments",
            "deployment",
            "deploy",
            "Deployment",
            "deployments.apps",
            "deployments.v1.apps",
            "all",
        ] {
            assert_eq!(resources.resolve(word).expect(word), [&deployments]);
        }
        assert!(resources.resolve("deployments.batch").is_err());
        assert_eq!(
            deployments.object("default", "web"),
            "/apis/apps/v1/namespaces/default/deployments/web"
        );
        assert_eq!(deployments.named("web"), "deployment.apps/web");
    }
}
