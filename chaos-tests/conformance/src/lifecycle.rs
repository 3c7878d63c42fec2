//! What every resource of the API can be asked, in one story: found, made, read, listed, watched, changed in every way, deleted
//! alone and by collection.

use crate::context::{Asked, Context, SOON, ensure, items, name, root, shown, version};
use client::WatchKind;
use serde_json::{Value, json};

const LABEL: &str = "e2e-conformance";

/// A resource and what to do with it.
pub struct Story {
    /// `apps/v1`
    pub group_version: &'static str,
    /// `deployments`
    pub plural: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// An object, but for kind, version and name.
    pub object: Value,
    /// A merge patch of the status subresource, where there is one.
    pub status: Option<Value>,
    /// Whether its objects can be deleted together without touching those of others: they have a label.
    pub collection: bool,
}

impl Story {
    /// A resource in namespaces.
    pub fn of(
        group_version: &'static str,
        plural: &'static str,
        kind: &'static str,
        object: Value,
    ) -> Story {
        Story {
            group_version,
            plural,
            kind,
            namespaced: true,
            object,
            status: None,
            collection: true,
        }
    }

    /// Its objects lie in no namespace.
    pub fn cluster_wide(self) -> Story {
        Story {
            namespaced: false,
            ..self
        }
    }

    /// With this change of the status.
    pub fn with_status(self, status: Value) -> Story {
        Story {
            status: Some(json!({"status": status})),
            ..self
        }
    }

    /// Kubernetes deletes no collections of it.
    pub fn one_by_one(self) -> Story {
        Story {
            collection: false,
            ..self
        }
    }

    /// Plays it.
    pub async fn play(&self, context: &Context) -> Asked<()> {
        self.is_discovered(context).await?;
        let collection = match self.namespaced {
            true => context.of(self.group_version, self.plural).await?,
            false => format!("{}/{}", root(self.group_version), self.plural),
        };
        let label = context.unique("l");
        let selected = format!("{collection}?labelSelector={LABEL}%3D{label}");
        let empty = context.get(&selected).await?;
        ensure!(
            items(&empty).is_empty(),
            "a new label selects {}",
            shown(&empty)
        );
        let mut events = context
            .watch(&format!("{selected}&resourceVersion={}", version(&empty)))
            .await?;

        let (first, path) = self.make(context, &collection, &label).await?;
        let own = name(&first).to_owned();
        events.wait(WatchKind::Added, &own).await?;
        self.is_read(context, &collection, &path, &first, &label)
            .await?;
        self.changes(context, &path).await?;
        loop {
            let seen = events.wait(WatchKind::Modified, &own).await?;
            if seen["metadata"]["annotations"]["updated"] == "true" {
                break;
            }
        }
        if let Some(status) = &self.status {
            self.changes_status(context, &path, status).await?;
        }
        context.delete(&path).await?;
        events.wait(WatchKind::Deleted, &own).await?;
        context.wait_gone(&path).await?;
        if self.collection {
            self.deletes_together(context, &collection, &selected, &label)
                .await?;
        }
        Ok(())
    }

    async fn is_discovered(&self, context: &Context) -> Asked<()> {
        context.need(self.group_version, self.plural).await?;
        let list = context.get(&root(self.group_version)).await?;
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.iter().find(|it| it["name"] == self.plural);
        ensure!(
            found.is_some_and(|it| it["kind"] == self.kind && it["namespaced"] == self.namespaced),
            "discovery tells of {}: {:?}",
            self.plural,
            found
        );
        Ok(())
    }

    /// An object of the collection; the text NAMESPACE in it becomes the namespace, OWN-GROUP what follows the first dot of its name.
    fn named(&self, collection: &str, name: &str, label: &str) -> Value {
        let mut parts = collection
            .split('/')
            .skip_while(|part| *part != "namespaces");
        let namespace = parts.nth(1).unwrap_or_default();
        let group = name.split_once('.').map_or("", |(_, group)| group);
        let text = self.object.to_string();
        let text = text.replace("NAMESPACE", namespace);
        let text = text.replace("OWN-GROUP", group);
        let mut object: Value = serde_json::from_str(&text).unwrap_or_default();
        object["apiVersion"] = json!(self.group_version);
        object["kind"] = json!(self.kind);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"][LABEL] = json!(label);
        object
    }

    async fn make(
        &self,
        context: &Context,
        collection: &str,
        label: &str,
    ) -> Asked<(Value, String)> {
        let wanted = context.unique("made");
        let wanted = match self.object["metadata"]["name"].as_str() {
            Some(form) => form.replace("NAME", &wanted),
            None => wanted,
        };
        let made = context
            .create(collection, &self.named(collection, &wanted, label))
            .await?;
        let path = format!("{collection}/{wanted}");
        if !self.namespaced {
            context.clean_up(path.clone());
        }
        let metadata = &made["metadata"];
        ensure!(
            name(&made) == wanted
                && metadata["uid"].is_string()
                && metadata["creationTimestamp"].is_string(),
            "what was made has name, uid and time: {}",
            shown(&made)
        );
        Ok((made, path))
    }

    async fn is_read(
        &self,
        context: &Context,
        collection: &str,
        path: &str,
        made: &Value,
        label: &str,
    ) -> Asked<()> {
        let read = context.get(path).await?;
        ensure!(
            read["metadata"]["uid"] == made["metadata"]["uid"] && read["kind"] == self.kind,
            "another object was read: {}",
            shown(&read)
        );
        let everywhere = format!("{}/{}", root(self.group_version), self.plural);
        for place in [collection, &everywhere] {
            let list = context
                .get(&format!("{place}?labelSelector={LABEL}%3D{label}"))
                .await?;
            ensure!(
                items(&list).len() == 1 && list["kind"] == format!("{}List", self.kind),
                "one is wanted in the list {place}: {}",
                shown(&list)
            );
        }
        Ok(())
    }

    /// By merge patch and by update.
    async fn changes(&self, context: &Context, path: &str) -> Asked<()> {
        let patched = context
            .merge(
                path,
                &json!({"metadata": {"annotations": {"patched": "true"}}}),
            )
            .await?;
        ensure!(
            patched["metadata"]["annotations"]["patched"] == "true",
            "the patch is missing in {}",
            shown(&patched)
        );
        let question = async || {
            let mut object = context.get(path).await?;
            object["metadata"]["annotations"]["updated"] = json!("true");
            match context.client().put::<Value>(path, &object).await {
                Ok(updated) => Ok(Some(updated)),
                // A controller was quicker.
                Err(error) if error.is_code(409) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let updated = context.until("an update", SOON, question).await?;
        ensure!(
            updated["metadata"]["annotations"]["updated"] == "true"
                && updated["metadata"]["annotations"]["patched"] == "true",
            "the update is missing in {}",
            shown(&updated)
        );
        Ok(())
    }

    async fn changes_status(&self, context: &Context, path: &str, status: &Value) -> Asked<()> {
        let below = format!("{path}/status");
        let read = context.get(&below).await?;
        ensure!(
            read["kind"] == self.kind,
            "the status subresource is of the kind {}: {}",
            self.kind,
            shown(&read)
        );
        let patched = context.merge(&below, status).await?;
        ensure!(
            holds(&patched, status),
            "the status {} is missing in {}",
            shown(status),
            shown(&patched)
        );
        Ok(())
    }

    async fn deletes_together(
        &self,
        context: &Context,
        collection: &str,
        selected: &str,
        label: &str,
    ) -> Asked<()> {
        for _ in 0..3 {
            self.make(context, collection, label).await?;
        }
        let list = context.get(selected).await?;
        ensure!(
            items(&list).len() == 3,
            "three are wanted: {}",
            shown(&list)
        );
        context.delete(selected).await?;
        let question = async || {
            let list = context.get(selected).await?;
            Ok(items(&list).is_empty().then_some(()))
        };
        context
            .until("the end of a collection", SOON, question)
            .await
    }
}

/// Whether an object holds all of a part: every member of its objects, its other values as they are.
pub fn holds(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(part) => part
            .iter()
            .all(|(name, part)| whole.get(name).is_some_and(|whole| holds(whole, part))),
        Value::Array(part) => whole.as_array().is_some_and(|whole| {
            whole.len() == part.len()
                && whole
                    .iter()
                    .zip(part)
                    .all(|(whole, part)| holds(whole, part))
        }),
        other => whole == other,
    }
}
