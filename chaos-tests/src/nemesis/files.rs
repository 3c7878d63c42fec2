//! Files of a stopped member are damaged: a torn tail, a zeroed sector, a flipped bit.
//!
//! Only ever one member, and no other fault until it is back or replaced. Either the others were seen to have all that was committed,
//! or those who have the rest come back too: what Raft promises then still stands, however much the member lost. It must refuse its data, or be fed again, and
//! never serve what is wrong, which the checkers see.

use super::{Effect, Fault, HOLD_POLL, Kind};
use crate::testbed::{Damage, Files, SECTOR, damage};
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A member that takes its damaged data does so within this.
const TAKE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a damaged member is alone with those who lack what it lost: elections take less.
const ALONE: Duration = Duration::from_secs(6);
/// The longest tail that is cut off.
const TAIL_MAX: u64 = 4096;

impl Fault<'_> {
    pub(super) async fn damaged_file(&mut self) -> Result<Effect> {
        let name = self.any();
        self.bed.kill(&name).await?;
        let data = self.bed.disk(&name)?.data();
        let files = self.bed.target().files(&data)?;
        let (path, harm) = choose(self.planned.kind, &files, &mut self.rng)?;
        damage(&path, harm)?;
        self.installed(std::slice::from_ref(&name));
        self.hold().await?;
        self.bed.start_member(&name)?;
        let shown = path.strip_prefix(&data).unwrap_or(&path).display();
        let took = self.watch_it_start(&name).await?;
        Ok(Effect::Seen(format!("{harm:?} in {shown}; {name} {took}")))
    }

    /// Entries that only a majority has, one of whom then loses them to a flipped bit, must not be taken for entries that never
    /// were: alone with the minority that was down, that member may not lead, nor elect anybody.
    pub(super) async fn flipped_entry(&mut self) -> Result<Effect> {
        let mut others = self.others();
        ensure!(
            others.len() >= 2 && others.len().is_multiple_of(2),
            "it takes an odd number of members, three or more"
        );
        others.shuffle(&mut self.rng);
        let late = others.split_off(others.len() / 2);
        let victim = others.pop().context("half of the others is somebody")?;
        others.push(self.leader.clone());
        for name in &late {
            self.bed.kill(name).await?;
        }
        let data = self.bed.disk(&victim)?.data();
        let before = self.newest_log(&data)?;
        // The victim alone may end by itself.
        self.installed(std::slice::from_ref(&victim));
        self.hold().await?;
        for name in others.iter().chain([&victim]) {
            self.bed.kill(name).await?;
        }
        let (path, end) = self.newest_log(&data)?;
        let begin = if path == before.0 { before.1 } else { 0 };
        let early = begin + (end.saturating_sub(begin)) / 2;
        let got = begin < early;
        if got {
            let at = self.rng.random_range(begin..early);
            let bit = self.rng.random_range(0..8);
            damage(&path, Damage::FlipBit { at, bit })?;
        }
        for name in late.iter().chain([&victim]) {
            self.bed.start_member(name)?;
        }
        let until = Instant::now() + ALONE;
        while Instant::now() < until {
            tokio::time::sleep(HOLD_POLL).await;
            self.look_after()?;
        }
        for name in &others {
            self.bed.start_member(name)?;
        }
        let took = self.watch_it_start(&victim).await?;
        Ok(if got {
            let (late, shown) = (late.join(", "), end - begin);
            Effect::Seen(format!(
                "a bit of the {shown} bytes that {victim} logged without {late}; {victim} {took}"
            ))
        } else {
            Effect::Unseen(format!("{victim} logged nothing meanwhile"))
        })
    }

    /// The log that is written to, and how much of it is used.
    fn newest_log(&self, data: &Path) -> Result<(PathBuf, u64)> {
        let files = self.bed.target().files(data)?;
        let path = files.logs.into_iter().rev().find(|path| used(path) > 0);
        let path = path.context("the member has no log that holds anything")?;
        let used = used(&path);
        Ok((path, used))
    }

    /// Waits until the member is whole, or replaces it as an administrator would.
    async fn watch_it_start(&mut self, name: &str) -> Result<String> {
        let until = Instant::now() + TAKE_DEADLINE;
        let mut goal = None;
        loop {
            if self.bed.is_whole(&mut goal).await {
                return Ok("came back by itself".to_owned());
            }
            self.look_after()?;
            let refused = self.ended(name);
            let why = match refused {
                Some(how) => format!("refused its data ({how})"),
                None if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                None => format!("was not whole within {TAKE_DEADLINE:?}"),
            };
            self.bed.expel(name).await?;
            self.bed.rejoin(name).await?;
            return Ok(format!("{why} and was replaced"));
        }
    }
}

/// A file and a place in it that hold something.
fn choose(kind: Kind, files: &Files, rng: &mut StdRng) -> Result<(PathBuf, Damage)> {
    if kind == Kind::TornLog {
        let path = files.logs.iter().rev().find(|path| used(path) > 0);
        let path = path.context("the member has no log that holds anything")?;
        let length = std::fs::metadata(path).context("a log has a size")?.len();
        let used = used(path);
        let torn = rng.random_range(1..=used.min(TAIL_MAX));
        let bytes = length - (used - torn);
        return Ok((path.clone(), Damage::Cut { bytes }));
    }
    // Logs are what is read at every start; the rest may never be looked at again.
    let wants_log = rng.random_bool(0.5);
    let (first, second) = if wants_log {
        (&files.logs, &files.tables)
    } else {
        (&files.tables, &files.logs)
    };
    for kinds in [first, second] {
        let filled: Vec<&PathBuf> = kinds.iter().filter(|path| used(path) > SECTOR).collect();
        if let Some(path) = filled.choose(rng) {
            let at = rng.random_range(0..used(path));
            let harm = match kind {
                Kind::ZeroedSector => Damage::ZeroSector {
                    at: at / SECTOR * SECTOR,
                },
                _ => Damage::FlipBit {
                    at,
                    bit: rng.random_range(0..8),
                },
            };
            return Ok(((*path).clone(), harm));
        }
    }
    bail!("the member has no file that holds anything")
}

/// How much of a file is used: logs are often made longer than what they hold, and end in zeros then. 0 where it cannot be read.
fn used(path: &Path) -> u64 {
    const PIECE: u64 = 64 << 10;
    let Ok(mut file) = File::open(path) else {
        return 0;
    };
    let mut end = file.metadata().map_or(0, |file| file.len());
    while end > 0 {
        let start = (end - 1) / PIECE * PIECE;
        let mut bytes = vec![0; (end - start) as usize];
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes));
        if read.is_err() {
            return 0;
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return start + last as u64 + 1;
        }
        end = start;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_used_part_of_a_file_ends_before_its_zeros() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut bytes = vec![7; 100_000];
        bytes.resize(300_000, 0);
        std::fs::write(&path, &bytes).expect("a file");
        assert_eq!(used(&path), 100_000);
        std::fs::write(&path, [0; 10]).expect("a file");
        assert_eq!((used(&path), used(folder.path())), (0, 0));
    }

    #[test]
    fn damage_meets_what_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut bytes = vec![7; 10_000];
        bytes.resize(50_000, 0);
        std::fs::write(&path, &bytes).expect("a file");
        let files = Files {
            logs: vec![path.clone()],
            tables: vec![],
        };
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (_, torn) = choose(Kind::TornLog, &files, &mut rng).expect("a place");
            let Damage::Cut { bytes } = torn else {
                panic!("{torn:?}");
            };
            assert!((40_001..=44_096).contains(&bytes), "{bytes}");
            let (_, zeroed) = choose(Kind::ZeroedSector, &files, &mut rng).expect("a place");
            assert!(matches!(zeroed, Damage::ZeroSector { at } if at % SECTOR == 0 && at < 10_000));
            let (_, flipped) = choose(Kind::FlippedBit, &files, &mut rng).expect("a place");
            assert!(matches!(flipped, Damage::FlipBit { at, bit } if at < 10_000 && bit < 8));
        }
        let nothing = choose(
            Kind::TornLog,
            &Files::default(),
            &mut StdRng::seed_from_u64(1),
        );
        assert!(nothing.is_err());
    }
}
