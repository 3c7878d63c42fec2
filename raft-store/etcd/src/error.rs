//! etcd's errors: what its clients compare, code and text. The list is that of etcd's `rpctypes`.

use mvcc::StoreError;
use raft_store::MembershipError;
use tonic::{Code, Status};

/// An error of etcd's: a code and a text that its clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdError(Code, &'static str);

macro_rules! errors {
    ($($name:ident = $code:ident, $text:literal;)*) => {
        $(pub const $name: EtcdError = EtcdError(Code::$code, concat!("etcdserver: ", $text));)*
    };
}

errors! {
    EMPTY_KEY = InvalidArgument, "key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "key not found";
    VALUE_PROVIDED = InvalidArgument, "value is provided";
    LEASE_PROVIDED = InvalidArgument, "lease is provided";
    TOO_MANY_OPS = InvalidArgument, "too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument, "duplicate key given in txn request";
    COMPACTED = OutOfRange, "mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange, "mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted, "mvcc: database space exceeded";
    LEASE_NOT_FOUND = NotFound, "requested lease not found";
    LEASE_EXISTS = FailedPrecondition, "lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange, "too large lease TTL";
    MEMBER_EXISTS = FailedPrecondition, "member ID already exist";
    PEER_URL_EXISTS = FailedPrecondition, "Peer URLs already exists";
    NOT_ENOUGH_STARTED = FailedPrecondition, "re-configuration failed due to not enough started members";
    BAD_MEMBER_URLS = InvalidArgument, "given member URLs are invalid";
    MEMBER_NOT_FOUND = NotFound, "member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition, "can only promote a learner member";
    LEARNER_NOT_READY = FailedPrecondition, "can only promote a learner member which is in sync with leader";
    REQUEST_TOO_LARGE = InvalidArgument, "request is too large";
    TOO_MANY_REQUESTS = ResourceExhausted, "too many requests";
    AUTH_NOT_ENABLED = FailedPrecondition, "authentication is not enabled";
    NO_LEADER = Unavailable, "no leader";
    NOT_LEADER = FailedPrecondition, "not leader";
    STOPPED = Unavailable, "server stopped";
    TIMEOUT = Unavailable, "request timed out";
    UNHEALTHY = Unavailable, "unhealthy cluster";
    BAD_LEADER_TRANSFEREE = FailedPrecondition, "bad leader transferee";
    INVALID_DOWNGRADE_TARGET = InvalidArgument, "invalid downgrade target version";
    NO_INFLIGHT_DOWNGRADE = FailedPrecondition, "no inflight downgrade job";
}

impl EtcdError {
    /// The text alone, for answers that carry an error in a field.
    pub fn text(self) -> &'static str {
        self.1
    }
}

impl From<EtcdError> for Status {
    fn from(EtcdError(code, text): EtcdError) -> Self {
        Status::new(code, text)
    }
}

/// The store's error as etcd tells it; what etcd has no word for goes to the log.
pub fn status_of(error: StoreError) -> Status {
    let known = match error {
        StoreError::Compacted { .. } => COMPACTED,
        StoreError::FutureRevision { .. } => FUTURE_REVISION,
        StoreError::TooLarge { .. } => REQUEST_TOO_LARGE,
        StoreError::NoSpace => NO_SPACE,
        StoreError::LeaseNotFound => LEASE_NOT_FOUND,
        StoreError::LeaseExists => LEASE_EXISTS,
        StoreError::Busy => TOO_MANY_REQUESTS,
        StoreError::EmptyKey => EMPTY_KEY,
        StoreError::KeyNotFound => KEY_NOT_FOUND,
        StoreError::DuplicateKey => DUPLICATE_KEY,
        StoreError::TooManyOps { .. } => TOO_MANY_OPS,
        StoreError::ShuttingDown => STOPPED,
        StoreError::Unavailable(reason) => {
            tracing::debug!(reason, "a request of an etcd client timed out");
            TIMEOUT
        }
        // Nothing that an etcd client can ask is fenced or slow; whatever else is refused says why itself.
        StoreError::Fenced { .. } | StoreError::SlowWatcher | StoreError::Refused(_) => {
            return Status::unknown(format!("etcdserver: {error}"));
        }
    };
    known.into()
}

/// Why the members were not changed, as etcd tells it.
pub fn membership_status(error: &MembershipError) -> Status {
    let known = match error {
        MembershipError::NameTaken(_)
        | MembershipError::AlreadyBegun
        | MembershipError::Alive(_) => MEMBER_EXISTS,
        MembershipError::AddressTaken(..) => PEER_URL_EXISTS,
        MembershipError::Unknown(_) => MEMBER_NOT_FOUND,
        MembershipError::WouldLoseQuorum { .. } | MembershipError::LastVoter(_) => {
            NOT_ENOUGH_STARTED
        }
        MembershipError::InProgress => UNHEALTHY,
        MembershipError::NotCaughtUp(_) => LEARNER_NOT_READY,
        MembershipError::VotesAlready(_) => MEMBER_NOT_LEARNER,
        MembershipError::NotTransferred(_) | MembershipError::Unavailable(_) => TIMEOUT,
    };
    tracing::warn!(%error, "an etcd client's change of the members was not done");
    known.into()
}
