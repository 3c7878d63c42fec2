//! `ctl explain`: what holds an object back, and what the controllers would do next; the leader's own plan, shown.

use crate::cli::{Explain, Output};
use crate::context::Context;
use crate::output;
use anyhow::Result;
use client::encode_segment;
use serde_json::Value;

pub async fn run(context: &Context, args: Explain) -> Result<()> {
    for named in context.named_objects(&args.what).await? {
        let mut query = vec![
            format!("resource={}", encode_segment(&named.resource.qualified())),
            format!("name={}", encode_segment(&named.name)),
        ];
        if named.resource.namespaced {
            query.push(format!("namespace={}", encode_segment(&named.namespace)));
        }
        let answer: Value = context
            .client
            .get(&format!("/cluster/v1/explain?{}", query.join("&")))
            .await?;
        if args.output.output == Output::Json {
            output::json(&answer)?;
            continue;
        }
        for line in answer["lines"].as_array().into_iter().flatten() {
            println!("{}", line.as_str().unwrap_or(""));
        }
    }
    Ok(())
}
