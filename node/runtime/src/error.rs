//! What can go wrong, in words that an event or a container's status can carry.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of this crate. `reason` gives the word that a kubelet would put into a status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or the kernel refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The verb: "read", "mount".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An image reference that cannot be parsed.
    #[error("couldn't parse image name {reference:?}: {message}")]
    Reference {
        /// As it was given.
        reference: String,
        /// What is wrong with it.
        message: String,
    },
    /// The image is not on this node.
    #[error("image {0:?} is not present; pull or import it first")]
    ImageMissing(String),
    /// An archive or a layer is not what it should be.
    #[error("image {image}: {message}")]
    ImageDamaged {
        /// Reference, digest or path.
        image: String,
        /// What is wrong.
        message: String,
    },
    /// A registry did not give the image.
    #[error("failed to pull image {reference:?}: {message}")]
    Pull {
        /// The image.
        reference: String,
        /// What the registry or the network said.
        message: String,
    },
    /// There is no such pod on this node.
    #[error("pod {0} is not on this node")]
    NoPod(String),
    /// There is no such container in the pod.
    #[error("container {container} is not in pod {pod}")]
    NoContainer {
        /// The pod's UID.
        pod: String,
        /// The container's id.
        container: String,
    },
    /// The specification cannot be met.
    #[error("{0}")]
    Config(String),
    /// The container could not be started.
    #[error("failed to start container {name:?}: {message}")]
    Start {
        /// The container's name.
        name: String,
        /// Why, as the user can act on it.
        message: String,
    },
    /// The shim refused or cannot be reached.
    #[error("shim of pod {pod}: {message}")]
    Shim {
        /// The pod's UID.
        pod: String,
        /// What it said.
        message: String,
    },
    /// A command could not be started in a container.
    #[error("failed to exec in container: {0}")]
    Exec(String),
    /// It took too long.
    #[error("{what} did not end within {after:?}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// A volume could not be made.
    #[error("volume {name:?}: {message}")]
    Volume {
        /// The volume's name.
        name: String,
        /// Why.
        message: String,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` after a call on a path.
    pub fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            what,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// For `map_err` after a system call on a path.
    pub fn errno<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::Io {
            what,
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }

    /// The reason that a kubelet gives to a container that waits on this error.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Reference { .. } => "InvalidImageName",
            Error::ImageMissing(_) => "ErrImageNeverPull",
            Error::ImageDamaged { .. } => "ImageInspectError",
            Error::Pull { .. } => "ErrImagePull",
            Error::Config(_) => "CreateContainerConfigError",
            Error::Start { .. } => "RunContainerError",
            Error::Volume { .. } => "FailedMount",
            _ => "CreateContainerError",
        }
    }
}
