//! Whatever happens to an archive on its way is told, and nothing of it is used.

use super::format::{Kind, SectionReader, SectionWriter};
use super::*;
use crate::types::Node;
use mvcc::{MemTables, Write as TableWrite};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Tables with these records, in all tables but the first, whose keys have a meaning of their own.
fn tables(records: &[(Vec<u8>, Vec<u8>)]) -> MemTables {
    let mut tables = MemTables::default();
    let writes = records
        .iter()
        .enumerate()
        .map(|(number, (key, value))| TableWrite {
            table: Table::ALL[1 + number % (Table::ALL.len() - 1)],
            key: key.clone().into(),
            value: Some(value.clone().into()),
        });
    tables.write(writes);
    tables
}

/// Records of all tables together in [`several_blocks`].
const RECORDS: u32 = 600;

/// Records of each of them.
fn each() -> u64 {
    u64::from(RECORDS) / (Table::ALL.len() as u64 - 1)
}

/// Some tables of several blocks.
fn several_blocks() -> MemTables {
    let records: Vec<(Vec<u8>, Vec<u8>)> = (0..RECORDS)
        .map(|number| {
            // Not to be compressed much, so that blocks have some size.
            let noise = (0..1500u32)
                .map(|byte| (number.wrapping_mul(31) ^ byte.wrapping_mul(2654435761) >> 13) as u8);
            (number.to_be_bytes().to_vec(), noise.collect())
        })
        .collect();
    tables(&records)
}

fn archive_of(tables: &MemTables) -> Vec<u8> {
    written(tables, None)
}

fn key() -> StateKey {
    StateKey::new([7; 32])
}

fn written(tables: &MemTables, key: Option<&StateKey>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let origin = Origin {
        cluster_id: "c1",
        saved_ms: Some(1_700_000_000_000),
        extra: Some(b"sealed keys"),
        key,
    };
    write(tables, origin, &mut bytes).expect("memory can be written");
    bytes
}

/// Its sections, so that a forger may put it together anew.
fn sections(archive: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut reader = SectionReader::new(archive).expect("it is an archive");
    let sections = std::iter::from_fn(|| reader.next_section().expect("it is whole"));
    sections
        .map(|section| (section.kind, section.body))
        .collect()
}

fn forge(sections: impl IntoIterator<Item = (Kind, Vec<u8>)>) -> Vec<u8> {
    let mut writer = SectionWriter::new(Vec::new(), None).expect("memory can be written");
    for (kind, body) in sections {
        writer.section(kind, &body).expect("memory can be written");
    }
    writer.finish().expect("memory can be written")
}

/// Restores into a folder of its own; the folder goes with the answer.
fn restored(archive: &[u8]) -> (tempfile::TempDir, Result<Restored, RestoreError>) {
    restored_with(archive, None)
}

fn restored_with(
    archive: &[u8],
    key: Option<&StateKey>,
) -> (tempfile::TempDir, Result<Restored, RestoreError>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let result = restore(archive, key, &dir.path().join("m"), "c2", Node::default());
    let is_usable = dir.path().join("m/member.json").exists();
    assert_eq!(is_usable, result.is_ok(), "only what is whole can be used");
    (dir, result)
}

#[test]
fn cut_at_any_section_it_is_cut_short() {
    let archive = archive_of(&several_blocks());
    let mut ends = vec![format::MAGIC.len()];
    for (_, body) in sections(&archive) {
        ends.push(ends.last().expect("there is one") + 5 + body.len() + 4);
    }
    assert!(
        ends.len() > 8,
        "several blocks are wanted, there are {}",
        ends.len()
    );
    for end in ends {
        for cut in [end, end + 1, end + 4, end + 20] {
            let error = verify(&archive[..cut]).expect_err("it is cut");
            assert!(
                matches!(error, ArchiveError::CutShort { .. }),
                "at {cut}: {error}"
            );
        }
    }
    verify(&archive[..]).expect("the whole is good");
}

#[test]
fn what_was_left_out_or_changed_and_signed_again_is_told_by_its_sums() {
    let archive = archive_of(&several_blocks());
    let all = sections(&archive);
    assert!(
        restored(&forge(all.clone()))
            .1
            .expect("nothing changed")
            .compared
    );

    let mut without = all.clone();
    let block = without.iter().rposition(|(kind, _)| *kind == Kind::Block);
    without.remove(block.expect("there are blocks"));
    let forged = forge(without);
    verify(&forged[..]).expect("its checksums are those of its bytes");
    let error = restored(&forged).1.expect_err("a block is missing");
    assert!(
        matches!(&error, RestoreError::Differs(table) if table == Table::ALL[Table::ALL.len() - 1].name()),
        "{error}"
    );

    let swapped = all.iter().map(|(kind, body)| match kind {
        Kind::Sums => (
            *kind,
            String::from_utf8_lossy(body)
                .replace(&format!("\"records\":{}", each()), "\"records\":7")
                .into_bytes(),
        ),
        _ => (*kind, body.clone()),
    });
    assert!(matches!(
        restored(&forge(swapped)).1,
        Err(RestoreError::Differs(_))
    ));
}

#[test]
fn an_archive_of_format_1_is_read_without_comparison() {
    let tables = several_blocks();
    let all = sections(&archive_of(&tables));
    let mut old = forge(all.into_iter().filter(|(kind, _)| *kind != Kind::Sums));
    let end = old.len() - 9 - 32;
    old[16] = b'1';
    // The end holds the hash of all before it, the first line included.
    use sha2::Digest;
    let digest = sha2::Sha256::digest(&old[..end]);
    old[end + 5..end + 5 + 32].copy_from_slice(&digest);
    let crc = crc32c::crc32c(&old[end..end + 5 + 32]);
    old[end + 37..].copy_from_slice(&crc.to_le_bytes());
    let (_dir, restored) = restored(&old);
    let restored = restored.expect("the former format is read");
    assert!(!restored.compared);
    assert_eq!(restored.sums, sums_of(&tables).expect("memory can be read"));
    let mut later = old;
    later[16] = b'4';
    assert!(matches!(
        verify(&later[..]),
        Err(ArchiveError::UnknownFormat('4'))
    ));
}

/// Tables in which a text stands that is easily found.
fn with_a_secret() -> MemTables {
    let many = (0..2000u32).map(|number| (number.to_be_bytes().to_vec(), b"s3cret-text".to_vec()));
    tables(&many.collect::<Vec<_>>())
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_sealed_state_opens_with_its_key_alone() {
    let tables = with_a_secret();
    let sealed = written(&tables, Some(&key()));
    // Uncompressed, as far as that can be done.
    let readable = |archive: &[u8]| {
        let blocks = sections(archive)
            .into_iter()
            .map(|(_, body)| zstd::bulk::decompress(&body, BLOCK_BYTES_MAX).unwrap_or(body));
        blocks.collect::<Vec<_>>().concat()
    };
    let plain = readable(&archive_of(&tables));
    assert!(holds(&plain, b"s3cret-text") && holds(&plain, b"sha256"));
    let hidden = readable(&sealed);
    assert!(!holds(&hidden, b"s3cret-text") && !holds(&hidden, b"sha256"));
    let summary = verify(&sealed[..]).expect("its checksums need no key");
    assert!(summary.state.is_none());
    assert_eq!(summary.extra.as_deref(), Some(&b"sealed keys"[..]));
    let (header, extra) = look(&sealed[..]).expect("it begins well");
    assert_eq!(
        (header, extra.as_deref()),
        (summary.header, Some(&b"sealed keys"[..]))
    );
    let (_dir, opened) = restored_with(&sealed, Some(&key()));
    let opened = opened.expect("the key is right");
    assert!(opened.compared);
    assert_eq!(opened.sums, sums_of(&tables).expect("memory can be read"));
    let refused = |archive: &[u8], key: Option<&StateKey>| match restored_with(archive, key).1 {
        Err(RestoreError::Archive(error)) => error,
        other => panic!("it was to be refused: {other:?}"),
    };
    assert!(matches!(refused(&sealed, None), ArchiveError::Sealed));
    let other = StateKey::new([8; 32]);
    assert!(matches!(
        refused(&sealed, Some(&other)),
        ArchiveError::NotOpened
    ));
    let plain = archive_of(&tables);
    assert!(matches!(
        refused(&plain, Some(&key())),
        ArchiveError::NotSealed
    ));
}

#[test]
fn sealed_sections_cannot_be_left_out_moved_or_cut_off_by_who_signs_anew() {
    let sealed = written(&several_blocks(), Some(&key()));
    let all = sections(&sealed);
    // As `forge`, with the first line of a sealed archive and an end whose tag nobody can make without the key.
    let forge = |sections: &[(Kind, Vec<u8>)]| {
        let mut forged = forge(sections.iter().cloned());
        forged.truncate(forged.len() - 9 - 32);
        forged[16] = b'3';
        use sha2::Digest;
        let end = [&sha2::Sha256::digest(&forged)[..], &[0; 16]].concat();
        let mut section = vec![Kind::End as u8];
        section.extend(48u32.to_le_bytes());
        section.extend(end);
        let crc = crc32c::crc32c(&section);
        [forged, section, crc.to_le_bytes().to_vec()].concat()
    };
    let is_refused = |archive: &[u8]| {
        verify(archive).expect("whoever signs anew has its checksums right");
        let refused = restored_with(archive, Some(&key())).1;
        matches!(refused, Err(RestoreError::Archive(ArchiveError::NotOpened)))
    };
    assert!(is_refused(&forge(&all)), "the end has no tag");
    let blocks: Vec<usize> = (0..all.len())
        .filter(|place| all[*place].0 == Kind::Block)
        .collect();
    let mut swapped = all.clone();
    swapped.swap(blocks[0], blocks[1]);
    assert!(is_refused(&forge(&swapped)));
    let mut without = all.clone();
    without.remove(blocks[1]);
    assert!(is_refused(&forge(&without)));
    let mut twice = all.clone();
    twice.insert(blocks[1], all[blocks[0]].clone());
    assert!(is_refused(&forge(&twice)));
    let cut = &all[..*blocks.last().expect("there are some")];
    assert!(is_refused(&forge(cut)));
    let mut other_header = all.clone();
    other_header[0].1 = String::from_utf8_lossy(&all[0].1)
        .replace("\"c1\"", "\"c9\"")
        .into_bytes();
    assert!(is_refused(&forge(&other_header)));
}

#[test]
fn a_rehearsal_restores_and_leaves_nothing() {
    let (archive, scratch) = (
        archive_of(&several_blocks()),
        tempfile::tempdir().expect("a temporary folder"),
    );
    let mut seen = 0;
    let found =
        rehearse(&archive[..], None, scratch.path(), &mut |_| seen += 1).expect("it is good");
    assert_eq!((found.keys, seen), (each(), each()));
    assert!(found.restored.compared);
    assert_eq!(found.restored.header.saved_ms, Some(1_700_000_000_000));
    assert!(
        rehearse(
            &archive[..archive.len() / 2],
            None,
            scratch.path(),
            &mut |_| ()
        )
        .is_err()
    );
    let left = std::fs::read_dir(scratch.path())
        .expect("it can be read")
        .count();
    assert_eq!(left, 0, "what a rehearsal made is gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn its_sums_are_those_of_the_source(records in btree_map(vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..200), 0..200)) {
        let tables = tables(&records.into_iter().collect::<Vec<_>>());
        let summary = verify(&archive_of(&tables)[..]).expect("it is whole");
        let state = summary.state.expect("it is not sealed");
        prop_assert_eq!(state.sums.expect("the format has sums"), sums_of(&tables).expect("memory can be read"));
    }

    #[test]
    fn any_cut_and_any_flip_is_told(
        records in btree_map(vec(any::<u8>(), 1..20), vec(any::<u8>(), 0..1000), 1..50),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let archive = archive_of(&tables(&records.into_iter().collect::<Vec<_>>()));
        let place = place.index(archive.len());
        prop_assert!(verify(&archive[..place]).is_err());
        let mut flipped = archive;
        flipped[place] ^= 1 << bit;
        prop_assert!(verify(&flipped[..]).is_err());
    }
}

#[test]
fn a_restore_keeps_every_record_and_nothing_of_a_damaged_archive() {
    proptest!(ProptestConfig::with_cases(6), |(
        records in btree_map(vec(any::<u8>(), 1..20), vec(any::<u8>(), 0..500), 1..100),
        place in any::<prop::sample::Index>(),
    )| {
        let tables = tables(&records.into_iter().collect::<Vec<_>>());
        let archive = archive_of(&tables);
        let (_dir, whole) = restored(&archive);
        prop_assert_eq!(whole.expect("it is whole").sums, sums_of(&tables).expect("memory can be read"));
        let place = place.index(archive.len());
        let mut flipped = archive.clone();
        flipped[place] ^= 0x10;
        prop_assert!(restored(&flipped).1.is_err());
        prop_assert!(restored(&archive[..place]).1.is_err());
    });
}
