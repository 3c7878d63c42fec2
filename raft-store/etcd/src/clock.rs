//! Randomness: only for the ids of leases whose client leaves the choice to the store.

use mvcc::LeaseId;

/// A lease's id that nobody has chosen before; positive, as etcd's are.
pub fn lease_id() -> LeaseId {
    LeaseId(rand::random_range(1..i64::MAX))
}
