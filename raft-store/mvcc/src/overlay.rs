//! Writes that wait over the tables they will go to: many entries are applied to one overlay and then written as one batch.
//!
//! Whoever applies reads through the overlay, so that each entry sees those before it. Nothing reaches the tables below
//! until their owner writes what [`Overlay::into_writes`] gives.

use crate::meta::Meta;
use crate::tables::{Table, Tables, TablesError, Visit, Write, is_empty};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

type Pending = BTreeMap<Bytes, Option<Bytes>>;

/// The tables of `base` with writes over them.
pub struct Overlay<'a, T: ?Sized> {
    base: &'a T,
    pending: [Pending; Table::ALL.len()],
    meta: Meta,
    meta_written: Meta,
}

impl<'a, T: Tables + ?Sized> Overlay<'a, T> {
    /// Nothing over `base` yet.
    pub fn new(base: &'a T) -> Result<Self, TablesError> {
        let meta = Meta::load(base)?;
        Ok(Overlay {
            base,
            pending: Default::default(),
            meta: meta.clone(),
            meta_written: meta,
        })
    }

    /// The store's numbers, with what was applied so far.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    /// Writes `value` under `key`. The owner of the tables may keep numbers of its own in [`Table::Meta`] in the same batch.
    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.pending[table.number()].insert(key, Some(value));
    }

    /// Deletes `key`.
    pub fn delete(&mut self, table: Table, key: Bytes) {
        self.pending[table.number()].insert(key, None);
    }

    /// Everything to be written, in no order that matters: each key of a table comes once.
    pub fn into_writes(mut self) -> Vec<Write> {
        if self.meta != self.meta_written {
            let (key, value) = self.meta.record();
            self.put(Table::Meta, key, value);
        }
        let mut writes = Vec::with_capacity(self.pending.iter().map(BTreeMap::len).sum());
        for (table, pending) in Table::ALL.into_iter().zip(self.pending) {
            writes.extend(
                pending
                    .into_iter()
                    .map(|(key, value)| Write { table, key, value }),
            );
        }
        writes
    }
}

impl<T: Tables + ?Sized> Tables for Overlay<'_, T> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        match self.pending[table.number()].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        if is_empty(start, end) {
            return Ok(());
        }
        let range = self.pending[table.number()].range::<[u8], _>((start, end));
        if reverse {
            self.merge(
                table,
                (start, end),
                true,
                &mut range.rev().peekable(),
                visit,
            )
        } else {
            self.merge(table, (start, end), false, &mut range.peekable(), visit)
        }
    }
}

impl<T: Tables + ?Sized> Overlay<'_, T> {
    /// Visits the waiting writes and the base's keys as one ordered sequence; a waiting write hides the base's key.
    fn merge<'p>(
        &self,
        table: Table,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        pending: &mut std::iter::Peekable<impl Iterator<Item = (&'p Bytes, &'p Option<Bytes>)>>,
        visit: Visit<'_>,
    ) -> Result<(), TablesError> {
        let mut flow = ControlFlow::Continue(());
        self.base
            .scan(table, start, end, reverse, &mut |key, value| {
                let is_before = |waiting: &[u8]| {
                    if reverse {
                        waiting > key
                    } else {
                        waiting < key
                    }
                };
                while let Some((waiting, write)) =
                    pending.next_if(|(waiting, _)| is_before(waiting))
                {
                    if let Some(written) = write {
                        flow = visit(waiting, written);
                        flow?;
                    }
                }
                flow = match pending.next_if(|(waiting, _)| waiting[..] == *key) {
                    Some((_, Some(written))) => visit(key, written),
                    Some((_, None)) => ControlFlow::Continue(()),
                    None => visit(key, value),
                };
                flow
            })?;
        if flow.is_break() {
            return Ok(());
        }
        for (waiting, write) in pending {
            if let Some(written) = write
                && visit(waiting, written).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::MemTables;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn write() -> impl Strategy<Value = Write> {
        (vec(0u8..3, 0..3), proptest::option::of(any::<u8>())).prop_map(|(key, value)| Write {
            table: Table::Latest,
            key: key.into(),
            value: value.map(|byte| Bytes::from(vec![byte])),
        })
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![
            Just(Bound::Unbounded),
            vec(0u8..3, 0..3).prop_map(Bound::Included),
            vec(0u8..3, 0..3).prop_map(Bound::Excluded),
        ]
    }

    fn scan(
        tables: &impl Tables,
        bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>),
        reverse: bool,
        rows_max: usize,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (start, end) = (
            bounds.0.as_ref().map(Vec::as_slice),
            bounds.1.as_ref().map(Vec::as_slice),
        );
        let mut rows = vec![];
        tables
            .scan(Table::Latest, start, end, reverse, &mut |key, value| {
                assert!(rows.len() < rows_max, "nothing is visited after a break");
                rows.push((key.to_vec(), value.to_vec()));
                if rows.len() == rows_max {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        rows
    }

    proptest! {
        #[test]
        fn it_reads_as_if_all_were_written(
            base in vec(write(), 0..12),
            over in vec(write(), 0..12),
            bounds in (bound(), bound()),
            reverse in any::<bool>(),
            rows_max in 1usize..8,
        ) {
            let mut tables = MemTables::default();
            tables.write(base);
            let mut overlay = Overlay::new(&tables).unwrap();
            for Write { table, key, value } in over.clone() {
                match value {
                    Some(value) => overlay.put(table, key, value),
                    None => overlay.delete(table, key),
                }
            }
            let mut written = tables.clone();
            written.write(over.clone());
            prop_assert_eq!(
                scan(&overlay, &bounds, reverse, rows_max),
                scan(&written, &bounds, reverse, rows_max)
            );
            for Write { table, key, .. } in &over {
                prop_assert_eq!(overlay.get(*table, key).unwrap(), written.get(*table, key).unwrap());
            }
            let writes = overlay.into_writes();
            tables.write(writes);
            prop_assert_eq!(tables, written);
        }
    }
}
