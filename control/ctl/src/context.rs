//! What every command starts from: a client, the namespace, and what the server serves.

use crate::cli::Cli;
use crate::resources::{Resource, Resources};
use anyhow::{Result, bail};
use client::{Client, Config};
use serde_json::Value;
use tokio::sync::OnceCell;

/// A command's surroundings.
pub struct Context {
    /// The client.
    pub client: Client,
    /// The namespace of what names none.
    pub namespace: String,
    is_namespace_given: bool,
    resources: OnceCell<Resources>,
}

/// An object that was asked for by name.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Named {
    /// Its path.
    pub fn path(&self) -> String {
        self.resource.object(&self.namespace, &self.name)
    }

    /// `deployment.apps/web`.
    pub fn display(&self) -> String {
        self.resource.named(&self.name)
    }
}

/// What was asked for: whole collections, or objects by name.
pub enum Asked {
    /// All of these resources.
    Collections(Vec<Resource>),
    /// These objects.
    Objects(Vec<Named>),
}

impl Context {
    /// From the global flags.
    pub fn new(cli: &Cli) -> Result<Self> {
        let config = Config::load(cli.kubeconfig.as_deref(), cli.context.as_deref())
            .map_err(client::Error::from)?;
        let namespace = cli
            .namespace
            .clone()
            .unwrap_or_else(|| config.namespace.clone());
        Ok(Context {
            client: Client::new(&config)?,
            namespace,
            is_namespace_given: cli.namespace.is_some(),
            resources: OnceCell::new(),
        })
    }

    /// The namespace, if it was named on the command line.
    pub fn given_namespace(&self) -> Option<&str> {
        self.is_namespace_given.then_some(self.namespace.as_str())
    }

    /// What the server serves; asked once.
    pub async fn resources(&self) -> Result<&Resources> {
        self.resources
            .get_or_try_init(|| Resources::discover(&self.client))
            .await
    }

    /// Reads `TYPE`, `TYPE,TYPE`, `TYPE NAME...` or `TYPE/NAME...`.
    pub async fn asked(&self, words: &[String]) -> Result<Asked> {
        let resources = self.resources().await?;
        if words.iter().any(|word| word.contains('/')) {
            let named = words.iter().map(|word| match word.split_once('/') {
                Some((kind, name)) if !name.is_empty() => self.named(resources.one(kind)?, name),
                _ => bail!(
                    "{word:?} names no object: with TYPE/NAME, every word must be of that form"
                ),
            });
            return Ok(Asked::Objects(named.collect::<Result<_>>()?));
        }
        match words {
            [] => bail!("name a type, as in: ctl get pods"),
            [types] => Ok(Asked::Collections(
                resources.resolve(types)?.into_iter().cloned().collect(),
            )),
            [kind, names @ ..] => {
                let resource = resources.one(kind)?;
                let named = names.iter().map(|name| self.named(resource, name));
                Ok(Asked::Objects(named.collect::<Result<_>>()?))
            }
        }
    }

    /// Reads words that must name objects.
    pub async fn named_objects(&self, words: &[String]) -> Result<Vec<Named>> {
        match self.asked(words).await? {
            Asked::Objects(objects) => Ok(objects),
            Asked::Collections(_) => bail!("name an object, as in {}/NAME", words.join(" ")),
        }
    }

    /// A pod by its name, or one of the running pods of `TYPE/NAME`.
    pub async fn pod(&self, target: &str) -> Result<Value> {
        let pods = self.resources().await?.one("pods")?.clone();
        let Some((kind, name)) = target.split_once('/') else {
            return Ok(self
                .client
                .get(&pods.object(&self.namespace, target))
                .await?);
        };
        let resource = self.resources().await?.one(kind)?;
        if resource.plural == "pods" {
            return Ok(self.client.get(&pods.object(&self.namespace, name)).await?);
        }
        let owner: Value = self
            .client
            .get(&resource.object(&self.namespace, name))
            .await?;
        let Some(selector) = crate::selector::of_object(&owner) else {
            bail!("{target} selects no pods")
        };
        let path = format!(
            "{}?labelSelector={}",
            pods.collection(Some(&self.namespace)),
            client::encode_segment(&selector)
        );
        let mut found: Value = self.client.get(&path).await?;
        let items = found["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        let running = |pod: &Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        match items.iter().position(running) {
            Some(index) => Ok(items[index].clone()),
            None => bail!("none of the {} pods of {target} runs", items.len()),
        }
    }

    fn named(&self, resource: &Resource, name: &str) -> Result<Named> {
        Ok(Named {
            resource: resource.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        })
    }
}
