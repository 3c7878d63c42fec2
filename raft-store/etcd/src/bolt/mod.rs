//! The database file of bbolt, in which etcd keeps its state: written once, from front to back, never read.
//!
//! ```text
//! page 0, 1   meta: where the root is, how many pages there are; with a checksum
//! page 2      the list of free pages: none
//! page 3      the root: a leaf that names the buckets and where the root of each is
//! then, for each bucket, its leaves in order and the branches over them, level by level
//! ```
//!
//! Numbers are little-endian. A page begins with a head of 16 bytes; its elements follow, each with its place relative to itself,
//! then their keys and values. The first pages tell where the last ones are, so a bucket is read twice: once to measure it.

mod page;
mod state;

pub use state::write_state;

use page::{Branch, Leaf, PAGE_BYTES};
use std::io;

/// The first page behind those that every file has.
const FIRST_FREE: u64 = 4;

/// Takes an item: its key and its value.
type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>;
/// Visits the items of a bucket in the order of their keys; twice, with the same items.
type Scan<'s> = &'s dyn Fn(Visit<'_>) -> io::Result<()>;

/// Where a bucket's pages are.
struct Layout {
    /// The first key of each page of a level and the page's number; the leaves come first, the root's level is the last.
    levels: Vec<Vec<(Vec<u8>, u64)>>,
    /// The page after its last.
    end: u64,
}

/// Writes a file with these buckets, in the order of their names.
fn write(buckets: &[(&str, Scan<'_>)], out: &mut dyn io::Write) -> io::Result<()> {
    debug_assert!(buckets.is_sorted_by_key(|(name, _)| *name));
    let (mut layouts, mut next) = (vec![], FIRST_FREE);
    for (_, scan) in buckets {
        let layout = measure(*scan, next)?;
        next = layout.end;
        layouts.push(layout);
    }
    for number in [0, 1] {
        out.write_all(&page::meta(number, next))?;
    }
    out.write_all(&page::no_free_pages())?;
    let mut root = Leaf::new(page::ROOT);
    for ((name, _), layout) in buckets.iter().zip(&layouts) {
        root.push_bucket(name.as_bytes(), layout.root());
    }
    out.write_all(&root.finish())?;
    for ((_, scan), layout) in buckets.iter().zip(&layouts) {
        write_leaves(*scan, layout, out)?;
        write_branches(layout, out)?;
    }
    Ok(())
}

impl Layout {
    /// None for an empty bucket, which has no pages.
    fn root(&self) -> Option<u64> {
        let (_, page) = self.levels.last()?.first()?;
        Some(*page)
    }
}

fn measure(scan: Scan<'_>, first: u64) -> io::Result<Layout> {
    let (mut leaves, mut next) = (vec![], first);
    let mut leaf: Option<page::Measured> = None;
    scan(&mut |key, value| {
        if !leaf.as_mut().is_some_and(|leaf| leaf.takes(key, value)) {
            next += leaf.take().map_or(0, |leaf| leaf.pages());
            leaves.push((key.to_vec(), next));
            leaf = Some(page::Measured::of(key, value));
        }
        Ok(())
    })?;
    next += leaf.map_or(0, |leaf| leaf.pages());
    let mut levels = vec![leaves];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        let mut level = vec![];
        for children in groups(below) {
            level.push((children[0].0.clone(), next));
            next += 1;
        }
        levels.push(level);
    }
    Ok(Layout { levels, end: next })
}

fn write_leaves(scan: Scan<'_>, layout: &Layout, out: &mut dyn io::Write) -> io::Result<()> {
    let mut numbers = layout.levels[0].iter().map(|(_, page)| *page);
    let mut leaf: Option<Leaf> = None;
    scan(&mut |key, value| {
        if !leaf.as_mut().is_some_and(|leaf| leaf.takes(key, value)) {
            if let Some(full) = leaf.take() {
                out.write_all(&full.finish())?;
            }
            let number = numbers.next().ok_or_else(changed)?;
            leaf = Some(Leaf::new(number));
        }
        if let Some(leaf) = &mut leaf {
            leaf.push(key, value);
        }
        Ok(())
    })?;
    if let Some(last) = leaf {
        out.write_all(&last.finish())?;
    }
    match numbers.next() {
        None => Ok(()),
        Some(_) => Err(changed()),
    }
}

fn write_branches(layout: &Layout, out: &mut dyn io::Write) -> io::Result<()> {
    for (below, level) in layout.levels.iter().zip(layout.levels.iter().skip(1)) {
        for (children, (_, number)) in groups(below).zip(level) {
            let mut branch = Branch::new(*number);
            for (key, page) in children {
                branch.push(key, *page);
            }
            out.write_all(&branch.finish())?;
        }
    }
    Ok(())
}

/// The pages of a level as the branches over them take them. A branch is one page.
fn groups(level: &[(Vec<u8>, u64)]) -> impl Iterator<Item = &[(Vec<u8>, u64)]> {
    let mut rest = level;
    std::iter::from_fn(move || {
        let mut bytes = page::HEAD_BYTES;
        let fitting = rest.iter().take_while(|(key, _)| {
            bytes += page::ELEMENT_BYTES + key.len();
            bytes <= PAGE_BYTES
        });
        // Keys are far shorter than a page, so that some always fit.
        let count = fitting.count().max(2).min(rest.len());
        let (group, others) = rest.split_at(count);
        rest = others;
        (!group.is_empty()).then_some(group)
    })
}

fn changed() -> io::Error {
    io::Error::other("the state changed while it was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (Vec<u8>, Vec<u8>);

    fn written(items: &[Item]) -> Vec<u8> {
        let scan = |visit: Visit<'_>| items.iter().try_for_each(|(key, value)| visit(key, value));
        let nothing = |_: Visit<'_>| Ok(());
        let mut file = vec![];
        write(&[("a", &nothing), ("b", &scan)], &mut file).expect("memory takes it");
        file
    }

    fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
        let mut number = [0; 8];
        number[..length].copy_from_slice(&bytes[at..at + length]);
        u64::from_le_bytes(number)
    }

    /// Reads all items below a page, as bbolt would walk them.
    fn read(file: &[u8], page: u64, found: &mut Vec<Item>) {
        let at = page as usize * PAGE_BYTES;
        assert_eq!(number(file, at, 8), page);
        let (flags, count) = (number(file, at + 8, 2), number(file, at + 10, 2));
        for element in 0..count as usize {
            let element = at + page::HEAD_BYTES + element * page::ELEMENT_BYTES;
            let field = |place, length| number(file, element + place, length) as usize;
            match flags {
                1 => read(file, field(8, 8) as u64, found),
                2 => {
                    let key = element + field(4, 4);
                    let value = key + field(8, 4);
                    let end = value + field(12, 4);
                    found.push((file[key..value].to_vec(), file[value..end].to_vec()));
                }
                other => panic!("page {page} has the flags {other}"),
            }
        }
    }

    fn check(count: u32, value_bytes: usize) {
        let items = (0..count).map(|number| {
            let value = vec![number as u8; value_bytes * (number as usize % 3)];
            (number.to_be_bytes().to_vec(), value)
        });
        let items: Vec<_> = items.collect();
        let file = written(&items);
        assert_eq!(file.len() % PAGE_BYTES, 0);
        assert_eq!(
            number(&file, page::HEAD_BYTES + 40, 8),
            (file.len() / PAGE_BYTES) as u64
        );
        let mut buckets = vec![];
        read(&file, page::ROOT, &mut buckets);
        let names: Vec<&[u8]> = buckets.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [b"a", b"b"]);
        let mut found = vec![];
        match number(&buckets[1].1, 0, 8) {
            0 => assert!(items.is_empty()),
            root => read(&file, root, &mut found),
        }
        assert!(found == items, "{count} items of {value_bytes} bytes");
    }

    #[test]
    fn what_is_written_is_found_again() {
        for (count, value_bytes) in [
            (0, 0),
            (1, 10),
            (1, 9_000),
            (200, 30),
            (3_000, 100),
            (40_000, 1),
            (50, 20_000),
        ] {
            check(count, value_bytes);
        }
    }
}
