//! Makes a new cluster of a snapshot.
//!
//! The restored cluster has a new identity, so that members of the old one that still run cannot speak to it, and a revision far
//! ahead, so that watchers from before are told to list again.

use crate::cli::Restore;
use crate::settings::{DataDir, MasterIdentity, STORE};
use crate::source::Source;
use crate::{clock, create, vault, verify};
use anyhow::{Context, Result, ensure};
use raft_store::archive;
use raft_store::types::Node;
use std::io::BufReader;
use std::path::Path;

/// Makes a master of the snapshot. Everything is checked before anything is written.
pub fn restore(args: &Restore) -> Result<()> {
    ensure!(
        DataDir::is_vacant(&args.data_dir)?,
        "the data directory {} is not empty: a restore never overwrites; move it away first",
        args.data_dir.display()
    );
    // Beside the data directory, where there must be room for what it holds.
    let beside = args
        .data_dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let source = Source::open(&args.file, &args.s3, beside)?;
    let sealed = verify::checked(&source)?.extra.context(
        "the snapshot was saved without the cluster's keys, so no node and no client would trust what is restored; \
         use one that was saved with --passphrase-file or --key-file",
    )?;
    let opener = vault::opener(
        args.opener.passphrase_file.as_deref(),
        args.opener.key_file.as_deref(),
    )?;
    let keys = vault::unlock(&sealed, &opener)?;
    let state_key = keys.state_key()?;
    let dir = DataDir::open(&args.data_dir)?;
    let cluster_id = clock::new_uid().0;
    let node = Node {
        name: args.name.clone(),
        peer_address: create::host_port(args.address, args.peer_port),
        api_url: format!("https://{}", create::host_port(args.address, args.api_port)),
        ..Node::default()
    };
    let archive = BufReader::new(source.read()?);
    let store = dir.root().join(STORE);
    let restored = archive::restore(archive, state_key.as_ref(), &store, &cluster_id, node)
        .with_context(|| {
            format!(
                "the restore failed; remove {} before the next try",
                args.data_dir.display()
            )
        })?;
    let identity = MasterIdentity {
        cluster_id,
        member_id: restored.member_id,
        name: args.name.clone(),
        founder: false,
        opened: false,
        settings: keys.settings,
        store: None,
    };
    create::establish(&dir, &keys.authority, &identity, args.address)?;
    println!(
        "restored revision {} of cluster {} as the new cluster {}",
        restored.header.revision, restored.header.cluster_id, identity.cluster_id
    );
    println!(
        "next: control run --data-dir {} --name {} --address {}",
        args.data_dir.display(),
        args.name,
        args.address
    );
    println!(
        "then let the other masters join it: control run --join ... --token-file ... --rejoin, which sets aside what they held before"
    );
    Ok(())
}
