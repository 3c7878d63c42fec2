//! Where the programs under test are.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// The folder that names the programs, if not beside the harness.
pub const VARIABLE: &str = "TRIREME_BIN";

/// A folder with `control`, `node` and the others.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those of $TRIREME_BIN, else those beside this program (a test's programs are one folder up).
    pub fn find() -> Result<Self> {
        if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
            return Self::in_folder(Path::new(&folder));
        }
        let own = std::env::current_exe().context("this program does not know where it lies")?;
        let own = own.parent().context("a program lies in a folder")?;
        let folder = if own.ends_with("deps") {
            own.parent().unwrap_or(own)
        } else {
            own
        };
        Self::in_folder(folder)
    }

    /// Those of a folder.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let control = folder.join("control");
        ensure!(
            control.is_file(),
            "{} is missing; build it (cargo build -p trireme-server -p trireme-agent), or name the folder of the programs in ${VARIABLE}",
            control.display()
        );
        Ok(Binaries {
            folder: folder.to_owned(),
        })
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The version that `control` tells of itself.
    pub fn version(&self) -> String {
        let control = self.path("control").display().to_string();
        match super::run_with_input(&control, &["--version"], None) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => format!("unknown: {error:#}"),
        }
    }
}
