//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use node_runtime::ContainerState;
use node_runtime::logs::{self, LogOptions};

use super::answer::{self, Body};
use super::pods;
use super::query::Query;
use crate::clock;
use crate::context::Context;

/// The log of a container, or why there is none.
pub fn read(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = match options(query) {
        Ok(options) => options,
        Err(why) => return answer::text(StatusCode::BAD_REQUEST, why),
    };
    let Some(folder) = folder(context, namespace, pod).map(|folder| folder.join(container)) else {
        return answer::text(
            StatusCode::NOT_FOUND,
            format!("pod {pod:?} has no logs on this node"),
        );
    };
    let attempts = attempts(&folder);
    let previous = query.is_set(&["previous"]);
    let wanted = if previous {
        attempts.iter().rev().nth(1)
    } else {
        attempts.last()
    };
    let Some(attempt) = wanted else {
        let what = if previous {
            "previous terminated container"
        } else {
            "container"
        };
        return answer::text(
            StatusCode::BAD_REQUEST,
            format!("{what} {container:?} in pod {pod:?} not found"),
        );
    };
    let path = folder.join(format!("{attempt}.log"));
    let running = pods::find(context, namespace, pod)
        .and_then(|status| {
            Some((
                status.spec.uid.clone(),
                status
                    .containers
                    .iter()
                    .find(|one| one.spec.name == container && one.spec.attempt == *attempt)?
                    .clone(),
            ))
        })
        .filter(|(_, one)| !matches!(one.state, ContainerState::Exited(_)));
    let context = context.clone();
    answer::stream(logs::read(path, options, async move {
        if let Some((uid, container)) = running {
            // Gone is ended too.
            let _ = context.pods.wait(&uid, &container.id).await;
        }
    }))
}

fn options(query: &Query) -> Result<LogOptions, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        query
            .get(name)
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse()
                    .map_err(|_| format!("{name}: {text:?} is no number"))
            })
            .transpose()
    };
    let since_time = query.get("sinceTime").filter(|text| !text.is_empty());
    let since = match (number("sinceSeconds")?, since_time) {
        (Some(seconds), _) => clock::now()
            .0
            .checked_sub(Duration::from_secs(seconds))
            .ok(),
        (None, Some(time)) => Some(
            time.parse()
                .map_err(|_| format!("sinceTime: {time:?} is no RFC 3339 time"))?,
        ),
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: query.is_set(&["follow"]),
        tail_lines: number("tailLines")?.and_then(|lines| usize::try_from(lines).ok()),
        since,
        timestamps: query.is_set(&["timestamps"]),
        limit_bytes: number("limitBytes")?,
    })
}

/// The folder of the pod's logs: of the one that is here, else of the newest that was.
fn folder(context: &Context, namespace: &str, pod: &str) -> Option<PathBuf> {
    if let Some(status) = pods::find(context, namespace, pod) {
        return Some(context.pod_logs(namespace, pod, &status.spec.uid));
    }
    let prefix = format!("{namespace}_{pod}_");
    let entries = std::fs::read_dir(&context.logs).ok()?.flatten();
    let of_pod = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    of_pod
        .max_by_key(|entry| {
            entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
        })
        .map(|entry| entry.path())
}

/// Starts that left a log, oldest first.
fn attempts(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut attempts: Vec<u32> = entries
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".log")?
                .parse()
                .ok()
        })
        .collect();
    attempts.sort_unstable();
    attempts
}
