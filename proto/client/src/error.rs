//! Why a call failed, told so that the caller knows whether it may have taken effect.

use objects::Status;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure.
    #[error("{0}")]
    Api(Box<Status>),
    /// No master could be reached; nothing was sent.
    #[error(
        "cannot reach the API server at {servers}: {reason}; check that the masters run and that the address is right"
    )]
    Unreachable {
        /// The URLs that were tried.
        servers: String,
        /// What the last attempt ran into.
        reason: String,
    },
    /// A master answered whose certificate is not of the expected CA; it was told nothing.
    #[error(
        "{server} is not trusted: its certificate is not of the CA that the kubeconfig or the join token names ({reason}); \
         is it a master of another cluster?"
    )]
    Untrusted {
        /// The master asked.
        server: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The connection broke, or the deadline passed, after the request was sent.
    #[error("{server} did not answer {what}: {reason}")]
    Interrupted {
        /// The master asked.
        server: String,
        /// Method and path.
        what: String,
        /// What happened.
        reason: String,
        /// Whether the request changes something, so that it may have taken effect.
        write: bool,
    },
    /// The answer is not what the API promises.
    #[error("{server} answered {what} with something unreadable: {reason}")]
    Unreadable {
        /// The master asked.
        server: String,
        /// Method and path.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client's own settings are wrong.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
}

impl Error {
    /// The API's failure, if it was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the API answered with this HTTP code.
    pub fn is_code(&self, code: u16) -> bool {
        self.status().is_some_and(|status| status.code == code)
    }

    /// Whether a write may or may not have taken effect.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Interrupted { write, .. } => *write,
            Error::Api(status) => matches!(status.code, 500 | 503 | 504),
            _ => false,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Api(Box::new(status))
    }
}
