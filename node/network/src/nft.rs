//! One nftables table as a value, the transaction from one such value to another, and the `nft` process that commits it.
//!
//! The text is nft's own language, read by `nft -f -`, which commits a whole file or nothing. Names and elements are made
//! of addresses, protocols and numbers only, never of what a user wrote, so that nothing needs quoting. Sets that the
//! kernel fills (`dynamic`) are never compared: only what we put there is ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long `nft` may take for one transaction.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// Elements a command: nft's parser slows down on very long lines.
const ELEMENTS_PER_COMMAND: usize = 500;

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` could not be run.
    #[error("cannot run nft: {0}; install the package nftables")]
    Spawn(#[source] std::io::Error),
    /// `nft` refused the transaction; nothing has changed.
    #[error("nft {status}: {message}")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// What it said first.
        message: String,
    },
    /// `nft` did not end.
    #[error("nft did not end within {} s and was killed; nothing has changed", COMMIT_WITHIN.as_secs())]
    Timeout,
}

/// A table of the family `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
}

/// A chain and its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `type ... hook ... priority ...; policy ...;` of a base chain.
    pub base: Option<String>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// A set, or a map where elements have values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// `set` or `map`.
    pub kind: &'static str,
    /// `type ...;` and flags.
    pub spec: String,
    /// Key to value; sets have empty values.
    pub elements: BTreeMap<String, String>,
}

impl Table {
    /// Adds a chain that is reached by a jump.
    pub fn chain(&mut self, name: impl Into<String>, rules: Vec<String>) {
        self.chains.insert(name.into(), Chain { base: None, rules });
    }

    /// Adds a chain that the kernel calls.
    pub fn base_chain(&mut self, name: &str, base: &str, rules: Vec<String>) {
        self.chains.insert(
            name.into(),
            Chain {
                base: Some(base.into()),
                rules,
            },
        );
    }

    /// Adds an empty set or map.
    pub fn set(&mut self, kind: &'static str, name: impl Into<String>, spec: impl Into<String>) {
        self.sets.insert(
            name.into(),
            Set {
                kind,
                spec: spec.into(),
                elements: BTreeMap::new(),
            },
        );
    }

    /// Adds an element to a set that is there.
    pub fn element(&mut self, set: &str, key: String, value: impl Into<String>) {
        let set = self
            .sets
            .get_mut(set)
            .expect("the caller adds the set before its elements");
        set.elements.insert(key, value.into());
    }
}

/// The transaction that puts `table` in place of whatever has its name.
pub fn replace(name: &str, table: &Table) -> String {
    // The first line makes sure that there is something to delete.
    let mut script = format!("table ip {name}\ndelete table ip {name}\ntable ip {name}\n");
    add(&mut script, name, &Table::default(), table);
    script
}

/// The transaction that removes the table, if it is there.
pub fn remove(name: &str) -> String {
    format!("table ip {name}\ndelete table ip {name}\n")
}

/// The transaction from `old` to `new`; empty if they are equal.
pub fn diff(name: &str, old: &Table, new: &Table) -> String {
    let same_shape = |name: &String, chain: &Chain| {
        new.chains
            .get(name)
            .is_none_or(|now| now.base == chain.base)
    };
    let same_spec =
        |name: &String, set: &Set| new.sets.get(name).is_none_or(|now| now.spec == set.spec);
    let comparable = old
        .chains
        .iter()
        .all(|(name, chain)| same_shape(name, chain))
        && old.sets.iter().all(|(name, set)| same_spec(name, set));
    if !comparable {
        return replace(name, new);
    }
    let mut script = String::new();
    add(&mut script, name, old, new);
    for chain in old
        .chains
        .keys()
        .filter(|chain| !new.chains.contains_key(*chain))
    {
        line(&mut script, format_args!("delete chain ip {name} {chain}"));
    }
    for (set, old) in old
        .sets
        .iter()
        .filter(|(set, _)| !new.sets.contains_key(*set))
    {
        line(
            &mut script,
            format_args!("delete {} ip {name} {set}", old.kind),
        );
    }
    script
}

/// Everything but the removal of chains and sets, in the order in which references stay valid: declare, unlink, empty,
/// fill, link.
fn add(script: &mut String, name: &str, old: &Table, new: &Table) {
    for (set, new) in new
        .sets
        .iter()
        .filter(|(set, _)| !old.sets.contains_key(*set))
    {
        line(
            script,
            format_args!("add {} ip {name} {set} {{ {} }}", new.kind, new.spec),
        );
    }
    for (chain, new) in new
        .chains
        .iter()
        .filter(|(chain, _)| !old.chains.contains_key(*chain))
    {
        match &new.base {
            Some(base) => line(
                script,
                format_args!("add chain ip {name} {chain} {{ {base} }}"),
            ),
            None => line(script, format_args!("add chain ip {name} {chain}")),
        }
    }
    for (set, old) in &old.sets {
        let Some(new) = new.sets.get(set) else {
            continue;
        };
        let stale = old
            .elements
            .iter()
            .filter(|(key, value)| new.elements.get(*key) != Some(value));
        elements(script, format!("delete element ip {name} {set}"), stale);
    }
    for (chain, old) in &old.chains {
        if new
            .chains
            .get(chain)
            .is_none_or(|new| new.rules != old.rules)
        {
            line(script, format_args!("flush chain ip {name} {chain}"));
        }
    }
    for (chain, new) in &new.chains {
        if old
            .chains
            .get(chain)
            .is_none_or(|old| old.rules != new.rules)
        {
            for rule in &new.rules {
                line(script, format_args!("add rule ip {name} {chain} {rule}"));
            }
        }
    }
    for (set, new) in &new.sets {
        let present = old.sets.get(set);
        let is_missing = |key: &String, value: &String| {
            present.and_then(|old| old.elements.get(key)) != Some(value)
        };
        let missing = new
            .elements
            .iter()
            .filter(|(key, value)| is_missing(key, value));
        elements(script, format!("add element ip {name} {set}"), missing);
    }
}

fn elements<'a>(
    script: &mut String,
    command: String,
    elements: impl Iterator<Item = (&'a String, &'a String)>,
) {
    let texts: Vec<String> = elements
        .map(|(key, value)| {
            if value.is_empty() {
                key.clone()
            } else {
                format!("{key} : {value}")
            }
        })
        .collect();
    for chunk in texts.chunks(ELEMENTS_PER_COMMAND) {
        line(script, format_args!("{command} {{ {} }}", chunk.join(", ")));
    }
}

fn line(script: &mut String, arguments: std::fmt::Arguments<'_>) {
    script
        .write_fmt(arguments)
        .expect("writing to a string cannot fail");
    script.push('\n');
}

/// Commits a transaction in the network namespace of the calling thread.
pub async fn commit(script: &str) -> Result<(), Error> {
    match tokio::time::timeout(COMMIT_WITHIN, run(&["-f", "-"], script)).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(Error::Timeout),
    }
}

/// True if the kernel has a table of that name with `chain` in it.
pub async fn is_present(name: &str, chain: &str) -> Result<bool, Error> {
    let arguments = ["list", "chain", "ip", name, chain];
    match tokio::time::timeout(COMMIT_WITHIN, run(&arguments, "")).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(Error::Refused { .. })) => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Timeout),
    }
}

async fn run(arguments: &[&str], input: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Spawn)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // nft reads everything before it writes anything, so writing first cannot block for ever.
    let written = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(Error::Spawn)?;
    if output.status.success() {
        return written.map_err(Error::Spawn);
    }
    let message = String::from_utf8_lossy(&output.stderr)
        .lines()
        .take(3)
        .collect::<Vec<_>>()
        .join(" | ");
    Err(Error::Refused {
        status: output.status,
        message,
    })
}
