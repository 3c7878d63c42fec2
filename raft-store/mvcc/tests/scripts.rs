//! Scripts that read as stories: each line of `testdata/*.txt` is done to a store in memory, and what it answers stands
//! indented below it. `UPDATE_EXPECT=1 cargo test` writes the answers anew.

use bytes::Bytes;
use expect_test::expect_file;
use futures::{FutureExt, StreamExt};
use mvcc::{
    At, Author, Command, Compare, CompareOp, CompareTarget, Done, Event, HashAt, HistoryLimits,
    HubLimits, KeyRange, KeyValue, KeyVersion, LeaderState, LeaseId, MemStore, Moment, Op,
    OpResult, Query, RangeResponse, Selection, SortTarget, Store, Txn, TxnResponse,
    VersionsRequest, WatchRequest, WatchStream, lease_keys, leases, to_forget,
};
use objects::{Revision, Term};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[test]
fn keys() {
    check("keys.txt");
}

#[test]
fn transactions() {
    check("transactions.txt");
}

#[test]
fn selections() {
    check("selections.txt");
}

#[test]
fn hashes() {
    check("hashes.txt");
}

#[test]
fn history() {
    check("history.txt");
}

#[test]
fn the_past() {
    check("past.txt");
}

#[test]
fn watches() {
    check("watches.txt");
}

#[test]
fn leases_and_terms() {
    check("leases.txt");
    check("fence.txt");
}

#[test]
fn restore() {
    check("restore.txt");
}

/// Runs a script and compares it, with the answers, with itself.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    let script = std::fs::read_to_string(&path).expect("the script lies in testdata");
    let mut story = Story {
        store: MemStore::with_limits(HubLimits::default()),
        watches: BTreeMap::new(),
    };
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(played, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            let answer = story.play(line);
            answer
                .lines()
                .for_each(|answer| writeln!(played, "  {answer}").unwrap());
        }
    }
    expect_file![path].assert_eq(&played);
}

struct Story {
    store: MemStore,
    watches: BTreeMap<String, WatchStream>,
}

impl Story {
    /// Does what the line says; returns what the store answered.
    fn play(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let option = |name: &str| number(&words, name);
        let now_ms = option("now").unwrap_or(0);
        let id = || LeaseId(words[1].parse().expect("a lease's id"));
        match words[0] {
            "put" | "update" | "del" | "txn" => self.txn(&words),
            "get" => self.get(&words),
            "compact" => show(self.store.command(&Command::Compact {
                revision: Revision(words[1].parse().unwrap()),
            })),
            "grant" => {
                let ttl_ms = option("ttl").expect("ttl=");
                show(self.store.command(&Command::LeaseGrant {
                    id: id(),
                    ttl_ms,
                    now_ms,
                }))
            }
            "keep-alive" => show(
                self.store
                    .command(&Command::LeaseKeepAlive { id: id(), now_ms }),
            ),
            "revoke" => show(self.store.command(&Command::LeaseRevoke { id: id() })),
            "expire" => show(self.store.command(&Command::LeaseExpire {
                ids: vec![id()],
                now_ms,
            })),
            "renew-all" => show(self.store.command(&Command::LeaseRenewAll { now_ms })),
            "raise" => show(self.store.command(&Command::RaiseRevision {
                by: words[1].parse().unwrap(),
            })),
            "tick" => show(self.store.command(&Command::Tick {
                wall_ms: option("wall").expect("wall="),
                now_ms,
            })),
            "keep" => show(self.store.command(&Command::KeepHistory {
                limits: history_limits(&words),
            })),
            "at" => self.at(&words),
            "past" => self.past(),
            "forget" => self.forget(history_limits(&words), now_ms),
            "versions" => self.versions(&words),
            "leases" => self.leases(),
            "hash" => match mvcc::hash_at(&self.store.tables(), option("at").map(Revision)) {
                Ok(HashAt {
                    hash,
                    revision,
                    compacted,
                }) => format!("{hash:08x} of what is kept from {compacted} to {revision}"),
                Err(err) => format!("error: {err}"),
            },
            "term" => {
                let term = Term(words[1].parse().unwrap());
                self.store.set_leader(LeaderState {
                    term,
                    is_leader: true,
                    has_leader: true,
                });
                String::new()
            }
            "watch" => self.watch(&words),
            "read" => self.read(words[1]),
            other => panic!("no such command: {other}"),
        }
    }

    fn txn(&self, words: &[&str]) -> String {
        let txn = match words[0] {
            "txn" => parse_txn(&words[1..]),
            _ => Txn {
                success: vec![parse_op(words)],
                ..Txn::default()
            },
        };
        let txn = Txn {
            fence: number(words, "fence").map(Term),
            ..txn
        };
        match self
            .store
            .txn(txn)
            .now_or_never()
            .expect("a store in memory never waits")
        {
            Ok(response) => show_txn(&response),
            Err(err) => format!("error: {err}"),
        }
    }

    fn get(&self, words: &[&str]) -> String {
        let request = parse_query(words).request();
        match self
            .store
            .range(request)
            .now_or_never()
            .expect("a store in memory never waits")
        {
            Ok(response) => show_range(&response),
            Err(err) => format!("error: {err}"),
        }
    }

    /// `at rev=N`, or `at time=MS`.
    fn at(&self, words: &[&str]) -> String {
        let at = match number(words, "rev") {
            Some(revision) => At::Revision(Revision(revision)),
            None => At::TimeMs(number(words, "time").expect("rev= or time=")),
        };
        match self.store.moment(at).now_or_never().expect(NEVER_WAITS) {
            Ok(moment) => show_moment(moment),
            Err(err) => format!("error: {err}"),
        }
    }

    fn past(&self) -> String {
        let past = self.store.past().now_or_never().expect(NEVER_WAITS);
        let past = past.expect("the store leads");
        format!(
            "from {} to {}, {} bytes, limits {:?}",
            show_moment(past.oldest),
            show_moment(past.newest),
            past.bytes,
            past.limits
        )
    }

    /// What is too much by these limits.
    fn forget(&self, limits: HistoryLimits, now_ms: u64) -> String {
        match to_forget(&self.store.tables(), limits, now_ms).expect("tables in memory can be read")
        {
            None => "nothing".to_owned(),
            Some((revision, excess)) => format!("what is before {revision}, for its {excess:?}"),
        }
    }

    fn versions(&self, words: &[&str]) -> String {
        let request = VersionsRequest {
            key: Bytes::from(words[1].to_owned()),
            before: number(words, "before").map(Revision),
            limit: number(words, "limit").map_or(usize::MAX, |limit| limit as usize),
        };
        let found = self
            .store
            .versions(request)
            .now_or_never()
            .expect(NEVER_WAITS);
        let found = found.expect("the store leads");
        let mut shown: String = found.versions.iter().map(show_version).collect();
        if found.more {
            shown.push_str("there are more");
        }
        shown
    }

    fn leases(&self) -> String {
        let tables = self.store.tables();
        let show = |lease: mvcc::Lease| {
            let keys: Vec<String> = lease_keys(&tables, lease.id)
                .unwrap()
                .iter()
                .map(text)
                .collect();
            format!(
                "{}: ttl {} ms, ends at {} ms, holds {keys:?}\n",
                lease.id.0, lease.ttl_ms, lease.ends_ms
            )
        };
        leases(&tables).unwrap().into_iter().map(show).collect()
    }

    fn watch(&mut self, words: &[&str]) -> String {
        let start = Revision(number(words, "from").expect("from="));
        let request = WatchRequest {
            range: parse_range(words[2]),
            start,
        };
        match self
            .store
            .watch(request)
            .now_or_never()
            .expect("a store in memory never waits")
        {
            Ok(stream) => {
                self.watches.insert(words[1].to_owned(), stream);
                String::new()
            }
            Err(err) => format!("error: {err}"),
        }
    }

    /// All that waits for the watcher.
    fn read(&mut self, name: &str) -> String {
        let stream = self.watches.get_mut(name).expect("the watch was started");
        let mut answer = String::new();
        while let Some(batch) = stream.next().now_or_never() {
            match batch {
                Some(Ok(batch)) => {
                    batch
                        .events
                        .iter()
                        .for_each(|event| writeln!(answer, "{}", show_event(event)).unwrap());
                    writeln!(answer, "seen up to {}", batch.revision).unwrap();
                }
                Some(Err(err)) => writeln!(answer, "error: {err}").unwrap(),
                None => {
                    writeln!(answer, "the watch is over").unwrap();
                    break;
                }
            }
        }
        answer
    }
}

const NEVER_WAITS: &str = "a store in memory never waits";

/// `ms=N bytes=N`; what is left out bounds nothing.
fn history_limits(words: &[&str]) -> HistoryLimits {
    HistoryLimits {
        keep_ms: number(words, "ms").unwrap_or(u64::MAX),
        keep_bytes: number(words, "bytes").unwrap_or(u64::MAX),
    }
}

fn show_moment(moment: Moment) -> String {
    match moment.at_ms {
        Some(at_ms) => format!("revision {} ({at_ms} ms)", moment.revision),
        None => format!("revision {}", moment.revision),
    }
}

fn show_version(version: &KeyVersion) -> String {
    let what = match &version.kv {
        Some(kv) => show_kv(kv),
        None => "deleted".to_owned(),
    };
    let by = version.author.as_ref().map_or(String::new(), |author| {
        format!(", {} by {}", author.action, author.user)
    });
    let moment = Moment {
        revision: version.revision,
        at_ms: version.at_ms,
    };
    format!("{}: {what}{by}\n", show_moment(moment))
}

/// `NAME=NUMBER` among the words.
fn number(words: &[&str], name: &str) -> Option<u64> {
    let value = words
        .iter()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.parse().expect("a number"))
}

/// `key`, or `prefix*`.
fn parse_range(word: &str) -> KeyRange {
    match word.strip_suffix('*') {
        Some(prefix) => KeyRange::prefix(prefix.to_owned()),
        None => KeyRange::key(word.to_owned()),
    }
}

/// `get RANGE [rev=N] [limit=N] [keys] [count] [sort=TARGET] [desc] [mod>=N] [mod<=N] [create>=N] [create<=N]`.
fn parse_query(words: &[&str]) -> Query {
    let bound = |name| Revision(number(words, name).unwrap_or(0));
    let sort = words.iter().find_map(|word| word.strip_prefix("sort="));
    let sort = match sort {
        None | Some("key") => SortTarget::Key,
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::CreateRevision,
        Some("mod") => SortTarget::ModRevision,
        Some("value") => SortTarget::Value,
        Some(other) => panic!("no such order: {other}"),
    };
    Query {
        range: parse_range(words[1]),
        revision: number(words, "rev").map(Revision),
        limit: number(words, "limit"),
        keys_only: words.contains(&"keys"),
        count_only: words.contains(&"count"),
        selection: Selection {
            sort,
            is_descending: words.contains(&"desc"),
            mod_revision_min: bound("mod>"),
            mod_revision_max: bound("mod<"),
            create_revision_min: bound("create>"),
            create_revision_max: bound("create<"),
        },
    }
}

/// `put KEY VALUE [lease=N] [prev]`, `update KEY [value=V] [lease=N] [prev]`, `del RANGE [prev]`, `get RANGE ..`, or `( .. )`
/// for a transaction within.
fn parse_op(words: &[&str]) -> Op {
    let prev_kv = words.contains(&"prev");
    match words {
        ["(", inner @ .., ")"] => Op::Txn(Box::new(parse_txn(inner))),
        ["put", key, value, ..] => Op::Put {
            key: Bytes::from((*key).to_owned()),
            value: Bytes::from((*value).to_owned()),
            lease: LeaseId(number(words, "lease").unwrap_or(0) as i64),
            prev_kv,
        },
        ["sign", user, action, ..] => Op::Sign(Author {
            at_ms: number(words, "at").expect("at="),
            user: (*user).to_owned(),
            manager: String::new(),
            action: (*action).to_owned(),
        }),
        ["del", range, ..] => Op::DeleteRange {
            range: parse_range(range),
            prev_kv,
        },
        ["update", key, ..] => Op::Update {
            key: Bytes::from((*key).to_owned()),
            value: words
                .iter()
                .find_map(|word| word.strip_prefix("value="))
                .map(|value| Bytes::from(value.to_owned())),
            lease: number(words, "lease").map(|id| LeaseId(id as i64)),
            prev_kv,
        },
        ["get", range] => Op::Range {
            range: parse_range(range),
            limit: None,
        },
        ["get", ..] => Op::Query(Box::new(parse_query(words))),
        other => panic!("no such step: {other:?}"),
    }
}

/// `[if COMPARE, ..] then OP, .. [else OP, ..]`.
fn parse_txn(words: &[&str]) -> Txn {
    let mut parts: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    let (mut part, mut depth) = ("", 0);
    for word in words {
        match *word {
            "if" | "then" | "else" if depth == 0 => {
                part = word;
                parts.insert(part, vec![vec![]]);
                continue;
            }
            "," if depth == 0 => {
                parts.get_mut(part).unwrap().push(vec![]);
                continue;
            }
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        parts
            .get_mut(part)
            .expect("if, then or else")
            .last_mut()
            .unwrap()
            .push(word);
    }
    let steps = |part| {
        parts
            .get(part)
            .into_iter()
            .flatten()
            .filter(|words| !words.is_empty())
    };
    Txn {
        compare: steps("if").map(|words| parse_compare(words)).collect(),
        success: steps("then").map(|words| parse_op(words)).collect(),
        failure: steps("else").map(|words| parse_op(words)).collect(),
        fence: None,
    }
}

/// `mod RANGE = 3`, `create ..`, `version ..`, `lease ..`, `value ..`.
fn parse_compare(words: &[&str]) -> Compare {
    let [target, range, op, given] = words else {
        panic!("not a comparison: {words:?}")
    };
    let number = || given.parse().expect("a number");
    let target = match *target {
        "mod" => CompareTarget::ModRevision(Revision(number())),
        "create" => CompareTarget::CreateRevision(Revision(number())),
        "version" => CompareTarget::Version(number()),
        "lease" => CompareTarget::Lease(LeaseId(number() as i64)),
        "value" => CompareTarget::Value(Bytes::from((*given).to_owned())),
        other => panic!("no such target: {other}"),
    };
    let op = match *op {
        "=" => CompareOp::Equal,
        "!=" => CompareOp::NotEqual,
        ">" => CompareOp::Greater,
        "<" => CompareOp::Less,
        other => panic!("no such comparison: {other}"),
    };
    Compare {
        range: parse_range(range),
        op,
        target,
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show(reply: mvcc::Reply) -> String {
    match reply {
        Ok(Done::Txn(response)) => show_txn(&response),
        Ok(done) => format!("{done:?}"),
        Err(err) => format!("error: {err}"),
    }
}

fn show_kv(kv: &KeyValue) -> String {
    let KeyValue {
        create_revision,
        mod_revision,
        version,
        lease,
        ..
    } = kv;
    let lease = if *lease == LeaseId(0) {
        String::new()
    } else {
        format!(", lease {}", lease.0)
    };
    let (key, value) = (text(&kv.key), text(&kv.value));
    format!(
        "{key} = {value} (created {create_revision}, changed {mod_revision}, version {version}{lease})"
    )
}

fn show_range(response: &RangeResponse) -> String {
    let mut shown: String = response.kvs.iter().map(|kv| show_kv(kv) + "\n").collect();
    let more = if response.more {
        ", there are more"
    } else {
        ""
    };
    write!(
        shown,
        "{} of {} at revision {}{more}",
        response.kvs.len(),
        response.count,
        response.revision
    )
    .unwrap();
    shown
}

fn show_txn(response: &TxnResponse) -> String {
    let branch = if response.succeeded {
        ""
    } else {
        ", the comparison failed"
    };
    let mut shown = format!("revision {}{branch}\n", response.revision);
    for result in &response.results {
        match result {
            OpResult::Put(None) => writeln!(shown, "put"),
            OpResult::Put(Some(prev)) => writeln!(shown, "put, was {}", show_kv(prev)),
            OpResult::Deleted(count, prev) => {
                writeln!(shown, "deleted {count}").unwrap();
                prev.iter()
                    .try_for_each(|kv| writeln!(shown, "was {}", show_kv(kv)))
            }
            OpResult::Range(range) => writeln!(shown, "{}", show_range(range)),
            OpResult::Signed => writeln!(shown, "signed"),
            OpResult::Txn(inner) => show_txn(inner)
                .lines()
                .try_for_each(|line| writeln!(shown, "| {line}")),
        }
        .unwrap();
    }
    shown
}

fn show_event(event: &Event) -> String {
    let was = |prev: &Option<KeyValue>| {
        prev.as_ref()
            .map_or(String::new(), |prev| format!(", was {}", show_kv(prev)))
    };
    match event {
        Event::Put { kv, prev } => format!("put {}{}", show_kv(kv), was(prev)),
        Event::Delete {
            key,
            revision,
            prev,
        } => format!("delete {} at {revision}{}", text(key), was(prev)),
    }
}
