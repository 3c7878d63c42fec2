//! Joins invocations with their outcomes, and watches with what came through them.
//! Pure. A history that breaks its own rules (an answer to nothing, two requests of one process at once) is refused.

use super::{Event, Failure, FaultPhase, Record, Reply, Request, Wanted, WatchPart};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashMap};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok(Reply),
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
    /// Who was asked.
    pub server: String,
    /// What was asked.
    pub request: Request,
    /// When it was sent.
    pub invoked_ns: u64,
    /// When it ended; the history's last instant where it never did.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Attempt {
    /// The answer, where there is one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Fail(_) | Outcome::Info(_) => None,
        }
    }

    /// When its answer came; None where it may still take effect, or was read in vain.
    pub fn returned_ns(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Info(_) => None,
            Outcome::Ok(_) | Outcome::Fail(_) => Some(self.ended_ns),
        }
    }

    /// Whether it was over before the other was sent.
    pub fn is_before(&self, other: &Attempt) -> bool {
        self.returned_ns()
            .is_some_and(|returned| returned < other.invoked_ns)
    }

    /// Whether it may have changed something: it was acknowledged, or nobody knows.
    pub fn may_have_changed(&self) -> bool {
        self.request.is_write()
            && match &self.outcome {
                Outcome::Ok(reply) => reply.took_effect(),
                Outcome::Info(_) => true,
                Outcome::Fail(_) => false,
            }
    }
}

/// A watch from its opening to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its number.
    pub id: u64,
    /// The member that watched.
    pub server: String,
    /// What was wanted.
    pub wanted: Wanted,
    /// What came, and when.
    pub parts: Vec<(u64, WatchPart)>,
}

/// A fault from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultSpan {
    /// Its number in the run.
    pub number: u32,
    /// Its kind.
    pub kind: String,
    /// The members it was about.
    pub targets: Vec<String>,
    /// When it was in force, or was skipped.
    pub from_ns: u64,
    /// When it ended; None where it did not.
    pub until_ns: Option<u64>,
    /// Why it was skipped; None where it was in force.
    pub skipped: Option<String>,
    /// What was not seen of it, where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indeterminate: Option<String>,
    /// What was seen of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
}

impl FaultSpan {
    /// Whether it surely happened, or happens.
    pub fn is_installed(&self) -> bool {
        self.skipped.is_none() && self.indeterminate.is_none()
    }
}

/// A term that a member told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermTold {
    /// When.
    pub ns: u64,
    /// The member's name.
    pub name: String,
    /// Its number.
    pub member: u64,
    /// The term.
    pub term: u64,
}

/// A history, joined.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// All requests, by invocation.
    pub attempts: Vec<Attempt>,
    /// All watches, by number.
    pub watches: Vec<Watched>,
    /// The faults.
    pub faults: Vec<FaultSpan>,
    /// Who led from when on, and the term.
    pub leaders: Vec<(u64, Option<String>, u64)>,
    /// The terms that members told, in order.
    pub terms: Vec<TermTold>,
    /// The last instant.
    pub end_ns: u64,
}

/// Joins a history.
pub fn timeline(records: &[Record]) -> Result<Timeline> {
    let mut joined = Timeline {
        end_ns: records.last().map_or(0, |record| record.ns),
        ..Timeline::default()
    };
    let mut open = Open::default();
    let mut watches: BTreeMap<u64, Watched> = BTreeMap::new();
    for record in records {
        let ns = record.ns;
        match &record.event {
            Event::Invoke {
                id,
                process,
                server,
                request,
            } => {
                let attempt = Attempt {
                    id: *id,
                    process: *process,
                    server: server.clone(),
                    request: request.clone(),
                    invoked_ns: ns,
                    ended_ns: joined.end_ns,
                    outcome: Outcome::Info(Failure::new(
                        "unfinished",
                        "the run ended before an answer came",
                    )),
                };
                open.invoke(attempt)?;
            }
            Event::Ok { id, reply } => {
                let outcome = Outcome::Ok(reply.clone());
                joined.attempts.push(open.close(*id, ns, outcome)?);
            }
            Event::Fail { id, error } => {
                let outcome = Outcome::Fail(error.clone());
                joined.attempts.push(open.close(*id, ns, outcome)?);
            }
            Event::Info { id, error } => {
                let outcome = Outcome::Info(error.clone());
                joined.attempts.push(open.close(*id, ns, outcome)?);
            }
            Event::Watch { watch, part } => see(&mut watches, ns, *watch, part)?,
            Event::Fault {
                number,
                kind,
                targets,
                phase,
            } => joined.fault(ns, *number, kind, targets, phase),
            Event::Leader { name, term } => joined.leaders.push((ns, name.clone(), *term)),
            Event::Term { name, member, term } => joined.terms.push(TermTold {
                ns,
                name: name.clone(),
                member: *member,
                term: *term,
            }),
        }
    }
    joined.attempts.extend(open.requests.into_values());
    joined
        .attempts
        .sort_by_key(|attempt| (attempt.invoked_ns, attempt.id));
    joined.watches = watches.into_values().collect();
    Ok(joined)
}

/// The requests without an end, and who sent them.
#[derive(Default)]
struct Open {
    requests: HashMap<u64, Attempt>,
    busy: HashMap<u64, u64>,
}

impl Open {
    fn invoke(&mut self, attempt: Attempt) -> Result<()> {
        let (process, id) = (attempt.process, attempt.id);
        if let Some(other) = self.busy.insert(process, id) {
            bail!(
                "process {process} sent request {id} while its request {other} was open or of unknown outcome"
            );
        }
        self.requests.insert(id, attempt);
        Ok(())
    }

    fn close(&mut self, id: u64, ns: u64, outcome: Outcome) -> Result<Attempt> {
        let mut attempt = self
            .requests
            .remove(&id)
            .with_context(|| format!("request {id} ended, but is not open"))?;
        if !matches!(outcome, Outcome::Info(_)) {
            self.busy.remove(&attempt.process);
        }
        attempt.ended_ns = ns;
        attempt.outcome = outcome;
        Ok(attempt)
    }
}

fn see(watches: &mut BTreeMap<u64, Watched>, ns: u64, watch: u64, part: &WatchPart) -> Result<()> {
    if let WatchPart::Asked { server, wanted } = part {
        let watched = Watched {
            id: watch,
            server: server.clone(),
            wanted: wanted.clone(),
            parts: Vec::new(),
        };
        if watches.insert(watch, watched).is_some() {
            bail!("watch {watch} was opened twice");
        }
        return Ok(());
    }
    let watched = watches
        .get_mut(&watch)
        .with_context(|| format!("something came through watch {watch}, which was not opened"))?;
    watched.parts.push((ns, part.clone()));
    Ok(())
}

impl Timeline {
    fn fault(&mut self, ns: u64, number: u32, kind: &str, targets: &[String], phase: &FaultPhase) {
        if let FaultPhase::Installed | FaultPhase::Skipped { .. } = phase {
            self.faults.push(FaultSpan {
                number,
                kind: kind.to_owned(),
                targets: targets.to_vec(),
                from_ns: ns,
                until_ns: None,
                skipped: None,
                indeterminate: None,
                effect: String::new(),
            });
        }
        let Some(fault) = self.faults.iter_mut().find(|fault| fault.number == number) else {
            return;
        };
        match phase {
            FaultPhase::Installed => return,
            FaultPhase::Skipped { reason } => fault.skipped = Some(reason.clone()),
            FaultPhase::Healed { effect } => fault.effect.clone_from(effect),
            FaultPhase::Indeterminate { reason } => fault.indeterminate = Some(reason.clone()),
        }
        fault.until_ns = Some(ns);
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
            r#"{"ns":1,"type":"invoke","id":1,"process":1,"server":"m1","f":"write","key":"k","value":7}
{"ns":2,"type":"invoke","id":2,"process":2,"server":"m1","f":"cas","key":"k","from":7,"value":8,"revision":5}
{"ns":3,"type":"info","id":1,"error":{"class":"interrupted","text":"no answer"}}
{"ns":4,"type":"fail","id":2,"error":{"class":"unreachable","text":"refused"}}
{"ns":5,"type":"invoke","id":3,"process":2,"server":"m2","f":"read","key":"k"}
{"ns":6,"type":"ok","id":3,"told":"value","value":7,"changed":6,"revision":9}
{"ns":7,"type":"invoke","id":4,"process":2,"server":"m2","f":"read","key":"k"}
{"ns":8,"type":"watch","watch":1,"part":"asked","server":"m1","wanted":{"from":0,"prev":true}}
{"ns":9,"type":"watch","watch":1,"part":"progress","revision":9}
{"ns":9,"type":"fault","number":1,"kind":"kill","targets":["m1"],"phase":"installed"}"#,
        )
        .expect("a history");
        let changed: Vec<bool> = joined
            .attempts
            .iter()
            .map(Attempt::may_have_changed)
            .collect();
        assert_eq!(changed, [true, false, false, false]);
        assert_eq!(joined.attempts[2].returned_ns(), Some(6));
        assert_eq!(joined.attempts[3].returned_ns(), None);
        assert_eq!(joined.watches[0].parts.len(), 1);
        assert_eq!((joined.faults.len(), joined.faults[0].until_ns), (1, None));
    }

    #[test]
    fn a_history_that_breaks_its_rules_is_refused() {
        let reused = r#"{"ns":1,"type":"invoke","id":1,"process":1,"server":"m1","f":"write","key":"k","value":7}
{"ns":2,"type":"info","id":1,"error":{"class":"interrupted","text":"no answer"}}
{"ns":3,"type":"invoke","id":2,"process":1,"server":"m1","f":"read","key":"k"}"#;
        let error = joined(reused).expect_err("a process after an unknown outcome");
        assert!(error.to_string().contains("process 1"), "{error}");
        let orphan = r#"{"ns":1,"type":"ok","id":1,"told":"done"}"#;
        assert!(joined(orphan).is_err());
        let orphan = r#"{"ns":1,"type":"watch","watch":1,"part":"progress","revision":9}"#;
        assert!(joined(orphan).is_err());
    }
}
