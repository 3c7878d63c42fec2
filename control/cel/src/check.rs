//! What can be said of an expression before it is evaluated: names that nobody declared, fields that a type does not have, operators
//! on types that never go together. Where a type is not known, nothing is said.

use crate::compile::{CompileError, Environment, error_text};
use crate::library;
use crate::macros::ident;
use crate::operators::TYPES;
use crate::shape::{ListKind, Shape};
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr,
};
use std::sync::Arc;

/// The type of the answer; an error when the expression can never be evaluated.
pub fn check(
    text: &str,
    expression: &IdedExpr,
    environment: &Environment,
) -> Result<Shape, CompileError> {
    let mut checker = Checker {
        text,
        environment,
        scope: Vec::new(),
    };
    checker.shape(expression)
}

struct Checker<'a> {
    text: &'a str,
    environment: &'a Environment,
    scope: Vec<(String, Shape)>,
}

impl Checker<'_> {
    fn shape(&mut self, expr: &IdedExpr) -> Result<Shape, CompileError> {
        match &expr.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.named(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let mut of: Option<Shape> = None;
                for element in &list.elements {
                    let shape = self.shape(element)?;
                    of = Some(match of {
                        Some(before) if before != shape => Shape::Any,
                        _ => shape,
                    });
                }
                Ok(Shape::list(of.unwrap_or_default()))
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(made) => self.entries(made.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(walk) => self.walk(walk),
            Expr::Unspecified => Err(CompileError(
                "ERROR: <input>:1:1: Syntax error: the expression is empty".into(),
            )),
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
    ) -> Result<Shape, CompileError> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => {
                    self.shape(&field.value)?;
                }
                EntryExpr::MapEntry(entry) => {
                    self.shape(&entry.key)?;
                    self.shape(&entry.value)?;
                }
            }
        }
        Ok(Shape::Map(Arc::new(Shape::Any)))
    }

    fn is_declared(&self, name: &str) -> bool {
        let environment = self.environment;
        self.scope.iter().any(|(known, _)| known == name)
            || environment.variables.contains_key(name)
            || (name == "variables" && environment.composed.is_some())
            || (name == "authorizer" && environment.authorizer)
    }

    fn named(&self, name: &str) -> Result<Shape, CompileError> {
        let scoped = self.scope.iter().rev().find(|(known, _)| known == name);
        if let Some((_, shape)) = scoped {
            return Ok(shape.clone());
        }
        if let Some(shape) = self.environment.variables.get(name) {
            return Ok(shape.clone());
        }
        match (name, &self.environment.composed) {
            ("variables", Some(known)) => {
                let fields = known
                    .iter()
                    .map(|(name, shape)| (name.clone(), shape.clone()));
                Ok(Shape::object(fields))
            }
            ("authorizer", _) if self.environment.authorizer => Ok(Shape::Any),
            _ if TYPES.contains(&name) => Ok(Shape::Any),
            _ => Err(self.error(name, false, &undeclared(name))),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Shape, CompileError> {
        let operand = self.shape(&select.operand)?;
        let found = self.field(&operand, &select.field)?;
        Ok(if select.test { Shape::Bool } else { found })
    }

    fn field(&self, operand: &Shape, name: &str) -> Result<Shape, CompileError> {
        match operand {
            Shape::Any => Ok(Shape::Any),
            Shape::Map(of) => Ok((**of).clone()),
            Shape::Object(fields) => {
                let by_json = || fields.values().find(|field| field.name == name);
                let field = fields.get(name).or_else(by_json);
                let unknown = || self.error(name, true, &format!("undefined field '{name}'"));
                field.map(|field| field.shape.clone()).ok_or_else(unknown)
            }
            Shape::Optional(of) => Ok(Shape::Optional(Arc::new(self.field(of, name)?))),
            other => {
                let told = format!("type '{}' does not support field selection", other.word());
                Err(self.error(name, true, &told))
            }
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Shape, CompileError> {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (op::CONDITIONAL, [condition, then, otherwise]) => {
                self.expect_bool(name, condition)?;
                let (then, otherwise) = (self.shape(then)?, self.shape(otherwise)?);
                Ok(if then == otherwise { then } else { Shape::Any })
            }
            (op::LOGICAL_AND | op::LOGICAL_OR, [one, other]) => {
                self.expect_bool(name, one)?;
                self.expect_bool(name, other)?;
                Ok(Shape::Bool)
            }
            (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [one]) => {
                self.expect_bool(name, one)?;
                Ok(Shape::Bool)
            }
            (op::NEGATE, [one]) => self.shape(one),
            (op::OPT_SELECT, [operand, field]) => {
                let operand = self.shape(operand)?;
                let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
                    return Ok(Shape::Any);
                };
                Ok(match self.field(&operand, field.inner())? {
                    optional @ Shape::Optional(_) => optional,
                    shape => Shape::Optional(Arc::new(shape)),
                })
            }
            (op::INDEX | op::OPT_INDEX, [operand, index]) => {
                let (operand, _) = (self.shape(operand)?, self.shape(index)?);
                let found = match operand {
                    Shape::List(of, _) | Shape::Map(of) => (*of).clone(),
                    _ => Shape::Any,
                };
                Ok(match name {
                    op::OPT_INDEX => Shape::Optional(Arc::new(found)),
                    _ => found,
                })
            }
            (op::IN, [one, other]) => {
                self.shape(one)?;
                self.shape(other)?;
                Ok(Shape::Bool)
            }
            (operator, [one, other]) if crate::operators::is_binary(operator) => {
                let (one, other) = (self.shape(one)?, self.shape(other)?);
                self.operator(operator, one, &other)
            }
            _ => self.function(call),
        }
    }

    fn expect_bool(&mut self, operator: &str, expr: &IdedExpr) -> Result<(), CompileError> {
        match self.shape(expr)? {
            Shape::Bool | Shape::Any => Ok(()),
            other => Err(self.no_overload(operator, &[&other])),
        }
    }

    fn operator(&self, operator: &str, one: Shape, other: &Shape) -> Result<Shape, CompileError> {
        let compares = !matches!(
            operator,
            op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO
        );
        if let (Shape::List(ones, _), Shape::List(others, _), op::ADD) = (&one, other, operator) {
            return Ok(Shape::list(joined(ones, others)));
        }
        let known = |shape: &Shape| scalar(shape).is_some();
        let numbers = matches!(one, Shape::Int | Shape::Double)
            && matches!(other, Shape::Int | Shape::Double);
        let times = |shape: &Shape| matches!(shape, Shape::Timestamp | Shape::Duration);
        let fit = one == *other
            || !known(&one)
            || !known(other)
            || (numbers && compares)
            || (times(&one) && times(other) && !compares)
            || matches!(operator, op::EQUALS | op::NOT_EQUALS)
                && (one == Shape::Null || *other == Shape::Null);
        if !fit {
            return Err(self.no_overload(operator, &[&one, other]));
        }
        Ok(match compares {
            true => Shape::Bool,
            false if times(&one) || times(other) => Shape::Any,
            false => one,
        })
    }

    fn function(&mut self, call: &CallExpr) -> Result<Shape, CompileError> {
        if let Some(answer) = self.binding(call) {
            return answer;
        }
        let name = call.func_name.as_str();
        let place = call.target.as_deref().and_then(ident);
        let place = place.filter(|name| library::PLACES.contains(name) && !self.is_declared(name));
        let target = match (&call.target, place) {
            (Some(target), None) => Some(self.shape(target)?),
            _ => None,
        };
        for arg in &call.args {
            self.shape(arg)?;
        }
        if !library::NAMES.contains(&name) {
            return Err(self.error(name, call.target.is_some(), &undeclared(name)));
        }
        Ok(answer_of(name, target.as_ref()))
    }

    /// Macros that bind names.
    fn binding(&mut self, call: &CallExpr) -> Option<Result<Shape, CompileError>> {
        let target = call.target.as_deref()?;
        let names: Vec<&str> = call.args.iter().map_while(ident).collect();
        let (bound, rest): (Vec<&str>, &[IdedExpr]) = match (
            call.func_name.as_str(),
            call.args.as_slice(),
            names.as_slice(),
        ) {
            ("bind", [_, value, then], [name, ..]) if ident(target) == Some("cel") => {
                let value = match self.shape(value) {
                    Ok(shape) => shape,
                    Err(error) => return Some(Err(error)),
                };
                return Some(self.within(vec![((*name).to_owned(), value)], then));
            }
            ("optMap" | "optFlatMap" | "sortBy", [_, rest @ ..], [name, ..]) if rest.len() == 1 => {
                (vec![name], rest)
            }
            (
                "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap",
                [_, _, rest @ ..],
                [one, other, ..],
            ) if !rest.is_empty() && rest.len() <= 2 => (vec![one, other], rest),
            _ => return None,
        };
        if let Err(error) = self.shape(target) {
            return Some(Err(error));
        }
        for expr in rest {
            let bound = bound
                .iter()
                .map(|name| ((*name).to_owned(), Shape::Any))
                .collect();
            if let Err(error) = self.within(bound, expr) {
                return Some(Err(error));
            }
        }
        Some(Ok(match call.func_name.as_str() {
            "all" | "exists" | "existsOne" | "exists_one" => Shape::Bool,
            "transformList" | "sortBy" => Shape::list(Shape::Any),
            "optMap" => Shape::Optional(Arc::new(Shape::Any)),
            _ => Shape::Any,
        }))
    }

    fn within(
        &mut self,
        bound: Vec<(String, Shape)>,
        expr: &IdedExpr,
    ) -> Result<Shape, CompileError> {
        let before = self.scope.len();
        self.scope.extend(bound);
        let shape = self.shape(expr);
        self.scope.truncate(before);
        shape
    }

    fn walk(&mut self, walk: &ComprehensionExpr) -> Result<Shape, CompileError> {
        let element = match self.shape(&walk.iter_range)? {
            Shape::List(of, _) => (*of).clone(),
            Shape::Map(_) | Shape::Object(_) => Shape::String,
            Shape::Any | Shape::Optional(_) => Shape::Any,
            other => {
                let told = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    other.word()
                );
                return Err(self.error(ident(&walk.iter_range).unwrap_or_default(), false, &told));
            }
        };
        let start = self.shape(&walk.accu_init)?;
        let result = (walk.accu_var.clone(), start.clone());
        let step = self.within(
            vec![result.clone(), (walk.iter_var.clone(), element)],
            &walk.loop_step,
        )?;
        let result = match (start, step) {
            (Shape::List(..), Shape::List(of, _)) => (result.0, Shape::List(of, ListKind::Atomic)),
            (Shape::List(..), _) => (result.0, Shape::list(Shape::Any)),
            _ => result,
        };
        self.within(vec![result], &walk.result)
    }

    fn no_overload(&self, operator: &str, shapes: &[&Shape]) -> CompileError {
        let words: Vec<&str> = shapes.iter().map(|shape| shape.word()).collect();
        let told = format!(
            "found no matching overload for '{operator}' applied to '({})'",
            words.join(", ")
        );
        let sign: String = operator
            .chars()
            .filter(|letter| !"_@".contains(*letter))
            .collect();
        self.error(&sign, false, &told)
    }

    /// An error at the first place where the word stands; the tree does not tell where it was parsed from.
    fn error(&self, word: &str, is_field: bool, message: &str) -> CompileError {
        let at = place_of(self.text, word, is_field);
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .chars()
            .rev()
            .take_while(|letter| *letter != '\n')
            .count()
            + 1;
        let place = |number: usize| isize::try_from(number).unwrap_or(1);
        CompileError(error_text(self.text, place(line), place(column), message))
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

/// Where a word stands alone, a field with the point before it; 0 when it is nowhere.
fn place_of(text: &str, word: &str, is_field: bool) -> usize {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_word = word.chars().all(is_part);
    for (at, _) in text.match_indices(word) {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let alone = !is_word || !(before.is_some_and(is_part) || after.is_some_and(is_part));
        if alone && (before == Some('.')) == is_field {
            return at - usize::from(is_field);
        }
    }
    0
}

fn of_literal(literal: &LiteralValue) -> Shape {
    match literal {
        LiteralValue::Boolean(_) => Shape::Bool,
        LiteralValue::Int(_) => Shape::Int,
        LiteralValue::Double(_) => Shape::Double,
        LiteralValue::String(_) => Shape::String,
        LiteralValue::Bytes(_) => Shape::Bytes,
        LiteralValue::Null => Shape::Null,
        LiteralValue::UInt(_) => Shape::Any,
    }
}

/// The type of the elements of two lists together; that of an empty one is any.
fn joined(ones: &Shape, others: &Shape) -> Shape {
    match (ones, others) {
        (Shape::Any, others) => others.clone(),
        (ones, others) if ones == others => ones.clone(),
        _ => Shape::Any,
    }
}

/// A type whose operators are known.
fn scalar(shape: &Shape) -> Option<()> {
    match shape {
        Shape::Any | Shape::Optional(_) | Shape::Map(_) | Shape::Object(_) | Shape::List(..) => {
            None
        }
        _ => Some(()),
    }
}

/// What a function answers, where that is the same always.
fn answer_of(name: &str, target: Option<&Shape>) -> Shape {
    match name {
        "contains"
        | "startsWith"
        | "endsWith"
        | "matches"
        | "hasValue"
        | "isSorted"
        | "isURL"
        | "isIP"
        | "isIPv4"
        | "isIPv6"
        | "isCIDR"
        | "isCIDRv4"
        | "isCIDRv6"
        | "isQuantity"
        | "isInteger"
        | "isSemver"
        | "isGreaterThan"
        | "isLessThan"
        | "containsIP"
        | "containsCIDR"
        | "isCanonical"
        | "isLoopback"
        | "isUnspecified"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "allowed"
        | "denied"
        | "errored"
        | "equivalent"
        | "intersects"
        | "isNaN"
        | "isInf"
        | "isFinite"
        | "bool" => Shape::Bool,
        "size" | "int" | "indexOf" | "lastIndexOf" | "compareTo" | "asInteger" | "prefixLength"
        | "family" | "major" | "minor" | "getFullYear" | "getMonth" | "getDate"
        | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" | "getHours" | "getMinutes"
        | "getSeconds" | "getMilliseconds" => Shape::Int,
        "string" | "lowerAscii" | "upperAscii" | "trim" | "charAt" | "join" | "substring"
        | "quote" | "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath"
        | "find" => Shape::String,
        "replace" => Shape::String,
        "split" | "findAll" => Shape::list(Shape::String),
        "double" | "asApproximateFloat" => Shape::Double,
        "timestamp" => Shape::Timestamp,
        "duration" => Shape::Duration,
        "orValue" | "value" => match target {
            Some(Shape::Optional(of)) => (**of).clone(),
            _ => Shape::Any,
        },
        _ => Shape::Any,
    }
}
