//! `metadata.managedFields`: what each manager owns and since when, as it is stored. Format: meta/v1 `ManagedFieldsEntry`.

use super::set::Set;
use super::update::{Managers, Owned};
use objects::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// How many entries of updates are kept apart; the oldest beyond them become one.
const UPDATE_ENTRIES_MAX: usize = 10;
/// The manager of that one.
const OLD_CHANGES: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By an apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who owns fields: an entry is one for each of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// How it wrote.
    pub operation: Operation,
    /// The `apiVersion` of an update. An applier has one entry, whatever version it applies by: empty.
    pub version: String,
    /// The subresource by which it wrote; empty for the object itself.
    pub subresource: String,
}

/// Why entries cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.managedFields[{index}]: {why}")]
pub struct EntryError {
    index: usize,
    why: String,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// What is owned by whom.
    pub owners: Managers<Manager>,
    /// When each wrote last.
    pub times: BTreeMap<Manager, Timestamp>,
}

impl Managed {
    /// Reads the entries of an object.
    pub fn decode(entries: &[Value]) -> Result<Self, EntryError> {
        let mut managed = Managed::default();
        for (index, entry) in entries.iter().enumerate() {
            let read = read_entry(entry).map_err(|why| EntryError { index, why })?;
            let (manager, owned, time) = read;
            if let Some(time) = time {
                managed.times.insert(manager.clone(), time);
            }
            managed.owners.insert(manager, owned);
        }
        Ok(managed)
    }

    /// The entries: applies before updates, the older before the newer.
    pub fn encode(&self) -> Vec<Value> {
        let mut owners: Vec<(&Manager, &Owned)> = self.owners.iter().collect();
        owners.sort_by(|(one, owned), (other, others)| {
            let rank = |manager: &Manager| (manager.operation, self.second(manager));
            rank(one)
                .cmp(&rank(other))
                .then_with(|| one.name.cmp(&other.name))
                .then_with(|| owned.version.cmp(&others.version))
                .then_with(|| one.subresource.cmp(&other.subresource))
        });
        let entries = owners.into_iter();
        entries
            .map(|(manager, owned)| self.encode_entry(manager, owned))
            .collect()
    }

    /// Makes one entry of the oldest updates while there are more than the bound allows.
    pub(super) fn cap_updates(&mut self) {
        let updates = self.owners.iter().filter(|(_, owned)| !owned.applied);
        let mut updates: Vec<Manager> = updates.map(|(manager, _)| manager.clone()).collect();
        updates.sort_by_key(|manager| (self.second(manager), manager.clone()));
        let mut left = updates.len();
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updates {
            if left <= UPDATE_ENTRIES_MAX {
                return;
            }
            let version = self.owners[&manager].version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            let bucket = Manager {
                name: OLD_CHANGES.to_owned(),
                operation: Operation::Update,
                version: version.clone(),
                subresource: String::new(),
            };
            if !self.owners.contains_key(&bucket)
                && let Some(owned) = self.owners.remove(first)
            {
                self.owners.insert(bucket.clone(), owned);
            }
            if let Some(owned) = self.owners.remove(&manager)
                && let Some(old) = self.owners.get_mut(&bucket)
            {
                old.set = old.set.union(&owned.set);
            }
            if let Some(time) = self.times.get(&manager) {
                self.times.insert(bucket, *time);
            }
            left -= 1;
        }
    }

    fn second(&self, manager: &Manager) -> i64 {
        let time = self.times.get(manager);
        time.map_or(0, |time| time.unix_ms().div_euclid(1000))
    }

    fn encode_entry(&self, manager: &Manager, owned: &Owned) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        put("manager", json!(manager.name));
        put("operation", json!(manager.operation.to_string()));
        put("apiVersion", json!(owned.version));
        if let Some(time) = self.times.get(manager) {
            put("time", json!(time));
        }
        put("fieldsType", json!("FieldsV1"));
        put("fieldsV1", owned.set.encode());
        if !manager.subresource.is_empty() {
            put("subresource", json!(manager.subresource));
        }
        Value::Object(entry)
    }
}

fn read_entry(entry: &Value) -> Result<(Manager, Owned, Option<Timestamp>), String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let version = text("apiVersion");
    if version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    if text("fieldsType") != "FieldsV1" {
        return Err(format!("invalid fieldsType {:?}", text("fieldsType")));
    }
    let manager = Manager {
        name: text("manager").to_owned(),
        operation,
        version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => version.to_owned(),
        },
        subresource: text("subresource").to_owned(),
    };
    let set = entry
        .get("fieldsV1")
        .map_or(Ok(Set::default()), Set::decode);
    let owned = Owned {
        set: set.map_err(|error| error.to_string())?,
        version: version.to_owned(),
        applied: operation == Operation::Apply,
    };
    Ok((manager, owned, Timestamp::parse(text("time"))))
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        })
    }
}

/// As conflicts name it: `"kubectl-edit" with subresource "status" using apps/v1`.
impl fmt::Display for Manager {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(out, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(out, " using {}", self.version)?;
        }
        Ok(())
    }
}

/// Whether both lists of entries say the same, but for the times.
pub fn same_but_times(one: &[Value], other: &[Value]) -> bool {
    let without_time = |entries: &[Value]| {
        let mut entries = entries.to_vec();
        for entry in &mut entries {
            if let Some(entry) = entry.as_object_mut() {
                entry.shift_remove("time");
            }
        }
        entries
    };
    one.len() == other.len() && without_time(one) == without_time(other)
}
