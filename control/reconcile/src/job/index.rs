//! The indexes of an Indexed job: in pods' marks, and as text (`0-2,5`). Semantics: batch/v1 `completionMode`.

use crate::names;
use crate::view;
use k8s_openapi::api::core::v1::Pod;
use objects::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MARK: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The index of a pod.
pub fn of(pod: &Pod) -> Option<usize> {
    view::annotation(&pod.metadata, MARK)?.parse().ok()
}

/// The name of an index's pod, the number telling tries apart.
pub fn pod_name(job: &str, uid: &str, index: usize, number: usize) -> String {
    names::pod(&format!("{job}-{index}"), uid, number)
}

/// Tells the pod its index: by label, annotation, host name, and a variable in each container.
pub fn mark(pod: &mut Object, job: &str, index: usize) {
    let text = index.to_string();
    pod.metadata
        .annotations
        .insert(MARK.to_owned(), text.clone());
    pod.metadata.labels.insert(MARK.to_owned(), text.clone());
    let Some(spec) = pod.body.get_mut("spec") else {
        return;
    };
    spec["hostname"] = json!(format!("{job}-{index}"));
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let variable = json!({ "name": VARIABLE, "value": text });
            match container.get_mut("env").and_then(Value::as_array_mut) {
                Some(env) => {
                    let own = env.iter().any(|known| known["name"] == VARIABLE);
                    if !own {
                        env.push(variable);
                    }
                }
                None => container["env"] = json!([variable]),
            }
        }
    }
}

/// Reads `0-2,5`; what is no number is left out.
pub fn parse(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Writes `0-2,5`.
pub fn format(indexes: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let texts: Vec<String> = ranges
        .iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        for (text, count) in [("", 0), ("0", 1), ("0,1", 2), ("0-2", 3), ("0-2,5,7,8", 6)] {
            let indexes = parse(text);
            assert_eq!(indexes.len(), count, "{text}");
            assert_eq!(format(&indexes), text);
        }
        assert_eq!(parse("x,1-,2"), BTreeSet::from([2]));
    }
}
