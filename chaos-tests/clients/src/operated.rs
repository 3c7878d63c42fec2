//! What the operators of the tests have to do, while the leader is lost: for each object of a kind to keep a ConfigMap, `…-made`, with
//! the object's word in capitals.

use crate::Rig;
use anyhow::{Result, ensure};
use client::{Client, Error, PatchKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What operators have to do is done within this time, the loss of a master included.
const CONVERGED: Duration = Duration::from_secs(90);
const WRITES: usize = 30;
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What an operator looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ConfigMaps with the label `operator=NAME`.
    Maps,
    /// A custom resource whose status tells what was made of it, and whose finalizer waits until that is gone.
    Gadgets,
}

impl Kind {
    fn path(self, namespace: &str) -> String {
        match self {
            Kind::Maps => format!("/api/v1/namespaces/{namespace}/configmaps"),
            Kind::Gadgets => format!("/apis/example.com/v1/namespaces/{namespace}/gadgets"),
        }
    }

    fn object(self, name: &str, operator: &str, word: &str) -> Value {
        let metadata = json!({"name": name, "labels": {"operator": operator}});
        match self {
            Kind::Maps => {
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"word": word}})
            }
            Kind::Gadgets => {
                json!({"kind": "Gadget", "apiVersion": "example.com/v1", "metadata": metadata, "spec": {"word": word}})
            }
        }
    }

    fn part(self) -> &'static str {
        match self {
            Kind::Maps => "data",
            Kind::Gadgets => "spec",
        }
    }
}

/// Defines the custom resource; before an operator starts, which looks which kinds there are.
pub async fn define_gadgets(rig: &Rig) -> Result<()> {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let word = json!({"type": "object", "properties": {"word": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": word, "status": open}});
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "gadgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"}, "versions": [{"name": "v1", "served": true,
        "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    rig.client()?
        .post::<Value>(DEFINITIONS, &definition)
        .await?;
    Ok(())
}

/// Writes before, while and after the leader is lost; the operator must come to the end of all of it.
pub async fn survive(rig: &mut Rig, operator: &str, kind: Kind) -> Result<()> {
    let client = rig.client()?;
    let namespace = format!("{kind:?}-of-{operator}").to_lowercase();
    let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
    client.post::<Value>("/api/v1/namespaces", &object).await?;
    let work = Work {
        client,
        kind,
        objects: kind.path(&namespace),
        maps: Kind::Maps.path(&namespace),
        operator,
    };
    work.write(0..WRITES / 3).await?;
    work.converge(0..WRITES / 3).await?;
    let begun = Instant::now();
    let (lost, written) = tokio::join!(
        rig.lose_the_leader(),
        work.write(WRITES / 3..2 * WRITES / 3)
    );
    lost?;
    written?;
    work.change(0).await?;
    work.write(2 * WRITES / 3..WRITES).await?;
    work.converge(0..WRITES).await?;
    println!(
        "{operator} with {kind:?}: all done {:.1} s after the kill",
        begun.elapsed().as_secs_f64()
    );
    if kind == Kind::Gadgets {
        work.delete(0..WRITES / 3).await?;
        work.converge(WRITES / 3..WRITES).await?;
    }
    rig.cluster.wait_until_whole().await
}

struct Work<'a> {
    client: Client,
    kind: Kind,
    objects: String,
    maps: String,
    operator: &'a str,
}

impl Work<'_> {
    async fn write(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            let word = format!("word {number}");
            let name = format!("m{number}");
            let object = self.kind.object(&name, self.operator, &word);
            surely(|| self.client.post::<Value>(&self.objects, &object)).await?;
        }
        Ok(())
    }

    async fn change(&self, number: usize) -> Result<()> {
        let path = format!("{}/m{number}", self.objects);
        let patch = json!({ self.kind.part(): {"word": "changed"} });
        surely(|| self.client.patch::<Value>(&path, PatchKind::Merge, &patch)).await
    }

    async fn delete(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let options = json!({});
        for number in numbers {
            let path = format!("{}/m{number}", self.objects);
            surely(|| self.client.delete(&path, &options)).await?;
        }
        Ok(())
    }

    /// Waits until the operator has made what belongs to each of these, and nothing else is there.
    async fn converge(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let end = Instant::now() + CONVERGED;
        loop {
            let undone = match self.undone(numbers.clone()).await {
                Ok(undone) => undone,
                Err(error) => vec![error.to_string()],
            };
            if undone.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the operator left undone: {undone:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn undone(&self, numbers: std::ops::Range<usize>) -> Result<Vec<String>, Error> {
        let objects: Value = self.client.get(&self.objects).await?;
        let maps: Value = self.client.get(&self.maps).await?;
        let words = |list: &Value, part: &str| -> BTreeMap<String, String> {
            let items = list["items"].as_array().into_iter().flatten();
            let word = |it: &Value| {
                let name = it["metadata"]["name"].as_str()?.to_owned();
                Some((name, it[part]["word"].as_str()?.to_owned()))
            };
            items.filter_map(word).collect()
        };
        let (wanted, made) = (words(&objects, self.kind.part()), words(&maps, "data"));
        let name = |number| format!("m{number}");
        let is_made = |name: &String| {
            let word = wanted.get(name).map(|word| word.to_uppercase());
            word.is_some() && made.get(&format!("{name}-made")) == word.as_ref()
        };
        let mut undone: Vec<String> = numbers
            .clone()
            .map(name)
            .filter(|name| !is_made(name))
            .collect();
        let is_over = |made: &&String| {
            let of = made.strip_suffix("-made");
            of.is_some_and(|of| !numbers.clone().any(|number| name(number) == of))
        };
        undone.extend(made.keys().filter(is_over).cloned());
        if self.kind == Kind::Gadgets {
            let items = objects["items"].as_array().into_iter().flatten();
            let untold = items.filter(|it| {
                let word = it["spec"]["word"].as_str().unwrap_or_default();
                it["status"]["made"] != word.to_uppercase()
            });
            undone.extend(untold.map(|it| it["metadata"]["name"].to_string()));
        }
        Ok(undone)
    }
}

/// As any careful client: what may or may not have happened is done again, and what is there or gone already is done.
async fn surely<F: Future<Output = Result<Value, Error>>>(ask: impl Fn() -> F) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_code(409) || error.is_code(404) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
