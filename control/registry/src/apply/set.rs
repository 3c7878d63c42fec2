//! Sets of paths, as trees: who owns which fields of an object. A path's ancestors are no members because it is one.
//! Semantics and the order of walks: structured-merge-diff's `fieldpath.Set`.

use super::element::{Element, ElementError, Path};
use super::schema::Type;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A set of paths. Equal sets are equal trees: no branch is without members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<Element, Node>,
}

/// What a set holds of a place: the place itself, and places below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether the place itself is in the set.
    pub member: bool,
    /// What lies below it.
    pub below: Set,
}

impl Node {
    /// Whether nothing is at the place and below it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// A set of these paths.
    pub fn of(paths: impl IntoIterator<Item = Path>) -> Self {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path);
        }
        set
    }

    /// Adds a path. Nobody owns an object as a whole, so that the empty path is passed over.
    pub fn insert(&mut self, path: &Path) {
        let mut elements = path.0.iter();
        let Some(first) = elements.next() else {
            return;
        };
        let mut node = self.nodes.entry(first.clone()).or_default();
        for element in elements {
            node = node.below.nodes.entry(element.clone()).or_default();
        }
        node.member = true;
    }

    /// Puts what belongs at a place; an empty node leaves nothing.
    pub(super) fn attach(&mut self, element: Element, node: Node) {
        if node.is_empty() {
            return;
        }
        let slot = self.nodes.entry(element).or_default();
        slot.member |= node.member;
        slot.below = match slot.below.is_empty() {
            true => node.below,
            false => slot.below.union(&node.below),
        };
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether the path is a member.
    pub fn has(&self, path: &Path) -> bool {
        let Some((last, parents)) = path.0.split_last() else {
            return false;
        };
        let parent = parents
            .iter()
            .try_fold(self, |set, element| Some(&set.nodes.get(element)?.below));
        parent.is_some_and(|set| set.has_member(last))
    }

    /// Whether the place at the top is a member.
    pub fn has_member(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// What lies below a place; None when nothing does.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        let below = &self.nodes.get(element)?.below;
        (!below.is_empty()).then_some(below)
    }

    /// The places at the top.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.nodes.iter()
    }

    /// What is in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        for (element, node) in &other.nodes {
            union.attach(element.clone(), node.clone());
        }
        union
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.pick(|element, node| {
            let Some(theirs) = other.nodes.get(element) else {
                return Node::default();
            };
            Node {
                member: node.member && theirs.member,
                below: node.below.intersection(&theirs.below),
            }
        })
    }

    /// What is in this one only. A member of the other takes nothing of what lies below it.
    pub fn difference(&self, other: &Set) -> Set {
        self.pick(|element, node| {
            let Some(theirs) = other.nodes.get(element) else {
                return node.clone();
            };
            Node {
                member: node.member && !theirs.member,
                below: node.below.difference(&theirs.below),
            }
        })
    }

    /// What is in this one only. A member of the other takes all that lies below it.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        self.pick(|element, node| match other.nodes.get(element) {
            None => node.clone(),
            Some(theirs) if theirs.member => Node::default(),
            Some(theirs) => Node {
                member: node.member,
                below: node.below.recursive_difference(&theirs.below),
            },
        })
    }

    /// The members below which no other member lies.
    pub fn leaves(&self) -> Set {
        self.pick(|_, node| Node {
            member: node.member && node.below.is_empty(),
            below: node.below.leaves(),
        })
    }

    /// With the members of structs on the way to other members. Those of maps and lists stay out: they are items that
    /// somebody must have named to own.
    pub fn with_named_fields(&self, r#type: Option<Type<'_>>) -> Set {
        self.pick(|element, node| {
            let atom = r#type.and_then(Type::atom);
            let (named, inner) = match (element, atom) {
                (Element::Field(name), Some(atom)) => match atom.map {
                    Some(map) => (map.fields.contains_key(name), atom.member(name)),
                    None => (false, None),
                },
                (Element::Key(_), Some(atom)) => (false, atom.element()),
                _ => (false, None),
            };
            Node {
                member: node.member || (named && !node.below.is_empty()),
                below: node.below.with_named_fields(inner),
            }
        })
    }

    fn pick(&self, pick: impl Fn(&Element, &Node) -> Node) -> Set {
        let picked = self
            .nodes
            .iter()
            .map(|(element, node)| (element, pick(element, node)))
            .filter(|(_, node)| !node.is_empty());
        Set {
            nodes: picked
                .map(|(element, node)| (element.clone(), node))
                .collect(),
        }
    }

    /// Its paths: the members of a level come before what lies below them.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Path>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            let mut path = prefix.clone();
            path.push(element.clone());
            paths.push(Path(path));
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// As FieldsV1: a map of steps; `.` says that the place is a member although others lie below it.
    pub fn encode(&self) -> Value {
        Value::Object(self.encode_map(false))
    }

    fn encode_map(&self, with_self: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if with_self && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in &self.nodes {
            let below = node.below.encode_map(node.member);
            map.insert(element.encode(), Value::Object(below));
        }
        map
    }

    /// Reads FieldsV1. Steps of unknown kinds are passed over.
    pub fn decode(fields: &Value) -> Result<Set, ElementError> {
        Ok(decode_node(fields)?.below)
    }
}

/// A place is a member when it says so, or when nothing lies below it.
fn decode_node(fields: &Value) -> Result<Node, ElementError> {
    let mut node = Node::default();
    for (step, inner) in fields.as_object().into_iter().flatten() {
        if step == "." {
            node.member = true;
            continue;
        }
        match Element::parse(step) {
            Ok(element) => node.below.attach(element, decode_node(inner)?),
            Err(ElementError::Unknown) => {}
            Err(error) => return Err(error),
        }
    }
    node.member |= node.below.is_empty();
    Ok(node)
}

impl fmt::Display for Set {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.paths().iter().map(Path::to_string).collect();
        out.write_str(&paths.join("\n"))
    }
}
