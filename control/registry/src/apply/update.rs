//! Who owns what after a write, and what an apply makes of an object. Rules: structured-merge-diff's `merge` package.
//!
//! A write that is no apply takes what it changes. An apply takes all that it names, gives up what it named the last time
//! and names no more (which is removed, unless somebody else owns it), and is refused where it would change what others own.

use super::compare::Comparison;
use super::element::{Path, equal};
use super::schema::Type;
use super::set::Set;
use super::walk::Fault;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The fields, as its version names them.
    pub set: Set,
    /// The `apiVersion` by which it wrote.
    pub version: String,
    /// Whether it applied.
    pub applied: bool,
}

/// What each manager owns.
pub type Managers<K> = BTreeMap<K, Owned>;

/// An object with its type.
#[derive(Clone, Debug)]
pub struct Typed<'s> {
    /// The object; null when there is none yet.
    pub value: Value,
    /// Its type.
    pub r#type: Type<'s>,
    /// Its `apiVersion`.
    pub version: String,
}

/// An object in other versions than the one at hand.
pub trait Versions<'s> {
    /// The object as `version` has it; None when that version is not known any more.
    fn convert(&self, object: &Typed<'s>, version: &str) -> Result<Option<Typed<'s>>, Fault>;
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict<K> {
    /// The owner.
    pub manager: K,
    /// The field.
    pub path: Path,
}

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError<K> {
    /// Others own fields that it would change; every one of them.
    #[error("{} conflicts", .0.len())]
    Conflicts(Vec<Conflict<K>>),
    /// A value does not fit its type.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// Fields that are nobody's, by `apiVersion`: what a write of this part of an object cannot change.
pub type Ignored = BTreeMap<String, Set>;

/// A write on its way.
pub struct Writer<'a, 's, K> {
    /// The object as it is.
    pub live: &'a Typed<'s>,
    /// Who writes.
    pub manager: &'a K,
    /// Other versions.
    pub versions: &'a dyn Versions<'s>,
    /// What nobody owns.
    pub ignored: &'a Ignored,
}

impl<'s, K: Ord + Clone> Writer<'_, 's, K> {
    /// Who owns what after the object became `new` by a write that is no apply.
    pub fn update(&self, new: &Typed<'s>, managers: Managers<K>) -> Result<Managers<K>, Fault> {
        let managers = self.reconciled(managers)?;
        let (mut managers, change) =
            self.take(new, managers, true)
                .map_err(|error| match error {
                    ApplyError::Fault(fault) => fault,
                    ApplyError::Conflicts(_) => {
                        Fault::new("a write that takes by force had conflicts")
                    }
                })?;
        let owned = managers.remove(self.manager);
        let set = owned.map(|owned| owned.set).unwrap_or_default();
        let set = set
            .difference(&change.removed)
            .union(&change.modified)
            .union(&change.added);
        let set = self.without_ignored(set, &new.version);
        if !set.is_empty() {
            let owned = Owned {
                set,
                version: new.version.clone(),
                applied: false,
            };
            managers.insert(self.manager.clone(), owned);
        }
        Ok(managers)
    }

    /// What the object becomes by applying `config`, and who owns what then. None when it stays as it is.
    pub fn apply(
        &self,
        config: &Typed<'s>,
        managers: Managers<K>,
        force: bool,
    ) -> Result<(Option<Value>, Managers<K>), ApplyError<K>> {
        let mut managers = self.reconciled(managers)?;
        let merged = Typed {
            value: config.r#type.merge(&self.live.value, &config.value)?,
            ..config.clone()
        };
        let set = config.r#type.field_set(&config.value)?;
        let owned = Owned {
            set: self.without_ignored(set, &config.version),
            version: config.version.clone(),
            applied: true,
        };
        let last = managers.insert(self.manager.clone(), owned);
        let new = match last.filter(|last| !last.set.is_empty()) {
            Some(last) => self.prune(merged, &managers, &last)?,
            None => merged,
        };
        let (managers, _) = self.take(&new, managers, force)?;
        let is_same = equal(&self.live.value, &new.value);
        Ok(((!is_same).then_some(new.value), managers))
    }

    fn without_ignored(&self, set: Set, version: &str) -> Set {
        match self.ignored.get(version) {
            Some(ignored) => set.recursive_difference(ignored),
            None => set,
        }
    }

    fn convert<'o>(
        &self,
        object: &'o Typed<'s>,
        version: &str,
    ) -> Result<Option<Cow<'o, Typed<'s>>>, Fault> {
        if object.version == version {
            return Ok(Some(Cow::Borrowed(object)));
        }
        Ok(self.versions.convert(object, version)?.map(Cow::Owned))
    }

    /// Brings what managers own into line with the types as they are now.
    fn reconciled(&self, managers: Managers<K>) -> Result<Managers<K>, Fault> {
        let mut reconciled = Managers::new();
        for (manager, mut owned) in managers {
            // What an unknown version owned is forgotten.
            if let Some(live) = self.convert(self.live, &owned.version)? {
                owned.set = live.r#type.reconcile(&owned.set)?;
                reconciled.insert(manager, owned);
            }
        }
        Ok(reconciled)
    }

    /// Takes from all other managers what changes from the live object to `new`. Without force, they must agree.
    fn take(
        &self,
        new: &Typed<'s>,
        mut managers: Managers<K>,
        force: bool,
    ) -> Result<(Managers<K>, Comparison), ApplyError<K>> {
        let mut changes: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let own = self.change(new, &new.version)?;
        changes.insert(new.version.clone(), own.clone());
        let mut conflicts = Vec::new();
        for (manager, owned) in &mut managers {
            if manager == self.manager {
                continue;
            }
            if !changes.contains_key(&owned.version) {
                let change = self.change(new, &owned.version)?;
                changes.insert(owned.version.clone(), change);
            }
            let Some(Some(change)) = changes.get(&owned.version) else {
                owned.set = Set::default(); // Of a version that is not known any more.
                continue;
            };
            let lost = owned
                .set
                .intersection(&change.modified.union(&change.added));
            conflicts.extend(lost.paths().into_iter().map(|path| Conflict {
                manager: manager.clone(),
                path,
            }));
            owned.set = owned.set.difference(&lost).difference(&change.removed);
        }
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        managers.retain(|_, owned| !owned.set.is_empty());
        Ok((managers, own.unwrap_or_default()))
    }

    /// What changes from the live object to `new`, as a version sees it.
    fn change(&self, new: &Typed<'s>, version: &str) -> Result<Option<Comparison>, Fault> {
        let (Some(old), Some(new)) = (
            self.convert(self.live, version)?,
            self.convert(new, version)?,
        ) else {
            return Ok(None);
        };
        let change = new.r#type.compare(&old.value, &new.value)?;
        Ok(Some(match self.ignored.get(version) {
            Some(ignored) => change.without(ignored),
            None => change,
        }))
    }

    /// Removes what this manager applied the last time and does not apply now, unless somebody else owns it.
    fn prune(
        &self,
        merged: Typed<'s>,
        managers: &Managers<K>,
        last: &Owned,
    ) -> Result<Typed<'s>, Fault> {
        let version = merged.version.clone();
        let Some(merged) = self.convert(&merged, &last.version)?.map(Cow::into_owned) else {
            return Ok(merged);
        };
        let r#type = merged.r#type;
        let named = |set: &Set| set.with_named_fields(Some(r#type));
        let mut pruned = merged.clone();
        pruned.value = r#type.remove(&merged.value, &named(&last.set));
        let pruned = self.with_owned(&merged, pruned, managers, &last.version)?;
        // What others own by an update, or nobody owns, stays as well.
        let Some(pruned) = self.convert(&pruned, &last.version)? else {
            return Ok(merged);
        };
        let gone = named(&r#type.field_set(&merged.value)?)
            .difference(&named(&pruned.r#type.field_set(&pruned.value)?))
            .intersection(&named(&last.set));
        let pruned = Typed {
            value: r#type.remove(&merged.value, &gone),
            ..merged
        };
        Ok(match self.convert(&pruned, &version)? {
            Some(converted) => converted.into_owned(),
            None => pruned,
        })
    }

    /// Gives back what was pruned although a manager owns it, version by version; that of the pruning comes first, since a
    /// conversion may need what was pruned.
    fn with_owned(
        &self,
        merged: &Typed<'s>,
        mut pruned: Typed<'s>,
        managers: &Managers<K>,
        first: &str,
    ) -> Result<Typed<'s>, Fault> {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for manager in managers.values() {
            let all = owned.entry(&manager.version).or_default();
            *all = all.union(&manager.set);
        }
        let first = owned.remove_entry(first);
        let mut merged = Cow::Borrowed(merged);
        for (version, set) in first.into_iter().chain(owned) {
            let converted = self.convert(&merged, version)?.map(Cow::into_owned);
            let Some(converted) = converted else { continue };
            let Some(old) = self.convert(&pruned, version)? else {
                merged = Cow::Owned(converted);
                continue;
            };
            let r#type = converted.r#type;
            let named = |set: &Set| set.with_named_fields(Some(r#type));
            let kept = named(&r#type.field_set(&old.value)?).union(&named(&set));
            let gone = named(&r#type.field_set(&converted.value)?).difference(&kept);
            pruned = Typed {
                value: r#type.remove(&converted.value, &gone),
                ..converted.clone()
            };
            merged = Cow::Owned(converted);
        }
        Ok(pruned)
    }
}
