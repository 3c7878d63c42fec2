//! `ctl top`: what nodes and pods use now, as their agents measured it. Columns: those of `kubectl top`.

use crate::cli::{SortBy, Top, TopNodes, TopPods};
use crate::context::Context;
use crate::output;
use anyhow::{Result, bail};
use client::encode_segment;
use objects::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

pub async fn run(context: &Context, args: Top) -> Result<()> {
    match args {
        Top::Nodes(args) => nodes(context, &args).await,
        Top::Pods(args) => pods(context, &args).await,
    }
}

/// What is used, and of what it is told.
struct Line {
    words: Vec<String>,
    cpu_milli: i64,
    memory_bytes: i64,
}

impl Line {
    fn new(words: &[&str], usages: &[&Value]) -> Self {
        let sum = |resource: &str, unit: fn(Quantity) -> i64| {
            let read = |usage: &&Value| Quantity::parse(usage[resource].as_str()?).ok();
            let total = usages.iter().filter_map(read).reduce(Quantity::plus);
            total.map_or(0, unit)
        };
        Line {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            cpu_milli: sum("cpu", Quantity::milli),
            memory_bytes: sum("memory", Quantity::units),
        }
    }
}

fn sort(lines: &mut [Line], by: Option<SortBy>) {
    match by {
        None => lines.sort_by(|a, b| a.words.cmp(&b.words)),
        Some(SortBy::Cpu) => lines.sort_by_key(|line| std::cmp::Reverse(line.cpu_milli)),
        Some(SortBy::Memory) => lines.sort_by_key(|line| std::cmp::Reverse(line.memory_bytes)),
    }
}

async fn nodes(context: &Context, args: &TopNodes) -> Result<()> {
    let used = read(
        context,
        "nodes",
        args.name.as_deref(),
        args.selector.as_deref(),
    )
    .await?;
    let nodes: Value = context.client.get("/api/v1/nodes").await?;
    let allocatable: BTreeMap<&str, &Value> = items(&nodes)
        .iter()
        .map(|node| (name(node), &node["status"]["allocatable"]))
        .collect();
    let mut lines: Vec<Line> = used
        .iter()
        .map(|node| Line::new(&[name(node)], &[&node["usage"]]))
        .collect();
    sort(&mut lines, args.sort_by);
    let row = |line: Line| {
        let of = |resource: &str, unit: fn(Quantity) -> i64, used: i64| {
            let all = allocatable.get(line.words[0].as_str());
            let all = all.and_then(|all| Quantity::parse(all[resource].as_str()?).ok());
            match all.map(unit).filter(|all| *all > 0) {
                Some(all) => format!("{}%", used * 100 / all),
                None => "<unknown>".to_owned(),
            }
        };
        let cpu = of("cpu", Quantity::milli, line.cpu_milli);
        let memory = of("memory", Quantity::units, line.memory_bytes);
        let [used_cpu, used_memory] = amounts(&line);
        [line.words, vec![used_cpu, cpu, used_memory, memory]].concat()
    };
    let headers = ["Name", "CPU(cores)", "CPU(%)", "Memory(bytes)", "Memory(%)"];
    print(&headers, lines.into_iter().map(row).collect());
    Ok(())
}

async fn pods(context: &Context, args: &TopPods) -> Result<()> {
    let collection = match args.all_namespaces {
        true => "pods".to_owned(),
        false => format!("namespaces/{}/pods", encode_segment(&context.namespace)),
    };
    let used = read(
        context,
        &collection,
        args.name.as_deref(),
        args.selector.as_deref(),
    )
    .await?;
    let mut lines: Vec<Line> = used
        .iter()
        .flat_map(|pod| of_pod(pod, args.containers, args.all_namespaces))
        .collect();
    sort(&mut lines, args.sort_by);
    let row = |line: Line| {
        let used = amounts(&line);
        [line.words, used.to_vec()].concat()
    };
    let mut headers = vec!["Namespace", "Pod", "Name", "CPU(cores)", "Memory(bytes)"];
    if !args.containers {
        headers.remove(1);
    }
    if !args.all_namespaces {
        headers.remove(0);
    }
    print(&headers, lines.into_iter().map(row).collect());
    Ok(())
}

/// One line for the pod, or one for each of its containers.
fn of_pod(pod: &Value, containers: bool, namespaces: bool) -> Vec<Line> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let of = pod["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let words = |more: &[&str]| -> Vec<String> {
        let namespace = namespaces.then_some(namespace);
        let words = namespace.into_iter().chain([name(pod)]);
        words
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect()
    };
    let line = |words: Vec<String>, usages: &[&Value]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Line::new(&words, usages)
    };
    if !containers {
        let usages: Vec<&Value> = of.iter().map(|container| &container["usage"]).collect();
        return vec![line(words(&[]), &usages)];
    }
    let one = |container: &Value| {
        let name = container["name"].as_str().unwrap_or_default();
        line(words(&[name]), &[&container["usage"]])
    };
    of.iter().map(one).collect()
}

/// One object by its name, or those that a selector takes.
async fn read(
    context: &Context,
    collection: &str,
    name: Option<&str>,
    selector: Option<&str>,
) -> Result<Vec<Value>> {
    if let Some(name) = name {
        let path = format!("{METRICS}/{collection}/{}", encode_segment(name));
        return Ok(vec![context.client.get(&path).await?]);
    }
    let query = selector.map(|text| format!("?labelSelector={}", encode_segment(text)));
    let path = format!("{METRICS}/{collection}{}", query.unwrap_or_default());
    let list: Value = context.client.get(&path).await?;
    if items(&list).is_empty() {
        bail!("no metrics yet; agents measure every 10 s what has started since");
    }
    Ok(items(&list).to_vec())
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn amounts(line: &Line) -> [String; 2] {
    [
        format!("{}m", line.cpu_milli),
        format!("{}Mi", line.memory_bytes >> 20),
    ]
}

fn print(headers: &[&str], rows: Vec<Vec<String>>) {
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    output::table(&headers, rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "containers": [
            {"name": "a", "usage": {"cpu": "1500000n", "memory": "2Mi"}},
            {"name": "b", "usage": {"cpu": "250m", "memory": "1024Ki"}},
        ]});
        let show = |containers| -> Vec<(String, [String; 2])> {
            let lines = of_pod(&pod, containers, true);
            lines
                .iter()
                .map(|line| (line.words.join(" "), amounts(line)))
                .collect()
        };
        let line = |words: &str, cpu: &str, memory: &str| {
            (words.to_owned(), [cpu.to_owned(), memory.to_owned()])
        };
        assert_eq!(show(false), [line("shop web", "252m", "3Mi")]);
        assert_eq!(
            show(true),
            [
                line("shop web a", "2m", "2Mi"),
                line("shop web b", "250m", "1Mi")
            ]
        );
    }
}
