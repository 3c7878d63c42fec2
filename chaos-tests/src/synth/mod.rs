//! Histories of a store that never ran: right ones, and right ones with one planted fault, to show what the checkers catch.
//! Pure: all of it follows from the seed.

mod bank;
mod layout;
mod locks;
pub mod register;
mod restores;
mod sets;
mod transactions;
mod watches;

use crate::check::anomaly::Class;
use crate::history::Record;
use register::{Plant, Shape, history};

/// A kind of history, and what has to be said of it.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Who must find it; none for a right history, of which nobody may find anything.
    pub checkers: &'static [&'static str],
    /// As what.
    pub class: Option<Class>,
    /// Makes one from a seed; None where the seed gives no place for the fault.
    pub make: fn(u64) -> Option<Vec<Record>>,
}

const REGISTER: &[&str] = &["register search", "register revisions"];
const WITNESS: &[&str] = &["register revisions"];

/// All kinds.
pub const CASES: &[Case] = &[
    right("registers", |seed| {
        history(seed, Shape::default(), Plant::Nothing)
    }),
    planted("stale read", REGISTER, Class::StaleRead, |seed| {
        history(seed, Shape::default(), Plant::StaleRead)
    }),
    planted("lost write", REGISTER, Class::LostWrite, |seed| {
        history(seed, Shape::default(), Plant::LostWrite)
    }),
    planted("write applied twice", REGISTER, Class::Duplicate, |seed| {
        history(seed, Shape::default(), Plant::Duplicate)
    }),
    // A forgotten write shows first in whatever depended on it, which for the search need not be a read.
    planted("recorder drops a write", WITNESS, Class::Phantom, |seed| {
        history(seed, Shape::default(), Plant::DropOp)
    }),
    planted("recorder swaps answers", REGISTER, Class::Phantom, |seed| {
        history(seed, Shape::default(), Plant::SwapAnswers)
    }),
    planted("unknown told as failed", WITNESS, Class::Phantom, |seed| {
        history(seed, Shape::default(), Plant::InfoAsFail)
    }),
    right("sets", sets::right),
    planted("element lost", &["set"], Class::LostWrite, sets::lost),
    planted("stale list", &["set"], Class::StaleRead, sets::stale),
    planted("refused element", &["set"], Class::Phantom, sets::phantom),
    planted(
        "element comes back",
        &["set"],
        Class::Resurrected,
        sets::resurrected,
    ),
    planted(
        "revision goes back",
        &["revisions"],
        Class::RevisionWentBack,
        sets::back,
    ),
    right("lists", transactions::right_lists),
    right("registers in transactions", transactions::right_registers),
    planted(
        "refused transaction read",
        TXN,
        Class::G1a,
        transactions::aborted,
    ),
    planted(
        "half a transaction read",
        TXN,
        Class::G1b,
        transactions::intermediate,
    ),
    planted(
        "append applied twice",
        TXN,
        Class::Duplicate,
        transactions::twice,
    ),
    planted("append lost", TXN, Class::LostWrite, transactions::lost),
    planted(
        "lost update",
        TXN,
        Class::LostUpdate,
        transactions::lost_update,
    ),
    planted("read skew", TXN, Class::GSingle, transactions::read_skew),
    planted("write skew", TXN, Class::G2, transactions::write_skew),
    planted("circular flow", TXN, Class::G1c, transactions::circular),
    planted(
        "stale transaction",
        TXN,
        Class::GSingleRealtime,
        transactions::stale,
    ),
    right("bank", bank::right),
    planted(
        "half a transfer",
        &["bank"],
        Class::WrongSum,
        bank::half_transfer,
    ),
    planted("two pasts", &["bank"], Class::Divergent, bank::two_pasts),
    planted(
        "two hashes",
        &["hashes"],
        Class::Divergent,
        bank::two_hashes,
    ),
    right("watches", watches::right),
    planted("event skipped", WATCH, Class::WatchMissed, watches::skipped),
    planted("event twice", WATCH, Class::WatchDuplicate, watches::twice),
    planted(
        "events swapped",
        WATCH,
        Class::WatchUnordered,
        watches::swapped,
    ),
    planted("revision torn", WATCH, Class::WatchTorn, watches::torn),
    planted(
        "bookmark too early",
        WATCH,
        Class::WatchBookmark,
        watches::bookmark,
    ),
    planted(
        "resumed too early",
        WATCH,
        Class::WatchResume,
        watches::resumed,
    ),
    planted(
        "filter ignored",
        WATCH,
        Class::WatchFilter,
        watches::unfiltered,
    ),
    planted(
        "previous value wrong",
        WATCH,
        Class::WatchPrevious,
        watches::previous,
    ),
    planted("event wrong", WATCH, Class::WatchWrong, watches::wrong),
    planted(
        "watch stands still",
        WATCH,
        Class::WatchStuck,
        watches::stuck,
    ),
    right("leases and locks", locks::right),
    planted("lease early", &["lease"], Class::EarlyExpiry, locks::early),
    planted("lease late", &["lease"], Class::LateExpiry, locks::late),
    planted("lock broken", &["lock"], Class::LockBroken, locks::broken),
    right("members' own reads", locks::right_prefix),
    planted(
        "state that never was",
        &["stale reads"],
        Class::NotAPrefix,
        locks::torn_prefix,
    ),
    right("restores and terms", restores::right),
    planted(
        "restored without a put",
        RESTORE,
        Class::LostWrite,
        restores::lost,
    ),
    planted(
        "restored with a later put",
        RESTORE,
        Class::RestoredWrongly,
        restores::later,
    ),
    planted(
        "restored with another digest",
        RESTORE,
        Class::RestoredWrongly,
        restores::other_digest,
    ),
    planted(
        "watcher not told of a restore",
        RESTORE,
        Class::WatchBlind,
        restores::blind,
    ),
    planted(
        "revisions given again",
        &["revisions"],
        Class::RevisionWentBack,
        restores::revisions_again,
    ),
    planted(
        "vote forgotten",
        &["terms"],
        Class::TermWentBack,
        restores::forgotten_vote,
    ),
];

const TXN: &[&str] = &["transactions"];
const WATCH: &[&str] = &["watch"];
const RESTORE: &[&str] = &["restore"];

const fn right(name: &'static str, make: fn(u64) -> Option<Vec<Record>>) -> Case {
    Case {
        name,
        checkers: &[],
        class: None,
        make,
    }
}

const fn planted(
    name: &'static str,
    checkers: &'static [&'static str],
    class: Class,
    make: fn(u64) -> Option<Vec<Record>>,
) -> Case {
    Case {
        name,
        checkers,
        class: Some(class),
        make,
    }
}
