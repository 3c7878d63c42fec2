//! `control recover`: one master survived, the majority is gone for good. Tells what may be lost, asks, and makes a cluster of this
//! master alone, under a new identity, so that the lost ones are refused should they come back.
//!
//! The new store is filled beside the old one, and the write of `identity.json` switches from one to the other: interrupted at any
//! moment, the directory holds either the former master, untouched, or the new one, whole. The old store stays where it was.

use crate::cli::{Output, Recover};
use crate::clock;
use crate::settings::{DataDir, MasterIdentity};
use anyhow::{Context, Result, bail, ensure};
use objects::Timestamp;
use raft_store::recover::{self as store, FormerMember, Recovered, Survivor};
use raft_store::types::{LogId, term_of};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Where the new store is made; what an interrupted recovery left there, the next one removes.
const MAKING: &str = "recovering";
/// Digits of the cluster's id that a person types to say yes.
const TYPED_LEN: usize = 8;

/// `control recover`.
pub fn recover(args: &Recover) -> Result<()> {
    ensure!(
        !DataDir::is_vacant(&args.data_dir)?,
        "the data directory {} is empty or absent",
        args.data_dir.display()
    );
    let dir = DataDir::open(&args.data_dir)?;
    let former = dir.identity()?.with_context(|| {
        format!(
            "the data directory {} holds no master",
            args.data_dir.display()
        )
    })?;
    let from = dir.store(&former);
    let found = store::look(&from)
        .context("this master cannot be recovered; if another is left, try that one")?;
    let cluster_id = clock::new_uid().0;
    let folder = format!("store-{cluster_id}");
    // Made before anybody is asked, since only what is made tells how far it reaches. Nothing refers to it yet.
    let made = Unused(dir.root().join(MAKING));
    let recovered = store::recover(&from, &made.0, &cluster_id, found.node.clone())?;
    tell(args, &former, &found, &recovered)?;
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        ask(&former)?;
    }
    let identity = MasterIdentity {
        cluster_id: cluster_id.clone(),
        member_id: recovered.identity.member_id,
        founder: false,
        store: Some(folder),
        ..former.clone()
    };
    std::fs::rename(&made.0, dir.store(&identity))
        .context("the new store cannot be put in place")?;
    dir.keep_identity(&identity)?;
    match args.output {
        Output::Json => {
            let value = json!({
                "formerClusterId": former.cluster_id, "clusterId": cluster_id, "name": former.name,
                "reachedRevision": recovered.reached, "revision": recovered.revision, "formerStore": from,
            });
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Table => {
            println!(
                "recovered revision {} as the new cluster {cluster_id}, of {} alone",
                recovered.reached, former.name
            );
            println!(
                "the store as it was is kept in {}; delete it once it is not missed",
                from.display()
            );
            println!(
                "next: start this master as before, then each of the others, with its old data directory or an empty one:\n  \
                 control run --name NAME --address IP --join {} --token-file FILE --rejoin",
                found.node.api_url
            );
        }
    }
    Ok(())
}

/// A folder that goes, unless it was renamed.
struct Unused(PathBuf);

impl Drop for Unused {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "what was made for nothing could not be removed");
        }
    }
}

/// What there is, and what may be lost.
fn tell(
    args: &Recover,
    former: &MasterIdentity,
    found: &Survivor,
    recovered: &Recovered,
) -> Result<()> {
    let voters: Vec<&FormerMember> = found.members.iter().filter(|member| member.voter).collect();
    let is_voter = voters
        .iter()
        .any(|member| member.id == found.identity.member_id);
    let contact = found
        .last_contact_ms
        .and_then(|ms| i64::try_from(ms).ok())
        .map(Timestamp::from_unix_ms);
    let age = contact.map(|contact| clock::now().since(contact));
    let waiting = index(found.last_log).saturating_sub(index(found.committed));
    if args.output == Output::Json {
        let member = |member: &FormerMember| json!({"id": member.id, "name": member.node.name, "voter": member.voter});
        let value = json!({
            "clusterId": former.cluster_id, "name": former.name, "memberId": found.identity.member_id, "voter": is_voter,
            "members": found.members.iter().map(member).collect::<Vec<_>>(), "revision": recovered.reached,
            "lastLogIndex": index(found.last_log), "lastLogTerm": found.last_log.as_ref().map(term_of),
            "committedIndex": index(found.committed), "term": found.term, "unconfirmedEntries": waiting,
            "lastContact": contact, "damage": found.damage, "secondsSinceContact": age.map(|age| age.as_secs()),
        });
        // The answer of the recovery itself follows on standard output.
        let text = serde_json::to_string_pretty(&value)?;
        match args.dry_run {
            true => println!("{text}"),
            false => eprintln!("{text}"),
        }
        return Ok(());
    }
    let names: Vec<&str> = voters
        .iter()
        .map(|member| member.node.name.as_str())
        .collect();
    eprintln!(
        "cluster       {}, of {} voting masters: {}",
        former.cluster_id,
        voters.len(),
        names.join(", ")
    );
    eprintln!(
        "this master   {} (member {}{})",
        former.name,
        found.identity.member_id,
        if is_voter {
            ""
        } else {
            ", which does not vote: it may lack much"
        }
    );
    eprintln!(
        "state         revision {}, with all that its log holds; known to be committed up to log entry {}",
        recovered.reached,
        index(found.committed)
    );
    eprintln!(
        "log           up to entry {} of term {}; the latest term it knows is {}",
        index(found.last_log),
        found.last_log.as_ref().map_or(0, term_of),
        found.term
    );
    match (contact, age) {
        (Some(contact), Some(age)) => eprintln!(
            "last contact  {contact}, {} ago, by this machine's clock",
            for_people(age)
        ),
        _ => eprintln!("last contact  not known"),
    }
    if let Some(damage) = &found.damage {
        eprintln!("damage        {damage}: it may hold less, or other, than it once acknowledged");
    }
    eprintln!();
    eprintln!(
        "What may be lost: every write that the others acknowledged and that never got here: any number from after the last contact,"
    );
    eprintln!("and those from before it by which this master lagged behind.");
    if waiting > 0 {
        eprintln!(
            "What may appear: {waiting} log entries were not known here to be committed. They become true, also if nobody was told so."
        );
    }
    eprintln!(
        "The other masters must be gone for good, or stopped: they would go on as the former cluster. If a majority can still be"
    );
    eprintln!(
        "started, start it instead: then nothing is lost. If there is a newer snapshot, a restore of it may lose less."
    );
    Ok(())
}

fn ask(former: &MasterIdentity) -> Result<()> {
    let wanted: String = former.cluster_id.chars().take(TYPED_LEN).collect();
    ensure!(
        std::io::stdin().is_terminal(),
        "nobody can be asked here: look at what is said above, and say --yes when it is wanted"
    );
    eprint!("\nType the first {TYPED_LEN} characters of the cluster's id to go on ({wanted}): ");
    std::io::stderr().flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    match typed.trim() == wanted {
        true => Ok(()),
        false => bail!("nothing was done"),
    }
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}

/// To one unit: `42 s`, `5 min`, `3 h`, `2 days`.
fn for_people(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
