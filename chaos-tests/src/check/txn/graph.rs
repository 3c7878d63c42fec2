//! Who depends on whom, and the circles in it (Tarjan, 1972). Pure, without recursion.

use super::super::anomaly::Class;
use std::collections::{HashMap, HashSet, VecDeque};

/// Nodes of one component from which circles are looked for.
const STARTS_MAX: usize = 200;

/// Why one comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The second overwrote what the first wrote.
    Overwrote,
    /// The second read what the first wrote.
    WasRead,
    /// The second overwrote what the first read.
    ReadBefore,
    /// The first was over before the second was sent.
    RealTime,
}

/// An arrow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge<'a> {
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
    pub key: Option<&'a str>,
}

/// The graph. Nodes from `txs` on are instants, which stand for real time without an arrow for each pair.
pub(super) struct Graph<'a> {
    txs: usize,
    out: Vec<Vec<Edge<'a>>>,
}

impl<'a> Graph<'a> {
    pub fn new(txs: usize) -> Self {
        Graph {
            txs,
            out: vec![Vec::new(); txs],
        }
    }

    pub fn add(&mut self, edge: Edge<'a>) {
        self.out[edge.from].push(edge);
    }

    /// Adds an instant for each return: its transaction leads there, each instant to the next, and the newest instant before
    /// a transaction was sent leads to it.
    pub fn add_real_time(&mut self, spans: &[(u64, Option<u64>)]) {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (at, (invoked, returned)) in spans.iter().enumerate() {
            events.push((*invoked, false, at));
            events.extend(returned.map(|returned| (returned, true, at)));
        }
        // At the same instant what is sent comes first: the two count as concurrent.
        events.sort_unstable();
        let mut newest: Option<usize> = None;
        for (_, is_return, at) in events {
            let (kind, key) = (Kind::RealTime, None);
            let arrow = |graph: &mut Self, from, to| {
                graph.add(Edge {
                    from,
                    to,
                    kind,
                    key,
                });
            };
            if is_return {
                self.out.push(Vec::new());
                let instant = self.out.len() - 1;
                if let Some(before) = newest {
                    arrow(self, before, instant);
                }
                arrow(self, at, instant);
                newest = Some(instant);
            } else if let Some(before) = newest {
                arrow(self, before, at);
            }
        }
    }

    /// A circle of each component that has any, the worst kind that it has; instants are left out of it.
    pub fn circles(&self) -> Vec<(Class, Vec<Edge<'a>>)> {
        self.components()
            .into_iter()
            .filter_map(|component| self.worst_circle(&component))
            .collect()
    }

    fn worst_circle(&self, component: &[usize]) -> Option<(Class, Vec<Edge<'a>>)> {
        let inside: HashSet<usize> = component.iter().copied().collect();
        let kinds = [
            (Class::G0, false, false, 0),
            (Class::G1c, true, false, 0),
            (Class::GSingle, true, false, 1),
            (Class::G2, true, false, 2),
            (Class::G0Realtime, false, true, 0),
            (Class::G1cRealtime, true, true, 0),
            (Class::GSingleRealtime, true, true, 1),
            (Class::G2Realtime, true, true, 2),
        ];
        kinds
            .into_iter()
            .find_map(|(class, reads, real_time, outdated)| {
                let wanted = |kind: Kind| match kind {
                    Kind::Overwrote => true,
                    Kind::WasRead => reads,
                    Kind::RealTime => real_time,
                    Kind::ReadBefore => outdated > 1,
                };
                let circle = if outdated == 1 {
                    self.circle_with_one_outdated(component, &inside, wanted)
                } else {
                    let starts = component.iter().filter(|node| **node < self.txs);
                    starts
                        .take(STARTS_MAX)
                        .filter_map(|start| self.path(*start, *start, &inside, &wanted))
                        .min_by_key(Vec::len)
                };
                circle.map(|circle| (class, self.without_instants(&circle)))
            })
    }

    fn circle_with_one_outdated(
        &self,
        component: &[usize],
        inside: &HashSet<usize>,
        wanted: impl Fn(Kind) -> bool,
    ) -> Option<Vec<Edge<'a>>> {
        let outdated = component
            .iter()
            .flat_map(|node| &self.out[*node])
            .filter(|edge| edge.kind == Kind::ReadBefore && inside.contains(&edge.to));
        outdated
            .take(STARTS_MAX)
            .filter_map(|edge| {
                let mut back = self.path(edge.to, edge.from, inside, &wanted)?;
                back.insert(0, *edge);
                Some(back)
            })
            .min_by_key(Vec::len)
    }

    /// The shortest way of at least one arrow.
    fn path(
        &self,
        from: usize,
        to: usize,
        inside: &HashSet<usize>,
        wanted: &impl Fn(Kind) -> bool,
    ) -> Option<Vec<Edge<'a>>> {
        let mut came_by: HashMap<usize, Edge> = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for edge in &self.out[node] {
                if !wanted(edge.kind) || !inside.contains(&edge.to) {
                    continue;
                }
                if edge.to == to {
                    let mut way = vec![*edge];
                    let mut at = node;
                    while at != from {
                        let edge = came_by[&at];
                        way.push(edge);
                        at = edge.from;
                    }
                    way.reverse();
                    return Some(way);
                }
                if edge.to != from && !came_by.contains_key(&edge.to) {
                    came_by.insert(edge.to, *edge);
                    queue.push_back(edge.to);
                }
            }
        }
        None
    }

    /// A way through instants is one arrow of real time between two transactions.
    fn without_instants(&self, circle: &[Edge<'a>]) -> Vec<Edge<'a>> {
        let first = circle
            .iter()
            .position(|edge| edge.from < self.txs)
            .unwrap_or(0);
        let rotated = circle[first..].iter().chain(&circle[..first]);
        let mut told: Vec<Edge> = Vec::new();
        for edge in rotated {
            match told.last_mut() {
                Some(last) if last.to >= self.txs => last.to = edge.to,
                _ => told.push(*edge),
            }
        }
        told
    }

    /// The strongly connected components of more than one node.
    fn components(&self) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let nodes = self.out.len();
        let (mut index, mut low) = (vec![UNSEEN; nodes], vec![0; nodes]);
        let mut on_stack = vec![false; nodes];
        let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0);
        for root in 0..nodes {
            if index[root] != UNSEEN {
                continue;
            }
            let mut work: Vec<(usize, usize)> = vec![(root, 0)];
            while let Some((node, edge)) = work.pop() {
                if edge == 0 {
                    index[node] = next;
                    low[node] = next;
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some(arrow) = self.out[node].get(edge) {
                    work.push((node, edge + 1));
                    if index[arrow.to] == UNSEEN {
                        work.push((arrow.to, 0));
                    } else if on_stack[arrow.to] {
                        low[node] = low[node].min(index[arrow.to]);
                    }
                    continue;
                }
                if let Some((parent, _)) = work.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == index[node] {
                    let from = stack
                        .iter()
                        .rposition(|other| *other == node)
                        .expect("a node is on the stack until its component is closed");
                    let component = stack.split_off(from);
                    for member in &component {
                        on_stack[*member] = false;
                    }
                    if component.len() > 1 {
                        found.push(component);
                    }
                }
            }
        }
        found
    }
}
