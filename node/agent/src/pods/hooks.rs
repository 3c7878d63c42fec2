//! `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use super::probes::{self, Asked};
use crate::context::Context;

/// Runs a hook within `timeout`; the error is what the event says.
pub async fn run(
    context: &Context,
    asked: &Asked<'_>,
    hook: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    let work = async {
        if let Some(exec) = &hook.exec {
            return probes::command(
                context,
                asked,
                exec.command.as_deref().unwrap_or_default(),
                timeout,
            )
            .await;
        }
        if let Some(get) = &hook.http_get {
            return probes::http_get(asked, get).await;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(
                u64::try_from(sleep.seconds).unwrap_or(0),
            ))
            .await;
        }
        Ok(())
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("the hook did not end within {timeout:?}")),
    }
}
