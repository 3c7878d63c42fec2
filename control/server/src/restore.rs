//! Out of a snapshot: what it holds, and a new cluster made of it.
//!
//! The restored cluster has a new identity, so that members of the old one that still run cannot speak to it, and a revision far
//! ahead, so that watchers from before are told to list again.

use crate::cli::{Output, Restore, SnapshotStatus};
use crate::settings::{DataDir, MasterIdentity};
use crate::{clock, create, vault};
use anyhow::{Context, Result, ensure};
use raft_store::archive;
use raft_store::types::Node;
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Checks every byte and tells what the snapshot holds.
pub fn status(args: &SnapshotStatus) -> Result<()> {
    let summary = verified(&args.file)?;
    let keys = if summary.extra.is_some() {
        "sealed under a passphrase"
    } else {
        "left out"
    };
    let header = &summary.header;
    match args.output {
        Output::Json => {
            let value = json!({
                "clusterId": header.cluster_id, "revision": header.revision, "records": summary.records,
                "bytes": summary.bytes, "keys": summary.extra.is_some(),
            });
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Table => {
            println!("cluster   {}", header.cluster_id);
            println!("revision  {}", header.revision);
            println!("records   {} ({} bytes)", summary.records, summary.bytes);
            println!("keys      {keys}");
            println!("checksum  good");
        }
    }
    Ok(())
}

/// Makes a master of the snapshot. Everything is checked before anything is written.
pub fn restore(args: &Restore) -> Result<()> {
    let summary = verified(&args.file)?;
    let sealed = summary.extra.context(
        "the snapshot was saved without the cluster's keys, so no node and no client would trust what is restored; \
         use one that was saved with --passphrase-file",
    )?;
    let passphrase = std::fs::read_to_string(&args.passphrase_file).with_context(|| {
        format!(
            "cannot read the passphrase file {}",
            args.passphrase_file.display()
        )
    })?;
    let keys = vault::unlock(&sealed, passphrase.trim_end_matches(['\n', '\r']))?;
    ensure!(
        DataDir::is_vacant(&args.data_dir)?,
        "the data directory {} is not empty: a restore never overwrites; move it away first",
        args.data_dir.display()
    );
    let dir = DataDir::open(&args.data_dir)?;
    let cluster_id = clock::new_uid().0;
    let node = Node {
        name: args.name.clone(),
        peer_address: create::host_port(args.address, args.peer_port),
        api_url: format!("https://{}", create::host_port(args.address, args.api_port)),
        ..Node::default()
    };
    let archive = BufReader::new(File::open(&args.file)?);
    let (header, _) =
        archive::restore(archive, &dir.store(), &cluster_id, node).with_context(|| {
            format!(
                "the restore failed; remove {} before the next try",
                args.data_dir.display()
            )
        })?;
    let identity = MasterIdentity {
        cluster_id,
        member_id: header.member_id_max + 1,
        name: args.name.clone(),
        founder: false,
        opened: false,
        settings: keys.settings,
    };
    create::establish(&dir, &keys.authority, &identity, args.address)?;
    println!(
        "restored revision {} of cluster {} as the new cluster {}",
        header.revision, header.cluster_id, identity.cluster_id
    );
    println!(
        "next: control run --data-dir {} --name {} --address {}",
        args.data_dir.display(),
        args.name,
        args.address
    );
    println!(
        "then let the other masters join it with empty data directories: control run --join ... --token-file ..."
    );
    Ok(())
}

fn verified(file: &Path) -> Result<archive::Summary> {
    let opened =
        File::open(file).with_context(|| format!("cannot read the snapshot {}", file.display()))?;
    archive::verify(BufReader::new(opened))
        .with_context(|| format!("the snapshot {} cannot be used", file.display()))
}
