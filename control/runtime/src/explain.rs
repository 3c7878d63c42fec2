//! `ctl explain`: what holds an object, and what the controllers would do about it next.

use crate::Runtime;
use crate::leadership::looks_after;
use crate::scheduler;
use crate::world::SharedWorld;
use objects::{ObjectKey, Status};
use reconcile::controller::{Asked, World};
use serde_json::Value;

/// Lines for a person. Nothing is written; any master can answer.
pub async fn explain(runtime: &Runtime, key: &ObjectKey) -> Result<Vec<String>, Status> {
    let loaded = SharedWorld::load(runtime.store.clone(), runtime.shell.clone()).await;
    let (world, _watch) = loaded.map_err(|error| Status::unavailable(error.to_string()))?;
    let cache = world.read();
    let object = cache
        .get(key)
        .ok_or_else(|| Status::not_found(&key.resource, &key.name))?;
    let mut lines = vec![format!("{} {}", object.types.kind, key.name)];
    lines.extend(conditions(&object.body));
    if key.resource.group.is_empty() && key.resource.resource == "pods" {
        lines.extend(waiting_containers(&object.body));
        if object
            .body
            .get("spec")
            .is_none_or(|spec| spec["nodeName"].as_str().unwrap_or("").is_empty())
        {
            lines.extend(scheduler::explain(&object, &cache));
        }
    }
    let now = runtime.shell.now();
    for controller in &runtime.controllers {
        if !looks_after(&**controller, key, &*cache) {
            continue;
        }
        match controller.plan(&Asked {
            key,
            world: &*cache,
            now,
            failure: None,
        }) {
            Ok(plan) => {
                lines.push(format!("controller {} would do next:", controller.name()));
                lines.extend(plan.to_string().lines().map(|line| format!("  {line}")));
            }
            Err(error) => lines.push(format!(
                "controller {} cannot read it: {error}",
                controller.name()
            )),
        }
    }
    let owned = cache.owned_by(&object.metadata.uid);
    lines.extend(owned.iter().map(|owned| format!("owns {owned}")));
    Ok(lines)
}

/// Each condition that is not as one would wish, with its reason.
fn conditions(body: &serde_json::Map<String, Value>) -> Vec<String> {
    let conditions = body
        .get("status")
        .and_then(|status| status["conditions"].as_array());
    let line = |condition: &Value| {
        let text = |field: &str| condition[field].as_str().unwrap_or("").to_owned();
        format!(
            "condition {}={} {} {}",
            text("type"),
            text("status"),
            text("reason"),
            text("message")
        )
        .trim_end()
        .to_owned()
    };
    conditions.into_iter().flatten().map(line).collect()
}

fn waiting_containers(body: &serde_json::Map<String, Value>) -> Vec<String> {
    let statuses = body
        .get("status")
        .and_then(|status| status["containerStatuses"].as_array());
    let waiting = statuses
        .into_iter()
        .flatten()
        .filter(|status| status["state"]["waiting"].is_object());
    let line = |status: &Value| {
        let state = &status["state"]["waiting"];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        format!(
            "container {} waits: {} {}",
            text(&status["name"]),
            text(&state["reason"]),
            text(&state["message"])
        )
    };
    waiting.map(line).collect()
}
