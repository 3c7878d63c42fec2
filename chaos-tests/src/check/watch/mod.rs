//! Watches, by the properties that etcd promises (etcd documentation, "API guarantees"): ordered, unique, reliable, atomic,
//! resumable and bookmarkable; beside them that filters are kept and that each event tells its change, and what was there
//! before, rightly. What they are held against is the merged order of all that was acknowledged and all that anybody saw.

mod truth;

use super::Checked;
use super::anomaly::{Anomaly, Class, Moment};
use crate::history::{Notice, Request, Timeline, WatchPart, Watched};
use std::collections::HashSet;
use truth::Truth;

pub(super) fn check(timeline: &Timeline) -> Checked {
    let truth = Truth::of(timeline);
    let mut checked = Checked {
        subjects: timeline.watches.len(),
        ..Checked::default()
    };
    for watch in &timeline.watches {
        let mut seen = Reading::new(watch);
        seen.read(&truth);
        checked.ops += seen.told.len();
        seen.complete(&truth);
        checked.anomalies.extend(seen.found);
    }
    checked
}

/// A watch, read from its first message to its last.
struct Reading<'a> {
    watch: &'a Watched,
    /// The first revision that it owes; None until the member said that it watches.
    from: Option<u64>,
    told: HashSet<(u64, &'a str)>,
    last: Option<(u64, &'a Notice)>,
    /// Whether the message of the last event is continued by the next one.
    more: bool,
    promised: u64,
    found: Vec<Anomaly>,
}

impl<'a> Reading<'a> {
    fn new(watch: &'a Watched) -> Self {
        let from = Some(watch.wanted.from).filter(|from| *from > 0);
        Reading {
            watch,
            from,
            told: HashSet::new(),
            last: None,
            more: false,
            promised: 0,
            found: Vec::new(),
        }
    }

    fn read(&mut self, truth: &Truth) {
        for (ns, part) in &self.watch.parts {
            match part {
                WatchPart::Created { revision } => {
                    self.from.get_or_insert(revision + 1);
                }
                WatchPart::Events { events, more, .. } => {
                    self.message(*ns, events, truth);
                    self.more = *more;
                }
                WatchPart::Progress { revision } => self.promised = self.promised.max(*revision),
                WatchPart::Compacted { revision } => self.compacted(*ns, *revision, truth),
                WatchPart::Asked { .. } | WatchPart::Closed { .. } => {}
            }
        }
    }

    fn message(&mut self, ns: u64, events: &'a [Notice], truth: &Truth) {
        for (number, event) in events.iter().enumerate() {
            let problem = self
                .order(event, number == 0)
                .or_else(|| self.kept(event))
                .or_else(|| truth.contradiction(self.watch, ns, event));
            if let Some((class, why)) = problem {
                let against = self.last.map(|(ns, last)| self.moment(ns, last));
                self.find(class, self.moment(ns, event), against, why);
            }
            self.told.insert((event.revision, event.key.as_str()));
            self.last = Some((ns, event));
        }
    }

    /// Whether an event may come after what came before.
    fn order(&self, event: &Notice, is_first: bool) -> Option<(Class, String)> {
        let revision = event.revision;
        if self.told.contains(&(revision, event.key.as_str())) {
            return Some((Class::WatchDuplicate, "it was told already".to_owned()));
        }
        if let Some(from) = self.from.filter(|from| revision < *from) {
            let why = format!("it was to begin at revision {from}");
            return Some((Class::WatchResume, why));
        }
        if revision <= self.promised {
            let why = format!(
                "a bookmark had promised that nothing up to revision {} was left",
                self.promised
            );
            return Some((Class::WatchBookmark, why));
        }
        let (_, last) = self.last?;
        if revision < last.revision {
            let why = format!("revision {} was told before it", last.revision);
            return Some((Class::WatchUnordered, why));
        }
        let is_torn = revision == last.revision && is_first && !self.more;
        is_torn.then(|| {
            let why = "an earlier message told another change of the same revision".to_owned();
            (Class::WatchTorn, why)
        })
    }

    /// Whether an event is one that was asked for.
    fn kept(&self, event: &Notice) -> Option<(Class, String)> {
        (!is_wanted(self.watch, &event.key, event.value)).then(|| {
            let why = "it was not asked for".to_owned();
            (Class::WatchFilter, why)
        })
    }

    fn compacted(&mut self, ns: u64, revision: u64, truth: &Truth) {
        if truth.is_compacted(self.watch.wanted.from, ns) {
            return;
        }
        let moment = Moment {
            id: self.watch.id,
            from_ns: ns,
            until_ns: Some(ns),
            text: format!(
                "watch {} at {}: compacted to {revision}",
                self.watch.id, self.watch.server
            ),
        };
        let why = format!(
            "it was to begin at revision {}, and nobody compacted that far",
            self.watch.wanted.from
        );
        self.find(Class::WatchWrong, moment, None, why);
    }

    /// Whether all that it owes came.
    fn complete(&mut self, truth: &Truth) {
        let Some(from) = self.from else { return };
        let (last_ns, reached) = match self.last {
            // A message that would have been continued need not have told all of its last revision.
            Some((ns, last)) => (ns, last.revision - u64::from(self.more)),
            None => (0, 0),
        };
        let reached = reached.max(self.promised);
        let is_complete = self
            .watch
            .parts
            .iter()
            .any(|(_, part)| matches!(part, WatchPart::Closed { complete: true, .. }));
        let until = if is_complete { u64::MAX } else { reached };
        let missing = truth.between(from, until).find(|(revision, key, value)| {
            is_wanted(self.watch, key, *value) && !self.told.contains(&(*revision, key))
        });
        let Some((revision, key, value)) = missing else {
            return;
        };
        let what = match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("{key} deleted"),
        };
        let (class, why) = if revision <= reached {
            let why = format!(
                "it told or promised all up to revision {reached}, but never revision {revision}: {what}"
            );
            (Class::WatchMissed, why)
        } else {
            let why = format!(
                "it reached revision {reached} and stood still; revision {revision} ({what}) never came"
            );
            (Class::WatchStuck, why)
        };
        let moment = Moment {
            id: self.watch.id,
            from_ns: last_ns,
            until_ns: Some(last_ns),
            text: format!(
                "watch {} at {} from revision {from}",
                self.watch.id, self.watch.server
            ),
        };
        let around = self.around(revision);
        self.find(class, moment, around, why);
    }

    /// The events told before and after a revision.
    fn around(&self, revision: u64) -> Vec<Moment> {
        let events = || {
            self.watch.parts.iter().flat_map(|(ns, part)| {
                let events: &[Notice] = match part {
                    WatchPart::Events { events, .. } => events,
                    _ => &[],
                };
                events.iter().map(|event| (*ns, event))
            })
        };
        let before = events().rfind(|(_, event)| event.revision < revision);
        let after = events().find(|(_, event)| event.revision > revision);
        let around = before.into_iter().chain(after);
        around.map(|(ns, event)| self.moment(ns, event)).collect()
    }

    fn moment(&self, ns: u64, event: &Notice) -> Moment {
        Moment {
            id: self.watch.id,
            from_ns: ns,
            until_ns: Some(ns),
            text: format!("watch {} at {}: {event}", self.watch.id, self.watch.server),
        }
    }

    fn find(
        &mut self,
        class: Class,
        offending: Moment,
        against: impl IntoIterator<Item = Moment>,
        why: String,
    ) {
        let key = format!("watch {}", self.watch.id);
        self.found
            .push(Anomaly::new(class, &key, offending, against, why));
    }
}

/// Whether a watch asked for such a change.
fn is_wanted(watch: &Watched, key: &str, value: Option<u64>) -> bool {
    let wanted = &watch.wanted;
    let is_filtered = match value {
        Some(_) => wanted.no_put,
        None => wanted.no_delete,
    };
    !is_filtered && wanted.key.as_ref().is_none_or(|only| only == key)
}

/// The revision to which a request compacts, unless it surely was not done.
fn compacts_to(attempt: &crate::history::Attempt) -> Option<u64> {
    match attempt.request {
        Request::Compact { revision } if attempt.may_have_changed() => Some(revision),
        _ => None,
    }
}
