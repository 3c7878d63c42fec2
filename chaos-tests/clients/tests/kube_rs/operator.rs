//! An operator as people write them with kube-rs: a custom resource with a status and a finalizer, a controller that applies what belongs
//! to each object, and tidies up by itself before the object goes.

use super::MANAGER;
use anyhow::{Context, Result, bail, ensure};
use clients::Rig;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, Object};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const FINALIZER: &str = "example.com/tidy";
const WIDGETS: usize = 20;
/// What the operator has to do is done within this time, the loss of a master included.
const CONVERGED: Duration = Duration::from_secs(90);
const RETRY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Spec {
    word: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Progress {
    made: String,
    observed_generation: i64,
}

type Widget = Object<Spec, Progress>;

struct Shared {
    client: Client,
    kind: ApiResource,
}

/// Runs the operator, gives it work before, while and after the leader is lost, and waits until all of it is done.
pub async fn survive(rig: &mut Rig, client: Client) -> Result<()> {
    define(&client).await?;
    let kind = kind();
    let widgets: Api<Widget> = Api::default_namespaced_with(client.clone(), &kind);
    let context = Arc::new(Shared {
        client: client.clone(),
        kind: kind.clone(),
    });
    let controller = Controller::new_with(widgets.clone(), watcher::Config::default(), kind);
    let running = controller
        .run(reconcile, again, context)
        .for_each(async |done| {
            // Shown where the test fails.
            if let Err(error) = done {
                println!("the operator tries again: {error}");
            }
        });
    let running = tokio::spawn(running);

    write(&widgets, 0..WIDGETS / 2).await?;
    converge(&client, &widgets, 0..WIDGETS / 2).await?;
    let begun = Instant::now();
    let (lost, written) = tokio::join!(rig.lose_the_leader(), async {
        write(&widgets, WIDGETS / 2..WIDGETS).await?;
        // The finalizer holds each until the operator has tidied up.
        let delete = DeleteParams::default();
        for number in 0..WIDGETS / 4 {
            let name = format!("w{number}");
            surely(|| widgets.delete(&name, &delete)).await?;
        }
        let patch = json!({"spec": {"word": "changed"}});
        let name = format!("w{}", WIDGETS / 4);
        let (merge, params) = (Patch::Merge(&patch), PatchParams::default());
        surely(|| widgets.patch(&name, &params, &merge)).await
    });
    lost?;
    written?;
    converge(&client, &widgets, WIDGETS / 4..WIDGETS).await?;
    println!(
        "all done {:.1} s after the kill",
        begun.elapsed().as_secs_f64()
    );
    ensure!(!running.is_finished(), "the controller ended");
    running.abort();
    rig.cluster.wait_until_whole().await
}

fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"))
}

async fn define(client: &Client) -> Result<()> {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["word"], "properties": {"word": {"type": "string"}}},
        "status": {"type": "object", "properties": {"made": {"type": "string"}, "observedGeneration": {"type": "integer"}}}}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &serde_json::from_value(definition)?)
        .await?;
    let name = "widgets.example.com";
    let established = await_condition(definitions, name, conditions::is_crd_established());
    timeout(CONVERGED, established)
        .await
        .context("the definition is not established")??;
    Ok(())
}

async fn reconcile(widget: Arc<Widget>, context: Arc<Shared>) -> Result<Action, Failed> {
    let namespace = widget.namespace().unwrap_or_default();
    let widgets: Api<Widget> =
        Api::namespaced_with(context.client.clone(), &namespace, &context.kind);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let (of, to) = (&widgets, &maps);
    let done = finalizer(&widgets, FINALIZER, widget, |event| async move {
        match event {
            Event::Apply(widget) => keep(of, to, &widget).await,
            Event::Cleanup(widget) => tidy(to, &widget).await,
        }
    });
    done.await.map_err(|error| Failed(error.to_string()))
}

fn again(_: Arc<Widget>, _: &Failed, _: Arc<Shared>) -> Action {
    Action::requeue(RETRY)
}

async fn keep(
    widgets: &Api<Widget>,
    maps: &Api<ConfigMap>,
    widget: &Widget,
) -> Result<Action, kube::Error> {
    let made = format!("{}-made", widget.name_any());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made},
        "data": {"word": widget.spec.word.to_uppercase()}});
    let apply = PatchParams::apply(MANAGER).force();
    maps.patch(&made, &apply, &Patch::Apply(&map)).await?;
    let observed_generation = widget.metadata.generation.unwrap_or_default();
    let progress = Progress {
        made,
        observed_generation,
    };
    if widget.status.as_ref() != Some(&progress) {
        let status = json!({"status": progress});
        let params = PatchParams::default();
        widgets
            .patch_status(&widget.name_any(), &params, &Patch::Merge(&status))
            .await?;
    }
    Ok(Action::await_change())
}

async fn tidy(maps: &Api<ConfigMap>, widget: &Widget) -> Result<Action, kube::Error> {
    let made = format!("{}-made", widget.name_any());
    match maps.delete(&made, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        deleted => drop(deleted?),
    }
    Ok(Action::await_change())
}

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

async fn write(widgets: &Api<Widget>, numbers: std::ops::Range<usize>) -> Result<()> {
    let create = PostParams::default();
    for number in numbers {
        let name = format!("w{number}");
        let word = format!("word {number}");
        let widget = Widget::new(&name, &kind(), Spec { word });
        surely(|| widgets.create(&create, &widget)).await?;
    }
    Ok(())
}

/// As any careful client: what may or may not have happened is done again, and what is done already is done.
async fn surely<T, F>(ask: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let end = Instant::now() + CONVERGED;
    loop {
        match ask().await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Waits until these widgets, and no others, are there with all that the operator makes of them.
async fn converge(
    client: &Client,
    widgets: &Api<Widget>,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let end = Instant::now() + CONVERGED;
    loop {
        let undone = undone(&maps, widgets, numbers.clone()).await;
        match undone {
            Ok(undone) if undone.is_empty() => return Ok(()),
            undone if Instant::now() > end => bail!("the operator left undone: {undone:?}"),
            _ => sleep(RETRY).await,
        }
    }
}

async fn undone(
    maps: &Api<ConfigMap>,
    widgets: &Api<Widget>,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<String>> {
    let all = ListParams::default();
    let (widgets, maps) = (
        widgets.list(&all).await?.items,
        maps.list(&all).await?.items,
    );
    let made = maps
        .iter()
        .filter(|map| map.name_any().ends_with("-made"))
        .count();
    let mut undone = Vec::new();
    if widgets.len() != numbers.len() || made != numbers.len() {
        undone.push(format!(
            "{} widgets and {made} maps for {}",
            widgets.len(),
            numbers.len()
        ));
    }
    for widget in &widgets {
        let name = format!("{}-made", widget.name_any());
        let map = maps.iter().find(|map| map.name_any() == name);
        let word = map.and_then(|map| map.data.as_ref()?.get("word"));
        let is_told = widget.status.as_ref().is_some_and(|status| {
            Some(status.observed_generation) == widget.metadata.generation && status.made == name
        });
        if !is_told || word != Some(&widget.spec.word.to_uppercase()) {
            undone.push(name);
        }
    }
    Ok(undone)
}
