//! Sets: elements are created once each, some are removed, and lists tell what is there. An acknowledged element is in every
//! list sent afterwards; what was refused or never added is in none; what was removed does not come back.

use super::Checked;
use super::anomaly::{Anomaly, Class};
use crate::history::{Attempt, Outcome, Request, Timeline, Told};
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Default)]
struct Set<'a> {
    adds: BTreeMap<u64, &'a Attempt>,
    removes: HashMap<u64, Vec<&'a Attempt>>,
    lists: Vec<(&'a Attempt, HashSet<u64>)>,
}

pub(super) fn check(timeline: &Timeline) -> Checked {
    let mut sets: BTreeMap<&str, Set> = BTreeMap::new();
    let mut checked = Checked::default();
    for attempt in &timeline.attempts {
        match &attempt.request {
            Request::Add { set, element } => {
                sets.entry(set).or_default().adds.insert(*element, attempt);
            }
            Request::Remove { set, element } => {
                let set = sets.entry(set).or_default();
                set.removes.entry(*element).or_default().push(attempt);
            }
            Request::Elements { set } => {
                let lists = &mut sets.entry(set).or_default().lists;
                if let Some(Told::Elements { elements }) = attempt.reply().map(|reply| &reply.told)
                {
                    lists.push((attempt, elements.iter().copied().collect()));
                }
            }
            _ => continue,
        }
        checked.ops += 1;
    }
    checked.subjects = sets.len();
    for (name, set) in &sets {
        checked.anomalies.extend(set.contradictions(name));
    }
    checked
}

impl Set<'_> {
    fn contradictions(&self, name: &str) -> Vec<Anomaly> {
        let mut found: Vec<Anomaly> = self
            .adds
            .iter()
            .filter_map(|(element, add)| self.of_element(name, *element, add))
            .collect();
        for (list, elements) in &self.lists {
            let unknown = elements
                .iter()
                .find(|element| !self.adds.contains_key(element));
            if let Some(element) = unknown {
                let why = format!("{element} is listed and was never added");
                found.push(Anomaly::new(Class::Phantom, name, *list, [], why));
            }
        }
        found
    }

    /// The first contradiction about an element.
    fn of_element(&self, name: &str, element: u64, add: &Attempt) -> Option<Anomaly> {
        let removes: &[&Attempt] = self.removes.get(&element).map_or(&[], Vec::as_slice);
        if let Outcome::Ok(reply) = &add.outcome
            && reply.told == (Told::Held { held: false })
        {
            let why = format!("{element} was there before it was added, and it was added once");
            return Some(Anomaly::new(Class::Duplicate, name, add, [], why));
        }
        let mut last_with: Option<&Attempt> = None;
        for (list, elements) in &self.lists {
            if elements.contains(&element) {
                if let Some(anomaly) = present(name, element, add, removes, list) {
                    return Some(anomaly);
                }
                last_with = Some(list);
                continue;
            }
            let may_be_gone = removes
                .iter()
                .any(|remove| remove.may_have_changed() && remove.invoked_ns <= list.ended_ns);
            let is_due = add.is_before(list) && add.reply().is_some();
            let was_there = last_with.filter(|earlier| earlier.is_before(list));
            if may_be_gone || !is_due && was_there.is_none() {
                continue;
            }
            return Some(self.missing(name, element, add, was_there, list));
        }
        None
    }

    fn missing(
        &self,
        name: &str,
        element: u64,
        add: &Attempt,
        was_there: Option<&Attempt>,
        list: &Attempt,
    ) -> Anomaly {
        let is_there_later = self
            .lists
            .iter()
            .any(|(later, elements)| later.ended_ns > list.ended_ns && elements.contains(&element));
        let (class, end) = if is_there_later {
            (Class::StaleRead, "a later one has it again")
        } else {
            (Class::LostWrite, "no later one has it")
        };
        let why = format!(
            "{element} was acknowledged or listed before this list was asked for, and is not in it; {end}"
        );
        let against = std::iter::once(add).chain(was_there);
        Anomaly::new(class, name, list, against, why)
    }
}

/// What is wrong with an element being listed.
fn present(
    name: &str,
    element: u64,
    add: &Attempt,
    removes: &[&Attempt],
    list: &Attempt,
) -> Option<Anomaly> {
    if matches!(add.outcome, Outcome::Fail(_)) {
        let why = format!("{element} is listed, though adding it was refused");
        return Some(Anomaly::new(Class::Phantom, name, list, [add], why));
    }
    if list.is_before(add) {
        let why = format!("{element} is listed before it was added");
        return Some(Anomaly::new(Class::Phantom, name, list, [add], why));
    }
    let removed = removes
        .iter()
        .find(|remove| remove.is_before(list) && remove.reply().is_some())?;
    let why = format!("{element} is listed, though its removal was acknowledged");
    Some(Anomaly::new(
        Class::Resurrected,
        name,
        list,
        [add, removed],
        why,
    ))
}
