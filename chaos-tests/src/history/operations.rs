//! Joins invocations with their outcomes.
//! Pure. A history that breaks its own rules (an answer to nothing, two requests of one process at once) is refused.

use super::{Event, Failure, FaultPhase, Record, Request};
use crate::check::register::{ABSENT, Action, Op};
use std::collections::{BTreeMap, HashMap};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Surely not done.
    Fail(Failure),
    /// Nobody knows.
    Info(Failure),
}

/// A request from its invocation to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub id: u64,
    /// Who asked.
    pub process: u64,
    /// The key.
    pub key: String,
    /// What was asked.
    pub request: Request,
    /// When it was sent.
    pub invoked_ns: u64,
    /// When it ended; the history's last instant where it never did.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// A fault from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultSpan {
    /// Its number in the run.
    pub number: u32,
    /// Its kind.
    pub kind: String,
    /// The masters it was about.
    pub targets: Vec<String>,
    /// When it was in force, or was skipped.
    pub from_ns: u64,
    /// When it ended; None where it did not.
    pub until_ns: Option<u64>,
    /// Why it was skipped; None where it was in force.
    pub skipped: Option<String>,
}

/// A history, joined.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// All requests, by invocation.
    pub attempts: Vec<Attempt>,
    /// What the checkers read: by key, without what surely was not done and without reads of unknown outcome.
    pub keys: BTreeMap<String, Vec<Op>>,
    /// The faults.
    pub faults: Vec<FaultSpan>,
    /// Who led from when on, and the term.
    pub leaders: Vec<(u64, Option<String>, u64)>,
    /// The last instant.
    pub end_ns: u64,
}

/// Joins a history.
pub fn timeline(records: &[Record]) -> anyhow::Result<Timeline> {
    let mut joined = Timeline {
        end_ns: records.last().map_or(0, |record| record.ns),
        ..Timeline::default()
    };
    let mut open: HashMap<u64, Attempt> = HashMap::new();
    let mut busy: HashMap<u64, u64> = HashMap::new();
    for record in records {
        let ns = record.ns;
        match &record.event {
            Event::Invoke {
                id,
                process,
                key,
                request,
                ..
            } => {
                if let Some(other) = busy.insert(*process, *id) {
                    anyhow::bail!(
                        "process {process} sent request {id} while its request {other} was open or of unknown outcome"
                    );
                }
                let attempt = Attempt {
                    id: *id,
                    process: *process,
                    key: key.clone(),
                    request: *request,
                    invoked_ns: ns,
                    ended_ns: joined.end_ns,
                    outcome: Outcome::Info(Failure {
                        class: "unfinished".to_owned(),
                        text: "the run ended before an answer came".to_owned(),
                    }),
                };
                open.insert(*id, attempt);
            }
            Event::Ok {
                id,
                value,
                revision,
                swapped,
            } => {
                let attempt = close(&mut open, *id, ns, Outcome::Ok)?;
                busy.remove(&attempt.process);
                let action = action_of(attempt.request, value.unwrap_or(ABSENT), *swapped);
                joined.keep(&attempt, Some(ns), action, *revision);
                joined.attempts.push(attempt);
            }
            Event::Fail { id, error } => {
                let attempt = close(&mut open, *id, ns, Outcome::Fail(error.clone()))?;
                busy.remove(&attempt.process);
                joined.attempts.push(attempt);
            }
            Event::Info { id, error } => {
                let attempt = close(&mut open, *id, ns, Outcome::Info(error.clone()))?;
                joined.keep_unknown(&attempt);
                joined.attempts.push(attempt);
            }
            Event::Fault {
                number,
                kind,
                targets,
                phase,
            } => joined.fault(ns, *number, kind, targets, phase),
            Event::Leader { name, term } => joined.leaders.push((ns, name.clone(), *term)),
        }
    }
    let mut unfinished: Vec<Attempt> = open.into_values().collect();
    unfinished.sort_by_key(|attempt| attempt.id);
    for attempt in unfinished {
        joined.keep_unknown(&attempt);
        joined.attempts.push(attempt);
    }
    joined.attempts.sort_by_key(|attempt| attempt.invoked_ns);
    for ops in joined.keys.values_mut() {
        ops.sort_by_key(|op| (op.invoked_ns, op.id));
    }
    Ok(joined)
}

fn close(
    open: &mut HashMap<u64, Attempt>,
    id: u64,
    ns: u64,
    outcome: Outcome,
) -> anyhow::Result<Attempt> {
    let mut attempt = open
        .remove(&id)
        .ok_or_else(|| anyhow::anyhow!("request {id} ended, but is not open"))?;
    attempt.ended_ns = ns;
    attempt.outcome = outcome;
    Ok(attempt)
}

fn action_of(request: Request, value: u64, swapped: bool) -> Action {
    match request {
        Request::Read => Action::Read(value),
        Request::Write { value } => Action::Write(value),
        Request::Cas { from, value, .. } => Action::Cas {
            from,
            to: value,
            swapped,
        },
    }
}

impl Timeline {
    fn keep(
        &mut self,
        attempt: &Attempt,
        returned_ns: Option<u64>,
        action: Action,
        revision: Option<u64>,
    ) {
        let op = Op {
            id: attempt.id,
            process: attempt.process,
            invoked_ns: attempt.invoked_ns,
            returned_ns,
            action,
            revision,
        };
        self.keys.entry(attempt.key.clone()).or_default().push(op);
    }

    fn keep_unknown(&mut self, attempt: &Attempt) {
        if attempt.request != Request::Read {
            self.keep(attempt, None, action_of(attempt.request, 0, true), None);
        }
    }

    fn fault(&mut self, ns: u64, number: u32, kind: &str, targets: &[String], phase: &FaultPhase) {
        let mut span = FaultSpan {
            number,
            kind: kind.to_owned(),
            targets: targets.to_vec(),
            from_ns: ns,
            until_ns: None,
            skipped: None,
        };
        match phase {
            FaultPhase::Installed => self.faults.push(span),
            FaultPhase::Skipped { reason } => {
                span.until_ns = Some(ns);
                span.skipped = Some(reason.clone());
                self.faults.push(span);
            }
            FaultPhase::Healed => {
                let open = self.faults.iter_mut().find(|fault| fault.number == number);
                if let Some(fault) = open {
                    fault.until_ns = Some(ns);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins a history told as JSON lines, and tells what became of it.
    fn joined(lines: &str) -> anyhow::Result<Timeline> {
        let records: Vec<Record> = lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        timeline(&records)
    }

    #[test]
    fn what_is_not_known_may_have_happened_and_what_failed_did_not() {
        let joined = joined(
            r#"{"ns":1,"type":"invoke","id":1,"process":1,"key":"k","server":"m1","f":"write","value":7}
{"ns":2,"type":"invoke","id":2,"process":2,"key":"k","server":"m1","f":"cas","from":7,"value":8,"revision":5}
{"ns":3,"type":"info","id":1,"error":{"class":"interrupted","text":"no answer"}}
{"ns":4,"type":"fail","id":2,"error":{"class":"unreachable","text":"refused"}}
{"ns":5,"type":"invoke","id":3,"process":2,"key":"k","server":"m2","f":"read"}
{"ns":6,"type":"ok","id":3,"value":7,"revision":6,"swapped":true}
{"ns":7,"type":"invoke","id":4,"process":2,"key":"k","server":"m2","f":"read"}
{"ns":8,"type":"invoke","id":5,"process":3,"key":"k","server":"m2","f":"cas","from":7,"value":9,"revision":6}
{"ns":9,"type":"fault","number":1,"kind":"kill","targets":["m1"],"phase":"installed"}"#,
        )
        .expect("a history");
        let told: Vec<String> = joined.keys["k"].iter().map(ToString::to_string).collect();
        let expected = [
            "process 1: write 7, from 0.000 ms, outcome unknown",
            "process 2: read -> 7 (revision 6), 0.000 to 0.000 ms",
            "process 3: cas 7 to 9 -> swapped, from 0.000 ms, outcome unknown",
        ];
        assert_eq!(told, expected);
        assert_eq!(joined.attempts.len(), 5);
        assert_eq!((joined.faults.len(), joined.faults[0].until_ns), (1, None));
    }

    #[test]
    fn a_history_that_breaks_its_rules_is_refused() {
        let reused = r#"{"ns":1,"type":"invoke","id":1,"process":1,"key":"k","server":"m1","f":"write","value":7}
{"ns":2,"type":"info","id":1,"error":{"class":"interrupted","text":"no answer"}}
{"ns":3,"type":"invoke","id":2,"process":1,"key":"k","server":"m1","f":"read"}"#;
        let error = joined(reused).expect_err("a process after an unknown outcome");
        assert!(error.to_string().contains("process 1"), "{error}");
        let orphan = r#"{"ns":1,"type":"ok","id":1,"swapped":true}"#;
        assert!(joined(orphan).is_err());
    }
}
