//! The kinds of faults, by the names under which they are asked for.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What a fault is about; a group can be asked for as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Members end, stop and start.
    Process,
    /// Packets between members.
    Network,
    /// Disks and files.
    Disk,
    /// Clocks.
    Clock,
    /// What an administrator does.
    Admin,
}

/// Declares the kinds in one table: variant, name, group, what it does.
macro_rules! kinds {
    ($($variant:ident, $name:literal, $group:ident, $does:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub enum Kind {
            $(#[doc = $does] $variant,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// As it is typed.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// What it is about.
            pub fn group(self) -> Group {
                match self { $(Kind::$variant => Group::$group,)* }
            }

            /// What it does, in a line.
            pub fn does(self) -> &'static str {
                match self { $(Kind::$variant => $does,)* }
            }
        }
    };
}

kinds! {
    Kill, "kill", Process, "kill -9 of the leader, started again later";
    KillRandom, "kill-random", Process, "kill -9 of any member";
    KillMajority, "kill-majority", Process, "kill -9 of a majority at once";
    KillAll, "kill-all", Process, "kill -9 of every member at once";
    Pause, "pause", Process, "SIGSTOP of the leader, SIGCONT later";
    Restart, "restart", Process, "an orderly stop of any member, started again later";
    Rolling, "rolling", Process, "an orderly stop and start of every member in turn, the leader last";
    PartitionHalves, "partition-halves", Network, "two halves that do not hear each other";
    Partition, "partition", Network, "the leader and a minority are cut off from the others, not from clients";
    PartitionRing, "partition-ring", Network, "every member hears a majority, no two the same (of three: each hears only the one before it)";
    PartitionBridge, "partition-bridge", Network, "two halves that are joined by one member alone";
    OneWay, "one-way", Network, "the leader is not heard by the others, or does not hear them";
    Flapping, "flapping", Network, "the leader is cut off and joined again, many times a second to once in two";
    Delay, "delay", Network, "packets of some directions take 20 to 150 ms longer, with jitter";
    Loss, "loss", Network, "packets of some directions are lost, 5 to 40 of 100";
    Duplication, "duplication", Network, "packets of some directions arrive twice, 5 to 40 of 100";
    Reorder, "reorder", Network, "packets of some directions are overtaken by later ones, 5 to 40 of 100";
    PowerLoss, "power-loss", Disk, "the power of any member is lost: what was not synced is gone";
    PowerLossMajority, "power-loss-majority", Disk, "the power of a majority is lost at once";
    PowerLossAll, "power-loss-all", Disk, "the power of every member is lost at once";
    PowerLossElection, "power-loss-election", Disk, "the leader is killed, and the power of all is lost as soon as somebody has voted for another";
    SyncError, "sync-error", Disk, "fsync and fdatasync of any member fail with EIO";
    SyncDelay, "sync-delay", Disk, "fsync and fdatasync of the leader take 50 to 400 ms longer";
    WriteError, "write-error", Disk, "writes of any member to its disk fail with EIO";
    NoSpace, "no-space", Disk, "writes of any member to its disk fail with ENOSPC";
    DiskFull, "disk-full", Disk, "the disk of any member is full";
    TornLog, "torn-log", Disk, "the last bytes of a stopped member's log are cut off";
    ZeroedSector, "zeroed-sector", Disk, "512 bytes of a stopped member's files are zeroed";
    FlippedBit, "flipped-bit", Disk, "a bit of a stopped member's files is flipped";
    FlippedEntry, "flipped-entry", Disk, "a bit of what one member's log got while a minority was down is flipped, and then only these run";
    ClockRate, "clock-rate", Clock, "the clocks of any member run at 0.7 to 1.5 times the rate";
    ClockJump, "clock-jump", Clock, "the wall clock of the leader jumps by up to a minute, there and back";
    MemberAdd, "member-add", Admin, "a member is added, and removed later";
    MemberRemove, "member-remove", Admin, "any member is removed, and joins with an empty disk later";
    MemberReplace, "member-replace", Admin, "a member is lost with its disk, and replaced";
    LeaderStorm, "leader-storm", Admin, "leadership is handed on several times a second";
    Compaction, "compaction", Admin, "all but the newest revisions are compacted, several times a second";
    Snapshot, "snapshot", Admin, "snapshots are read from every member, again and again";
    Restore, "restore", Admin, "at the end everything is lost, and a new cluster is made of a snapshot that was saved while writes ran";
}

impl Group {
    const ALL: [(&'static str, Group); 5] = [
        ("process", Group::Process),
        ("network", Group::Network),
        ("disk", Group::Disk),
        ("clock", Group::Clock),
        ("admin", Group::Admin),
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        let named = Group::ALL.iter().find(|(_, group)| *group == self);
        named.map_or("", |(name, _)| name)
    }
}

impl Kind {
    /// Those that were typed: names of kinds and of groups, or `all`; each once, in the order of [`Kind::ALL`].
    pub fn parse_list<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Vec<Kind>, String> {
        let mut wanted = Vec::new();
        for word in words {
            wanted.extend(kinds_of(word)?);
        }
        wanted.sort();
        wanted.dedup();
        Ok(wanted)
    }

    /// Whether a member may end by itself while it is in force: its store must stop rather than go on.
    pub fn may_end_members(self) -> bool {
        self.damages_files()
            || matches!(
                self,
                Kind::SyncError | Kind::WriteError | Kind::NoSpace | Kind::DiskFull
            )
    }

    /// Whether files of a stopped member are damaged, so that it cannot be held to what they said.
    pub fn damages_files(self) -> bool {
        matches!(
            self,
            Kind::TornLog | Kind::ZeroedSector | Kind::FlippedBit | Kind::FlippedEntry
        )
    }

    /// Whether nothing comes after it: it is no fault among others, but the end of a run.
    pub fn is_last(self) -> bool {
        self == Kind::Restore
    }

    /// Whether it only makes links bad, so that it can be in force beside another fault.
    pub fn is_of_links(self) -> bool {
        matches!(
            self,
            Kind::Delay | Kind::Loss | Kind::Duplication | Kind::Reorder
        )
    }

    /// Whether bad links may be in force beside it. Not beside another fault of the network, which they would end with; and not
    /// beside a damaged file, which must be the only thing that is wrong.
    pub fn bears_bad_links(self) -> bool {
        self.group() != Group::Network && !self.damages_files()
    }

    /// Whether members must be started with the filter that lets the harness answer their calls.
    pub fn needs_injector(self) -> bool {
        matches!(
            self,
            Kind::SyncError
                | Kind::SyncDelay
                | Kind::WriteError
                | Kind::NoSpace
                | Kind::PowerLossElection
        )
    }
}

fn kinds_of(word: &str) -> Result<Vec<Kind>, String> {
    if word == "all" {
        return Ok(Kind::ALL.to_vec());
    }
    if let Some((_, group)) = Group::ALL.iter().find(|(name, _)| *name == word) {
        let of_group = Kind::ALL.iter().filter(|kind| kind.group() == *group);
        return Ok(of_group.copied().collect());
    }
    word.parse().map(|kind| vec![kind])
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Kind::ALL.iter().find(|kind| kind.name() == text);
        found.copied().ok_or_else(|| {
            let groups: Vec<&str> = Group::ALL.iter().map(|(name, _)| *name).collect();
            let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!(
                "there is no fault {text:?}; say all, a group ({}) or faults: {}",
                groups.join(", "),
                kinds.join(", ")
            )
        })
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.name().to_owned()
    }
}

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert!(kinds_of(kind.group().name()).is_ok_and(|kinds| kinds.contains(kind)));
        }
        let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.extend(Group::ALL.iter().map(|(name, _)| *name));
        names.sort();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn groups_and_names_are_asked_for_together() {
        let parsed = Kind::parse_list(["clock", "kill", "clock-jump"]);
        assert_eq!(
            parsed,
            Ok(vec![Kind::Kill, Kind::ClockRate, Kind::ClockJump])
        );
        assert_eq!(Kind::parse_list(["all"]), Ok(Kind::ALL.to_vec()));
        let wrong = Kind::parse_list(["earthquake"]).expect_err("no such fault");
        assert!(wrong.contains("power-loss"), "{wrong}");
    }
}
