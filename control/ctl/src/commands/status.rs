//! `ctl status`: who leads, how far each master is, and what is wrong.

use crate::cli::{Output, OutputArg};
use crate::context::Context;
use crate::output;
use anyhow::Result;
use objects::cluster::{ClusterStatus, MemberStatus};

pub async fn run(context: &Context, args: OutputArg) -> Result<()> {
    let status: ClusterStatus = context.client.get("/cluster/v1/status").await?;
    match args.output {
        Output::Json => return output::json(&status),
        Output::Yaml => return output::yaml(&status),
        _ => {}
    }
    let leader = status
        .members
        .iter()
        .find(|member| Some(member.member.id) == status.leader);
    let leads = leader.map_or(
        "nobody: writes are refused until a majority is back".to_owned(),
        |leader| format!("{} since term {}", leader.member.name, status.term),
    );
    println!(
        "cluster {}, led by {}",
        status.cluster_id,
        output::strong(&leads)
    );
    let headers = [
        "Name", "Role", "Healthy", "Log", "Applied", "Revision", "Data", "API", "Problem",
    ];
    output::table(
        &headers.map(str::to_owned),
        status.members.iter().map(row).collect(),
    );
    Ok(())
}

fn row(status: &MemberStatus) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let role = match (status.leader, status.member.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    };
    vec![
        status.member.name.clone(),
        role.to_owned(),
        if status.healthy { "yes" } else { "no" }.to_owned(),
        number(status.last_log_index),
        number(status.applied_index),
        number(status.revision),
        status.db_size_bytes.map_or("-".to_owned(), |bytes| {
            format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
        }),
        status.member.api_url.clone(),
        status.problem.clone().unwrap_or_default(),
    ]
}
