//! Sets of fields that were written when a type was granular, brought into line with a type that is owned as a whole now.
//! Rules: structured-merge-diff's `typed/reconcile_schema.go`. The other direction needs nothing: the owner of the whole goes
//! on owning it until somebody writes a part.

use super::element::Element;
use super::schema::{Relation, Type};
use super::set::{Node, Set};
use super::walk::{Fault, Form, form, resolve};

impl Type<'_> {
    /// `fields` as this type would have them.
    pub fn reconcile(self, fields: &Set) -> Result<Set, Fault> {
        let node = Node {
            member: false,
            below: fields.clone(),
        };
        Ok(reconcile(Some(self), &node)?.below)
    }
}

fn reconcile(r#type: Option<Type<'_>>, node: &Node) -> Result<Node, Fault> {
    let atom = resolve(r#type)?;
    let is_owned_whole = node.member && node.below.is_empty();
    let whole = Node {
        member: true,
        below: Set::default(),
    };
    match form(&atom)? {
        Form::Scalar(_) => Ok(node.clone()),
        Form::List(_, Relation::Atomic) if !is_owned_whole => Ok(whole),
        Form::List(..) => below(node, |_| Some(atom.element())),
        Form::Map(map, _) if map.deduced => Ok(node.clone()),
        Form::Map(_, Relation::Atomic) if !is_owned_whole => Ok(match node.below.is_empty() {
            true => node.clone(),
            false => whole,
        }),
        Form::Map(..) => below(node, |step| match step {
            Element::Field(name) => atom.member(name).map(Some),
            _ => None,
        }),
    }
}

/// Fields whose type is unknown stay as they are.
fn below<'s>(
    node: &Node,
    type_of: impl Fn(&Element) -> Option<Option<Type<'s>>>,
) -> Result<Node, Fault> {
    let mut out = Node {
        member: node.member,
        below: Set::default(),
    };
    for (step, inner) in node.below.nodes() {
        let inner = match type_of(step) {
            Some(r#type) => reconcile(r#type, inner)?,
            None => inner.clone(),
        };
        out.below.attach(step.clone(), inner);
    }
    Ok(out)
}
