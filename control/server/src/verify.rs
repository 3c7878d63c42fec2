//! Is this snapshot good? `snapshot-status` checks every checksum; `snapshot-verify` restores it for real, into a scratch folder,
//! and compares what the database gives back with what its source held. The schedules verify by the same code.

use crate::cli::{Output, SnapshotStatus, SnapshotVerify};
use crate::source::Source;
use crate::vault;
use anyhow::{Context, Result};
use objects::{ObjectKey, Timestamp};
use raft_store::archive::{self, Header, Summary};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufReader;

/// Bytes that are read ahead.
const READ_BYTES: usize = 1 << 20;
/// What is no object of the API: join tokens, schedules.
const OWN_KEYS: &str = "trireme's own";

/// Checks every byte and tells what the snapshot holds.
pub fn status(args: &SnapshotStatus) -> Result<()> {
    let source = Source::open(&args.file, &args.s3, &std::env::temp_dir())?;
    let Summary {
        header,
        state,
        extra,
    } = checked(&source)?;
    let keys = vault::describe(extra.as_deref());
    match args.output {
        Output::Json => {
            let mut value = header_json(&header);
            value["sealed"] = json!(state.is_none());
            value["records"] = json!(state.as_ref().map(|state| state.records));
            value["bytes"] = json!(state.as_ref().map(|state| state.bytes));
            value["keys"] = json!(extra.is_some());
            value["keysAre"] = json!(keys);
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Table => {
            print_header(&header);
            match state {
                Some(state) => {
                    println!("records   {} ({} bytes), plain", state.records, state.bytes)
                }
                None => println!("records   sealed: `snapshot verify` with their key tells them"),
            }
            println!("keys      {keys}");
            println!("checksum  good");
        }
    }
    Ok(())
}

/// Restores it into a scratch folder and tells what it holds.
pub fn verify(args: &SnapshotVerify) -> Result<()> {
    let scratch = args.scratch_dir.clone().unwrap_or_else(std::env::temp_dir);
    let source = Source::open(&args.file, &args.s3, &scratch)?;
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = |key: &[u8]| {
        let kind = ObjectKey::from_store_key(key)
            .map_or_else(|| OWN_KEYS.to_owned(), |key| key.resource.to_string());
        *kinds.entry(kind).or_default() += 1;
    };
    let read = || anyhow::Ok(BufReader::with_capacity(READ_BYTES, source.read()?));
    let unusable = || format!("the snapshot {} does not verify", source.name());
    // What opens the state stands before it, sealed.
    let (_, sealed_first) = archive::look(read()?).with_context(unusable)?;
    let (passphrase, key) = (args.passphrase_file.as_deref(), args.key_file.as_deref());
    let is_given = passphrase.is_some() || key.is_some();
    let unlock = |sealed: &[u8]| vault::unlock(sealed, &vault::opener(passphrase, key)?);
    let state_key = match &sealed_first {
        Some(_) if !is_given => anyhow::bail!(
            "the snapshot {} is {}, its state too: give that to `snapshot verify`; `snapshot status` checks its checksums without",
            source.name(),
            vault::describe(sealed_first.as_deref())
        ),
        Some(sealed) => unlock(sealed)?.state_key()?,
        None => None,
    };
    let found = archive::rehearse(read()?, state_key.as_ref(), &scratch, &mut count)
        .with_context(unusable)?;
    let sealed = found.restored.extra.as_deref();
    let opened = match sealed {
        _ if !is_given => false,
        None => anyhow::bail!(
            "the snapshot {} was saved without the cluster's keys: there is nothing to open",
            source.name()
        ),
        Some(sealed) => {
            unlock(sealed)?;
            true
        }
    };
    let (header, keys) = (&found.restored.header, vault::describe(sealed));
    match args.output {
        Output::Json => {
            let mut value = header_json(header);
            value["verified"] = json!(true);
            value["compared"] = json!(found.restored.compared);
            value["tables"] = json!(found.restored.sums);
            value["objects"] = json!(kinds);
            value["keys"] = json!(sealed.is_some());
            value["keysAre"] = json!(keys);
            value["keysOpened"] = json!(opened);
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Table => {
            print_header(header);
            for (kind, count) in &kinds {
                println!("holds     {count} {kind}");
            }
            println!(
                "keys      {keys}{}",
                if opened {
                    ", and open with what was given"
                } else {
                    ""
                }
            );
            match found.restored.compared {
                true => println!("restored  good: every table hashes as it did at its source"),
                false => println!(
                    "restored  good, but this old format does not tell the hashes of its source"
                ),
            }
        }
    }
    Ok(())
}

/// The snapshot, every checksum of which is good.
pub fn checked(source: &Source) -> Result<Summary> {
    let reader = BufReader::with_capacity(READ_BYTES, source.read()?);
    archive::verify(reader)
        .with_context(|| format!("the snapshot {} cannot be used", source.name()))
}

fn saved(header: &Header) -> Option<Timestamp> {
    header
        .saved_ms
        .map(|saved| Timestamp::from_unix_ms(i64::try_from(saved).unwrap_or(i64::MAX)))
}

fn header_json(header: &Header) -> Value {
    json!({
        "clusterId": header.cluster_id, "revision": header.revision, "saved": saved(header),
        "program": header.program, "recordFormat": header.record_format,
    })
}

fn print_header(header: &Header) {
    println!("cluster   {}", header.cluster_id);
    println!("revision  {}", header.revision);
    if let Some(saved) = saved(header) {
        println!("saved     {saved}");
    }
    if let Some(program) = &header.program {
        println!("by        {program}");
    }
}
