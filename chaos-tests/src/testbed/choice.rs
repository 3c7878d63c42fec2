//! Which store is tested, as it is typed: `control`, `etcd`, `etcd=PATH`.

use super::control::Control;
use super::etcd::{self, Etcd};
use super::target::Target;
use crate::cluster::Binaries;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Choice {
    /// Our masters.
    Control,
    /// An etcd.
    Etcd(PathBuf),
}

impl Choice {
    /// Reads what was typed.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None if text == "control" => Ok(Choice::Control),
            None if text == "etcd" => Ok(Choice::Etcd(PathBuf::from(etcd::PROGRAM))),
            Some(("etcd", path)) if !path.is_empty() => Ok(Choice::Etcd(PathBuf::from(path))),
            _ => bail!("{text:?} is no target; say control, etcd or etcd=PATH"),
        }
    }

    /// The target; `folder` is where it may keep what it needs.
    pub fn target(&self, folder: &Path) -> Result<Box<dyn Target>> {
        Ok(match self {
            Choice::Control => Box::new(Control::new(Binaries::find()?, folder)),
            Choice::Etcd(path) => Box::new(Etcd::at(path)?),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Control => f.write_str("control"),
            Choice::Etcd(path) if path == Path::new(etcd::PROGRAM) => f.write_str("etcd"),
            Choice::Etcd(path) => write!(f, "etcd={}", path.display()),
        }
    }
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Choice::parse(text)
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> String {
        choice.to_string()
    }
}

impl TryFrom<String> for Choice {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        Choice::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for text in ["control", "etcd", "etcd=/opt/etcd"] {
            assert_eq!(Choice::parse(text).expect("a target").to_string(), text);
        }
        for wrong in ["", "etcd=", "zookeeper", "control=/x"] {
            assert!(Choice::parse(wrong).is_err(), "{wrong}");
        }
    }
}
