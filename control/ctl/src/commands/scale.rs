//! `ctl scale`: sets a workload's replicas through its `scale` subresource.

use crate::cli::Scale;
use crate::context::Context;
use anyhow::{Result, ensure};
use client::PatchKind;
use serde_json::{Value, json};

pub async fn run(context: &Context, args: Scale) -> Result<()> {
    for named in context.named_objects(&args.what).await? {
        let path = format!("{}/scale", named.path());
        if let Some(expected) = args.current_replicas {
            let scale: Value = context.client.get(&path).await?;
            let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            ensure!(
                current == expected,
                "{} has {current} replicas, not {expected}; nothing was changed",
                named.display()
            );
        }
        let patch = json!({"spec": {"replicas": args.replicas}});
        let _scaled: Value = context
            .client
            .patch(&path, PatchKind::Merge, &patch)
            .await?;
        println!("{} scaled", named.display());
    }
    Ok(())
}
