//! `ctl member replace`: notes who takes whose place, says what to run on the new machine, and shows how far it is.
//!
//! What was noted stands in the membership itself: it happens whether this command waits or was ended.

use crate::cli::{Output, OutputArg};
use crate::context::Context;
use crate::output;
use anyhow::{Result, bail};
use client::{Payload, encode_segment};
use http::Method;
use objects::cluster::{ClusterStatus, Member, MemberReplace, MemberStatus, Replacement};
use serde_json::json;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(500);

pub async fn run(
    context: &Context,
    dead: &str,
    new: String,
    timeout: Duration,
    output: OutputArg,
) -> Result<()> {
    let path = format!("/cluster/v1/members/{}/replace", encode_segment(dead));
    let body = Payload::json(&MemberReplace { by: new.clone() });
    let noted: Replacement = context
        .client
        .call(Method::POST, &path, body, super::CHANGE_DEADLINE)
        .await?;
    eprintln!(
        "{} (member {}) goes as soon as {new} has caught up and votes; until then nothing is lost",
        noted.replaced.name, noted.replaced.id
    );
    if noted.by.is_none() {
        eprintln!("{}", what_to_run(&noted, &new));
    }
    let member = wait(context, &noted, &new, timeout).await?;
    match output.output {
        Output::Json => output::json(&json!({"replaced": noted.replaced, "member": member})),
        Output::Yaml => output::yaml(&json!({"replaced": noted.replaced, "member": member})),
        _ => {
            println!(
                "member {} (id {}) was replaced by {} (id {})",
                noted.replaced.name, noted.replaced.id, member.name, member.id
            );
            Ok(())
        }
    }
}

fn what_to_run(noted: &Replacement, new: &str) -> String {
    format!(
        "run this on the machine of {new}, whose data directory must be empty, with its own address:\n\n  \
         umask 077; echo {} >/tmp/join-token\n  \
         control run --name {new} --address ADDRESS --join {} --token-file /tmp/join-token\n",
        noted.token.0,
        noted.servers.join(",")
    )
}

/// Until the new one votes and the old one is gone.
async fn wait(
    context: &Context,
    noted: &Replacement,
    new: &str,
    timeout: Duration,
) -> Result<Member> {
    let until = Instant::now() + timeout;
    let mut told = String::new();
    loop {
        // A master that goes, or a change of the leader, may leave one question without an answer.
        let status: Option<ClusterStatus> = context.client.get("/cluster/v1/status").await.ok();
        let progress = match &status {
            Some(status) => match look(status, noted, new) {
                Ok(member) => return Ok(member),
                Err(progress) => progress,
            },
            None => "the cluster does not answer; asking again".to_owned(),
        };
        if progress != told {
            eprintln!("{progress}");
            told = progress;
        }
        if Instant::now() >= until {
            bail!(
                "{new} did not take the place of {} within {timeout:?}: {told}; it still will, as soon as it can",
                noted.replaced.name
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The new member when all is done, else how far it is.
fn look(status: &ClusterStatus, noted: &Replacement, new: &str) -> Result<Member, String> {
    let old = noted.replaced.id;
    let is_new = |known: &&MemberStatus| known.member.name == new && known.member.id != old;
    let Some(known) = status.members.iter().find(is_new) else {
        return Err(format!("waiting for {new} to join"));
    };
    if !known.member.voter {
        let furthest = status
            .members
            .iter()
            .filter_map(|known| known.applied_index);
        return Err(match (known.applied_index, furthest.max()) {
            (Some(applied), Some(furthest)) => format!(
                "{new} joined as member {} and is being fed: {applied} of {furthest} entries",
                known.member.id
            ),
            _ => format!(
                "{new} is member {} and not there yet: {}",
                known.member.id,
                known.problem.as_deref().unwrap_or("it does not answer")
            ),
        });
    }
    if status.members.iter().any(|known| known.member.id == old) {
        return Err(format!(
            "{new} votes; {} is about to go",
            noted.replaced.name
        ));
    }
    Ok(known.member.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(id: u64, name: &str, voter: bool, applied_index: Option<u64>) -> MemberStatus {
        MemberStatus {
            member: Member {
                id,
                name: name.to_owned(),
                peer_address: String::new(),
                api_url: format!("https://{name}:6443"),
                voter,
                replaces: None,
                replaced_by: None,
            },
            leader: id == 1,
            healthy: applied_index.is_some(),
            last_log_index: applied_index,
            applied_index,
            revision: None,
            db_size_bytes: None,
            problem: None,
            alarms: vec![],
            figures: None,
        }
    }

    fn cluster(members: Vec<MemberStatus>) -> ClusterStatus {
        ClusterStatus {
            cluster_id: "c".to_owned(),
            term: 1,
            leader: Some(1),
            members,
        }
    }

    #[test]
    fn progress_is_told_until_the_new_one_votes_and_the_old_one_is_gone() {
        let (first, dead) = (
            status_of(1, "m1", true, Some(90)),
            status_of(3, "m3", true, None),
        );
        let noted = Replacement {
            replaced: dead.member.clone(),
            by: None,
            servers: vec!["https://m1:6443".to_owned(), "https://m2:6443".to_owned()],
            token: "trireme.ab.cd".to_owned().into(),
        };
        assert!(what_to_run(&noted, "m4").contains(
            "control run --name m4 --address ADDRESS --join https://m1:6443,https://m2:6443"
        ));
        let mut members = vec![first, dead];
        let look_now =
            |members: &[MemberStatus], new| look(&cluster(members.to_vec()), &noted, new);
        assert_eq!(
            look_now(&members, "m3"),
            Err("waiting for m3 to join".to_owned())
        );
        assert_eq!(
            look_now(&members, "m4"),
            Err("waiting for m4 to join".to_owned())
        );
        members.push(status_of(4, "m4", false, Some(20)));
        let fed = "m4 joined as member 4 and is being fed: 20 of 90 entries";
        assert_eq!(look_now(&members, "m4"), Err(fed.to_owned()));
        members[2].member.voter = true;
        assert_eq!(
            look_now(&members, "m4"),
            Err("m4 votes; m3 is about to go".to_owned())
        );
        members.remove(1);
        assert_eq!(look_now(&members, "m4"), Ok(members[1].member.clone()));
    }
}
