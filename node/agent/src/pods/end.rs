//! Takes pods down: their sandbox, their network, at last their files.

use std::time::Duration;

use futures::future::join_all;
use node_runtime::ContainerState;

use crate::context::Context;
use crate::events::Subject;

/// What the containers of a pod that nobody knows get between signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Removes the pod's sandbox with all that is in it and, if asked, its network.
pub async fn remove(context: &Context, uid: &str, with_network: bool) -> Result<(), String> {
    context
        .pods
        .remove(uid)
        .await
        .map_err(|error| error.to_string())?;
    if with_network && let Ok(uid) = network::PodUid::parse(uid) {
        context.policies.forget(uid.as_str()).await;
        context
            .network
            .detach_pod(&uid)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Ends a pod of which the API knows nothing.
pub async fn orphan(context: &Context, uid: &str) -> Result<(), String> {
    let Some(pod) = context.pods.get(uid) else {
        return Ok(());
    };
    tracing::warn!(pod = %format!("{}/{}", pod.spec.namespace, pod.spec.name), %uid, "the API does not know this pod; ending it");
    let running = pod
        .containers
        .iter()
        .filter(|container| !matches!(container.state, ContainerState::Exited(_)));
    let stopped =
        join_all(running.map(|container| context.pods.stop(uid, &container.id, GRACE))).await;
    for error in stopped.into_iter().filter_map(Result::err) {
        tracing::warn!(%uid, %error, "a container of the unknown pod could not be stopped; it is killed");
    }
    remove(context, uid, true).await?;
    forget_files(
        context,
        &Subject {
            namespace: pod.spec.namespace,
            name: pod.spec.name,
            uid: uid.to_owned(),
        },
    )
    .await;
    Ok(())
}

/// Removes logs and last words.
pub async fn forget_files(context: &Context, pod: &Subject) {
    for folder in [
        context.pod_logs(&pod.namespace, &pod.name, &pod.uid),
        context.messages.join(&pod.uid),
    ] {
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove the pod's files")
            }
            _ => {}
        }
    }
}
