//! A cluster that was lost and restored from a snapshot is that of one revision: what was acknowledged up to it is there as it
//! was, what came later is not, all keys and revisions have the digest that they had, and who watched the lost cluster is told
//! that it missed something. That no revision is given twice is the `revisions` checker's to say, over all answers of the run.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Request, Timeline, Told};
use std::collections::{BTreeMap, HashMap};

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut checked = Checked::default();
    let saved = timeline.attempts.iter().rev().find(|attempt| {
        attempt.request == Request::Save
            && attempt.reply().is_some_and(|told| told.revision.is_some())
    });
    let restored = timeline
        .faults
        .iter()
        .rfind(|fault| fault.kind == "restore" && fault.skipped.is_none());
    let (Some(saved), Some(restored)) = (saved, restored) else {
        return checked;
    };
    let at = saved.reply().and_then(|reply| reply.revision).unwrap_or(0);
    let restoration = Restoration {
        saved,
        at,
        lost_ns: restored.from_ns,
    };
    let attempts = &timeline.attempts;
    checked.subjects = 1;
    checked.anomalies.extend(restoration.kept(attempts));
    checked.anomalies.extend(restoration.digests(attempts));
    checked.anomalies.extend(restoration.watchers(attempts));
    checked.ops = attempts
        .iter()
        .filter(|attempt| is_of_restore(&attempt.request))
        .count();
    checked
}

fn is_of_restore(request: &Request) -> bool {
    matches!(
        request,
        Request::Keep { .. }
            | Request::Kept
            | Request::Save
            | Request::Digest { .. }
            | Request::Follow { .. }
    )
}

struct Restoration<'a> {
    saved: &'a Attempt,
    /// The revision saved.
    at: u64,
    /// When the cluster was lost.
    lost_ns: u64,
}

impl Restoration<'_> {
    fn is_after(&self, attempt: &Attempt) -> bool {
        attempt.invoked_ns > self.lost_ns
    }

    /// Whether the keys that were to be kept are those of the saved revision.
    fn kept(&self, attempts: &[Attempt]) -> Vec<Anomaly> {
        let mut puts: BTreeMap<u64, Puts> = BTreeMap::new();
        for attempt in attempts.iter().filter(|attempt| attempt.may_have_changed()) {
            if let Request::Keep { key, value } = attempt.request {
                puts.entry(key).or_default().add(attempt, value);
            }
        }
        let shown = attempts.iter().filter(|attempt| self.is_after(attempt));
        let shown = shown.filter_map(|attempt| match &attempt.reply()?.told {
            Told::Kept { kept } => Some((attempt, kept)),
            _ => None,
        });
        // Later ones may see what was put after the restore.
        let Some((read, kept)) = shown.min_by_key(|(attempt, _)| attempt.invoked_ns) else {
            return Vec::new();
        };
        let there: BTreeMap<u64, (u64, u64)> = kept
            .iter()
            .map(|(key, value, revision)| (*key, (*value, *revision)))
            .collect();
        let mut found = Vec::new();
        for (key, (value, revision)) in &there {
            let known = puts.get(key).and_then(|puts| puts.by_value.get(value));
            found.extend(self.cannot_be(read, *key, (*value, *revision), known.copied()));
        }
        for (key, puts) in &puts {
            let since = there.get(key).map_or(0, |(_, revision)| *revision);
            if let Some((revision, put)) = puts.acknowledged.range(..=self.at).next_back()
                && *revision > since
            {
                let why = format!(
                    "it was acknowledged at revision {revision}, the state saved is that of {}, and what is restored of the key is of {since}",
                    self.at
                );
                found.push(Anomaly::new(
                    Class::LostWrite,
                    &name(*key),
                    read,
                    [*put],
                    why,
                ));
            }
        }
        found
    }

    fn cannot_be(
        &self,
        read: &Attempt,
        key: u64,
        (value, revision): (u64, u64),
        put: Option<&Attempt>,
    ) -> Option<Anomaly> {
        let Some(put) = put else {
            let why = format!("nobody put {value}, or its put was told to have failed");
            return Some(Anomaly::new(Class::Phantom, &name(key), read, [], why));
        };
        let acknowledged = put.reply().and_then(|reply| reply.revision);
        let why = if revision > self.at {
            format!(
                "{value} is of revision {revision}, after the one that was saved ({})",
                self.at
            )
        } else if acknowledged.is_some_and(|acknowledged| acknowledged != revision) {
            format!("{value} was not put at revision {revision}")
        } else {
            return None;
        };
        Some(Anomaly::new(
            Class::RestoredWrongly,
            &name(key),
            read,
            [put],
            why,
        ))
    }

    /// Whether all members digest what was saved.
    fn digests(&self, attempts: &[Attempt]) -> Vec<Anomaly> {
        let digests = || {
            attempts.iter().filter_map(|attempt| {
                let Request::Digest { at } = attempt.request else {
                    return None;
                };
                let Told::Digest { digest, keys } = attempt.reply()?.told else {
                    return None;
                };
                Some((attempt, at, (digest, keys)))
            })
        };
        let before =
            digests().find(|(attempt, at, _)| *at == Some(self.at) && !self.is_after(attempt));
        let Some((before, _, expected)) = before else {
            return Vec::new();
        };
        let wrong = digests()
            .filter(|(attempt, ..)| self.is_after(attempt))
            .filter(|(_, _, digest)| *digest != expected);
        wrong
            .map(|(attempt, ..)| {
                let why = format!("all keys at revision {} had another digest", self.at);
                Anomaly::new(
                    Class::RestoredWrongly,
                    "the store",
                    attempt,
                    [before, self.saved],
                    why,
                )
            })
            .collect()
    }

    /// Whether watchers from before were told so.
    fn watchers(&self, attempts: &[Attempt]) -> Vec<Anomaly> {
        let blind = attempts.iter().filter(|attempt| {
            let told = attempt.reply().map(|reply| &reply.told);
            matches!(attempt.request, Request::Follow { .. })
                && self.is_after(attempt)
                && told.is_some_and(|told| !matches!(told, Told::Compacted { .. }))
        });
        blind
            .map(|attempt| {
                let why = "the revisions asked for are those of the lost cluster, and it was not told that they are gone";
                Anomaly::new(Class::WatchBlind, "the store", attempt, [], why)
            })
            .collect()
    }
}

/// What was put into a key.
#[derive(Default)]
struct Puts<'a> {
    by_value: HashMap<u64, &'a Attempt>,
    acknowledged: BTreeMap<u64, &'a Attempt>,
}

impl<'a> Puts<'a> {
    fn add(&mut self, attempt: &'a Attempt, value: u64) {
        self.by_value.insert(value, attempt);
        if let Some(revision) = attempt.reply().and_then(|reply| reply.revision) {
            self.acknowledged.insert(revision, attempt);
        }
    }
}

fn name(key: u64) -> String {
    format!("kept/{key}")
}
