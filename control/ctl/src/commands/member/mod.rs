//! `ctl member`: the masters of the Raft group.

mod check;
mod replace;

use crate::cli::{Member, Output};
use crate::context::Context;
use crate::output;
use anyhow::Result;
use client::{Deadline, Payload, encode_segment};
use http::Method;
use objects::cluster::{self, MemberAdd, MemberList};
use serde_json::Value;
use std::time::Duration;

/// A new member is fed the whole state before it votes.
const CHANGE_DEADLINE: Deadline = Deadline(Duration::from_secs(120));

pub async fn run(context: &Context, command: Member) -> Result<()> {
    match command {
        Member::List(args) => {
            let list: MemberList = context.client.get("/cluster/v1/members").await?;
            match args.output {
                Output::Json => output::json(&list),
                Output::Yaml => output::yaml(&list),
                _ => {
                    let headers = ["Id", "Name", "Role", "Peer Address", "API"].map(str::to_owned);
                    output::table(&headers, list.members.iter().map(row).collect());
                    Ok(())
                }
            }
        }
        Member::Add {
            name,
            peer_address,
            api_url,
            output,
        } => {
            let add = MemberAdd {
                name,
                peer_address,
                api_url,
            };
            let path = "/cluster/v1/members";
            let member: cluster::Member = context
                .client
                .call(Method::POST, path, Payload::json(&add), CHANGE_DEADLINE)
                .await?;
            match output.output {
                Output::Json => output::json(&member),
                _ => {
                    println!("member {} added with id {}", member.name, member.id);
                    Ok(())
                }
            }
        }
        Member::Replace {
            dead,
            new,
            timeout,
            output,
        } => replace::run(context, &dead, new, timeout, output).await,
        Member::Check(args) => check::run(context, args).await,
        Member::Remove { member } => {
            let path = format!("/cluster/v1/members/{}", encode_segment(&member));
            let _done: Value = context
                .client
                .call(Method::DELETE, &path, Payload::Empty, CHANGE_DEADLINE)
                .await?;
            println!("member {member} removed");
            Ok(())
        }
    }
}

fn row(member: &cluster::Member) -> Vec<String> {
    let role = match (member.voter, member.replaces, &member.replaced_by) {
        (true, _, Some(by)) => format!("voter until {by} votes"),
        (true, ..) => "voter".to_owned(),
        (false, Some(id), _) => format!("learner, then in the place of {id}"),
        (false, ..) => "learner".to_owned(),
    };
    vec![
        member.id.to_string(),
        member.name.clone(),
        role,
        member.peer_address.clone(),
        member.api_url.clone(),
    ]
}
