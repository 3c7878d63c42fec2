//! What an expression may cost at most, said before it is ever evaluated: of the sizes that its variables may have.
//!
//! Follows cel-go's cost checker with Kubernetes' factors. Where a size cannot be known the least is taken, so that an estimate is never
//! above theirs: what is refused by it would be refused by Kubernetes too.

use crate::Program;
use crate::macros::ident;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const LIST: u64 = 10;
const MAP: u64 = 30;
const STRUCT: u64 = 40;
/// Letters that are looked at for one unit.
const LETTERS: u64 = 10;
/// Letters of a regular expression for one unit.
const PATTERN_LETTERS: u64 = 4;

/// How much a value may hold.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// The most letters of a text, elements of a list or pairs of a map; 1 for what has no size.
    pub most: u64,
    /// That of each element of a list or value of a map.
    pub items: Option<Arc<Extent>>,
    /// Whether it is a list.
    pub is_list: bool,
    /// Those of the fields of an object, by their names in expressions.
    pub fields: BTreeMap<String, Extent>,
}

/// The most that a program may cost, given the extents of its variables.
pub fn cost(program: &Program, variables: &[(&str, &Extent)]) -> u64 {
    let known = variables.iter().map(|(name, extent)| {
        let value = Estimate {
            cost: 0,
            most: extent.most,
            extent: Some(extent),
        };
        ((*name).to_owned(), value)
    });
    let mut coster = Coster {
        scope: known.collect(),
    };
    coster.of(&program.expression).cost
}

/// What is said of an expression.
#[derive(Clone, Copy)]
struct Estimate<'a> {
    cost: u64,
    /// The most of its value.
    most: u64,
    extent: Option<&'a Extent>,
}

impl Estimate<'_> {
    fn of(cost: u64, most: u64) -> Self {
        Estimate {
            cost,
            most,
            extent: None,
        }
    }
}

/// Looking at so many letters.
fn traversal(letters: u64) -> u64 {
    letters.div_ceil(LETTERS)
}

struct Coster<'a> {
    scope: Vec<(String, Estimate<'a>)>,
}

impl<'a> Coster<'a> {
    fn of(&mut self, expr: &IdedExpr) -> Estimate<'a> {
        match &expr.expr {
            Expr::Literal(literal) => Estimate::of(0, letters(literal)),
            Expr::Ident(name) => {
                let known = self.scope.iter().rev().find(|(known, _)| known == name);
                let known = known.map_or(Estimate::of(0, 1), |(_, known)| *known);
                Estimate { cost: 1, ..known }
            }
            Expr::Select(select) => {
                let operand = self.of(&select.operand);
                let cost = operand.cost.saturating_add(1);
                match operand
                    .extent
                    .and_then(|extent| below(extent, &select.field))
                {
                    _ if select.test => Estimate::of(cost, 1),
                    None => Estimate::of(cost, 1),
                    Some(extent) => Estimate {
                        cost,
                        most: extent.most,
                        extent: Some(extent),
                    },
                }
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let parts = self.sum(&list.elements);
                Estimate::of(parts.saturating_add(LIST), list.elements.len() as u64)
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| &entry.expr);
                let parts = self.entries(entries);
                Estimate::of(parts.saturating_add(MAP), map.entries.len() as u64)
            }
            Expr::Struct(made) => {
                let parts = self.entries(made.entries.iter().map(|entry| &entry.expr));
                Estimate::of(parts.saturating_add(STRUCT), 1)
            }
            Expr::Comprehension(walk) => self.walk(walk),
            Expr::Unspecified => Estimate::of(0, 1),
        }
    }

    fn sum(&mut self, parts: &[IdedExpr]) -> u64 {
        let costs = parts.iter().map(|part| self.of(part).cost);
        costs.fold(0, u64::saturating_add)
    }

    fn entries<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> u64 {
        let mut cost: u64 = 0;
        for entry in entries {
            let part = match entry {
                EntryExpr::StructField(field) => self.of(&field.value).cost,
                EntryExpr::MapEntry(entry) => {
                    let key = self.of(&entry.key).cost;
                    key.saturating_add(self.of(&entry.value).cost)
                }
            };
            cost = cost.saturating_add(part);
        }
        cost
    }

    fn call(&mut self, call: &CallExpr) -> Estimate<'a> {
        if let Some(answer) = self.binding(call) {
            return answer;
        }
        let target = call.target.as_deref();
        let parts: Vec<Estimate<'a>> = target
            .into_iter()
            .chain(&call.args)
            .map(|part| self.of(part))
            .collect();
        let args = parts
            .iter()
            .fold(0, |sum: u64, part| sum.saturating_add(part.cost));
        let most = |at: usize| parts.get(at).map_or(1, |part| part.most);
        let name = call.func_name.as_str();
        let (own, size) = match (name, parts.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, _) => (0, 1),
            (op::CONDITIONAL, [condition, then, otherwise]) => {
                let longer = then.cost.max(otherwise.cost);
                let size = then.most.max(otherwise.most);
                return Estimate::of(condition.cost.saturating_add(longer), size);
            }
            (op::INDEX | op::OPT_INDEX, [of, _]) => {
                let found = of.extent.and_then(|extent| extent.items.as_deref());
                return Estimate {
                    cost: args.saturating_add(1),
                    most: found.map_or(1, |extent| extent.most),
                    extent: found,
                };
            }
            (op::ADD, [one, other]) => {
                let both = one.most.saturating_add(other.most);
                (traversal(both), both)
            }
            (op::IN, [_, of]) => (of.most, 1),
            ("contains", [text, part]) => {
                (traversal(text.most).saturating_mul(traversal(part.most)), 1)
            }
            ("startsWith" | "endsWith", [_, part]) => (traversal(part.most), 1),
            ("matches" | "find" | "findAll", [text, pattern, ..]) => {
                let pattern = pattern.most.div_ceil(PATTERN_LETTERS);
                (
                    traversal(text.most.saturating_add(1)).saturating_mul(pattern),
                    most(0),
                )
            }
            ("isSorted" | "sum" | "max" | "min", [of]) => (of.most, 1),
            (
                "url" | "isURL" | "lowerAscii" | "upperAscii" | "replace" | "split" | "substring"
                | "trim" | "quantity" | "isQuantity",
                [text, ..],
            ) => (traversal(text.most), text.most),
            (operator, [one, other]) if crate::operators::is_binary(operator) => {
                let compares = !matches!(
                    operator,
                    op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO
                );
                let shorter = if compares {
                    one.most.min(other.most)
                } else {
                    1
                };
                (traversal(shorter), 1)
            }
            _ => (1, 1),
        };
        Estimate::of(args.saturating_add(own), size)
    }

    /// Macros that stay calls: `cel.bind` is done once, those with two variables for each element.
    fn binding(&mut self, call: &CallExpr) -> Option<Estimate<'a>> {
        let target = call.target.as_deref()?;
        let names: Vec<&str> = call.args.iter().map_while(ident).collect();
        match (
            call.func_name.as_str(),
            call.args.as_slice(),
            names.as_slice(),
        ) {
            ("bind", [_, value, then], [name, ..]) if ident(target) == Some("cel") => {
                let value = self.of(value);
                let then = self.within(vec![((*name).to_owned(), value)], |coster| coster.of(then));
                let cost = value.cost.saturating_add(then.cost);
                Some(Estimate { cost, ..then })
            }
            (
                "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap",
                [_, _, rest @ ..],
                [key, value, ..],
            ) if !rest.is_empty() && rest.len() <= 2 => {
                let range = self.of(target);
                let element = element(&range);
                let bound = vec![
                    ((*key).to_owned(), Estimate::of(0, 1)),
                    ((*value).to_owned(), element),
                ];
                let step = self.within(bound, |coster| coster.sum(rest));
                let cost = range.cost.saturating_add(range.most.saturating_mul(step));
                Some(Estimate::of(cost, range.most))
            }
            _ => None,
        }
    }

    fn walk(&mut self, walk: &ComprehensionExpr) -> Estimate<'a> {
        let range = self.of(&walk.iter_range);
        let start = self.of(&walk.accu_init);
        let result = (walk.accu_var.clone(), Estimate::of(0, start.most.max(1)));
        let bound = vec![result.clone(), (walk.iter_var.clone(), element(&range))];
        let step = self.within(bound, |coster| {
            let condition = coster.of(&walk.loop_cond).cost;
            condition.saturating_add(coster.of(&walk.loop_step).cost)
        });
        let last = self.within(vec![result], |coster| coster.of(&walk.result));
        let cost = [start.cost, last.cost, range.most.saturating_mul(step)];
        let cost = cost.into_iter().fold(range.cost, u64::saturating_add);
        // A filtered or mapped list is as long as its range at most; a truth has no size.
        let most = match &walk.accu_init.expr {
            Expr::List(_) => range.most,
            _ => 1,
        };
        Estimate::of(cost, most)
    }

    fn within<T>(
        &mut self,
        bound: Vec<(String, Estimate<'a>)>,
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.scope.len();
        self.scope.extend(bound);
        let answer = act(self);
        self.scope.truncate(before);
        answer
    }
}

/// An element of what is walked over: of a map its key, of which nothing is known.
fn element<'a>(range: &Estimate<'a>) -> Estimate<'a> {
    let is_list = range.extent.is_some_and(|extent| extent.is_list);
    let items = range.extent.and_then(|extent| extent.items.as_deref());
    match items.filter(|_| is_list) {
        None => Estimate::of(0, 1),
        Some(extent) => Estimate {
            cost: 0,
            most: extent.most,
            extent: Some(extent),
        },
    }
}

fn below<'a>(extent: &'a Extent, field: &str) -> Option<&'a Extent> {
    let values = || extent.items.as_deref().filter(|_| !extent.is_list);
    extent.fields.get(field).or_else(values)
}

fn letters(literal: &LiteralValue) -> u64 {
    match literal {
        LiteralValue::String(text) => text.inner().len() as u64,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Shape, compile};

    fn estimate(text: &str) -> u64 {
        let name = Extent {
            most: 100,
            ..Extent::default()
        };
        let names = Extent {
            most: 1_000,
            items: Some(Arc::new(name)),
            is_list: true,
            ..Extent::default()
        };
        let own = Extent {
            most: 1,
            fields: [("names".to_owned(), names)].into(),
            ..Extent::default()
        };
        let shape = Shape::object([("names".to_owned(), Shape::list(Shape::String))]);
        let environment = Environment::new().variable("self", shape);
        let program = compile(text, &environment).expect("compiles");
        cost(&program, &[("self", &own)])
    }

    #[test]
    fn nested_walks_multiply() {
        let once = estimate("self.names.all(n, n == 'x')");
        assert!((1_000..20_000).contains(&once), "{once}");
        let twice = estimate("self.names.all(a, self.names.all(b, a != b))");
        assert!((1_000_000..100_000_000).contains(&twice), "{twice}");
        let thrice =
            estimate("self.names.all(a, self.names.all(b, self.names.all(c, a != b + c)))");
        assert!(thrice > 1_000_000_000, "{thrice}");
    }

    #[test]
    fn what_is_known_to_be_small_is_cheap() {
        for text in [
            "true",
            "size(self.names) < 5",
            "has(self.names) ? self.names[0] == 'a' : false",
        ] {
            assert!(estimate(text) < 50, "{text}: {}", estimate(text));
        }
    }
}
