//! Evaluates programs: a walk over the tree that counts each step. Errors are values as the language defines it: `&&`, `||` and the
//! macros that stand for them may end well although one side failed.

use crate::budget::Budget;
use crate::inputs::Inputs;
use crate::operators;
use crate::value::{Item, Val, key_of};
use crate::{Program, access::Step};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue,
    SelectExpr,
};
use kube_cel::cel::objects::Key;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Why an evaluation has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    /// What went wrong, in Kubernetes' words: `no such key: a`.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn no_key(key: &dyn std::fmt::Display) -> Error {
        Error::Other(format!("no such key: {key}"))
    }

    pub(crate) fn no_overload() -> Error {
        Error::Other("no such overload".into())
    }

    pub(crate) fn no_json(r#type: &str) -> Error {
        Error::Other(format!("a value of type {type} cannot be an answer"))
    }
}

/// Evaluates programs over the same inputs; what `variables` stand for is found once.
pub struct Evaluation<'a, 'b> {
    pub(crate) inputs: Inputs<'a>,
    pub(crate) budget: &'b mut Budget,
    composed: BTreeMap<&'a str, Result<Val<'a>, Error>>,
}

impl<'a, 'b> Evaluation<'a, 'b> {
    /// Nothing is evaluated yet.
    pub fn new(inputs: Inputs<'a>, budget: &'b mut Budget) -> Self {
        Evaluation {
            inputs,
            budget,
            composed: BTreeMap::new(),
        }
    }

    /// The answer as JSON.
    pub fn eval(&mut self, program: &Program) -> Result<Json, Error> {
        self.budget.begin();
        let value = self.value(&program.expression, None)?;
        self.budget.charge_letters(value.letters(u64::MAX))?;
        value.to_json()
    }

    /// The answer of a program that says whether something holds.
    pub fn holds(&mut self, program: &Program) -> Result<bool, Error> {
        self.budget.begin();
        let value = self.value(&program.expression, None)?;
        let wrong = || {
            Error::Other(format!(
                "the expression answered {}, not bool",
                value.type_name()
            ))
        };
        value.truth().ok_or_else(wrong)
    }

    /// The value of an expression within a scope.
    pub(crate) fn value(
        &mut self,
        expr: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        self.budget.charge(1)?;
        match &expr.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.named(name, scope),
            Expr::Select(select) => self.select(select, scope),
            Expr::Call(call) => self.call(call, scope),
            Expr::List(list) => self.list(list, scope),
            Expr::Map(map) => self.map(&map.entries, scope),
            Expr::Struct(r#struct) => self.map(&r#struct.entries, scope),
            Expr::Comprehension(walk) => self.walk(walk, scope),
            Expr::Unspecified => Err(Error::Other("an empty expression".into())),
        }
    }

    /// Whether a name is a variable here.
    pub(crate) fn is_variable(&self, name: &str, scope: Option<&Scope<'_, 'a>>) -> bool {
        Scope::find(scope, name).is_some() || self.inputs.find(name).is_some()
    }

    fn named(&mut self, name: &str, scope: Option<&Scope<'_, 'a>>) -> Result<Val<'a>, Error> {
        if let Some(found) = Scope::find(scope, name) {
            return found.clone();
        }
        if let Some(found) = self.inputs.find(name) {
            self.budget
                .charge_letters(found.text().map_or(0, |text| text.len() as u64))?;
            return Ok(found);
        }
        match name {
            "variables" => Ok(Val::Composed),
            "authorizer" => Ok(Val::Access(Rc::new(Step::Start(Default::default())))),
            name if operators::TYPES.contains(&name) => Ok(Val::Type(name.to_owned())),
            name => Err(Error::Other(format!("no such attribute(s): {name}"))),
        }
    }

    fn select(
        &mut self,
        select: &SelectExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let operand = self.value(&select.operand, scope)?;
        match self.field(&operand, &select.field) {
            _ if select.test && matches!(operand, Val::Optional(None)) => Ok(Val::bool(false)),
            Ok(found) if select.test => Ok(Val::bool(found.is_some())),
            Ok(Some(found)) => {
                self.budget
                    .charge_letters(found.text().map_or(0, |text| text.len() as u64))?;
                Ok(found)
            }
            Ok(None) => Err(Error::no_key(&select.field)),
            Err(error) => Err(error),
        }
    }

    /// A field of a value; None when it has no such one.
    pub(crate) fn field(
        &mut self,
        operand: &Val<'a>,
        name: &str,
    ) -> Result<Option<Val<'a>>, Error> {
        match operand {
            Val::Composed => self.composed(name).map(Some),
            Val::Optional(None) => Ok(Some(Val::none())),
            Val::Optional(Some(inner)) => {
                let found = self.field(&inner.clone(), name)?;
                Ok(Some(found.map_or_else(Val::none, Val::some)))
            }
            Val::Access(step) => match (&**step, name, self.inputs.access) {
                (Step::Start(_), "requestResource", Some(access)) => {
                    Ok(Some(Val::Access(Rc::new(Step::request_resource(access)))))
                }
                _ => Err(Error::no_overload()),
            },
            value if value.has_members() => Ok(value.member(&Key::from(name))),
            _ => Err(Error::no_overload()),
        }
    }

    /// What `variables.NAME` stands for; found once.
    fn composed(&mut self, name: &str) -> Result<Val<'a>, Error> {
        if let Some(found) = self.composed.get(name) {
            return found.clone();
        }
        let programs: &'a [(String, Program)] = self.inputs.composed;
        let Some((name, program)) = programs.iter().find(|(known, _)| known == name) else {
            return Err(Error::no_key(&name));
        };
        // A variable that asks for itself finds this error rather than no end.
        let circle = Error::Other(format!("variables.{name} asks for itself"));
        self.composed.insert(name, Err(circle));
        let value = self.value(&program.expression, None);
        self.composed.insert(name, value.clone());
        value
    }

    fn list(&mut self, list: &ListExpr, scope: Option<&Scope<'_, 'a>>) -> Result<Val<'a>, Error> {
        self.budget.charge(10)?;
        let mut values = Vec::with_capacity(list.elements.len());
        for (at, element) in list.elements.iter().enumerate() {
            match self.value(element, scope)? {
                Val::Optional(inner) if list.optional_indices.contains(&at) => {
                    values.extend(inner.map(|value| (*value).clone()));
                }
                value => values.push(value),
            }
        }
        Ok(Val::list(values))
    }

    /// A map, or an object of a named type: those are maps by the names of their fields.
    fn map(
        &mut self,
        entries: &[IdedEntryExpr],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        self.budget.charge(30)?;
        let mut pairs = BTreeMap::new();
        for entry in entries {
            let (key, value, optional) = match &entry.expr {
                EntryExpr::StructField(field) => (
                    Key::from(field.field.as_str()),
                    &field.value,
                    field.optional,
                ),
                EntryExpr::MapEntry(entry) => (
                    key_of(&self.value(&entry.key, scope)?)?,
                    &entry.value,
                    entry.optional,
                ),
            };
            match self.value(value, scope)? {
                Val::Optional(inner) if optional => {
                    if let Some(value) = inner {
                        pairs.insert(key, (*value).clone());
                    }
                }
                value => {
                    if pairs.insert(key.clone(), value).is_some() {
                        return Err(Error::Other(format!(
                            "insert failed: key {key} already exists"
                        )));
                    }
                }
            }
        }
        Ok(Val::Map(Rc::new(pairs)))
    }

    fn call(&mut self, call: &CallExpr, scope: Option<&Scope<'_, 'a>>) -> Result<Val<'a>, Error> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::CONDITIONAL, [condition, then, otherwise]) => {
                let holds = self.value(condition, scope)?.truth();
                let branch = if holds.ok_or_else(Error::no_overload)? {
                    then
                } else {
                    otherwise
                };
                self.value(branch, scope)
            }
            (op::LOGICAL_AND, [one, other]) => self.decide(one, other, false, scope),
            (op::LOGICAL_OR, [one, other]) => self.decide(one, other, true, scope),
            (op::NOT_STRICTLY_FALSE, [one]) => match self.value(one, scope) {
                Err(Error::Cost) => Err(Error::Cost),
                Err(Error::Other(_)) => Ok(Val::bool(true)),
                Ok(value) => Ok(Val::bool(value.truth() != Some(false))),
            },
            (op::LOGICAL_NOT, [one]) => {
                let value = self.value(one, scope)?.truth();
                Ok(Val::bool(!value.ok_or_else(Error::no_overload)?))
            }
            (op::NEGATE, [one]) => operators::negate(&self.value(one, scope)?),
            (op::OPT_SELECT, [operand, name]) => {
                let operand = self.value(operand, scope)?;
                let name = self.value(name, scope)?;
                let name = name.text().ok_or_else(Error::no_overload)?;
                Ok(match self.field(&operand, name)? {
                    Some(Val::Optional(found)) if matches!(operand, Val::Optional(_)) => {
                        Val::Optional(found)
                    }
                    found => found.map_or_else(Val::none, Val::some),
                })
            }
            (op::INDEX, [operand, index]) => {
                let (operand, index) = (self.value(operand, scope)?, self.value(index, scope)?);
                operators::index(&operand, &index)
            }
            (op::OPT_INDEX, [operand, index]) => {
                let (operand, index) = (self.value(operand, scope)?, self.value(index, scope)?);
                operators::optional_index(&operand, &index)
            }
            (operator, [one, other]) if operators::is_binary(operator) => {
                let (one, other) = (self.value(one, scope)?, self.value(other, scope)?);
                operators::binary(operator, &one, &other, self.budget)
            }
            _ => match self.macro_call(call, scope) {
                Some(answer) => answer,
                None => self.function(call, scope),
            },
        }
    }

    /// `&&` and `||`: the side that decides wins, even over an error of the other.
    fn decide(
        &mut self,
        one: &IdedExpr,
        other: &IdedExpr,
        decisive: bool,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let one = match self.value(one, scope) {
            Err(Error::Cost) => return Err(Error::Cost),
            value => value.and_then(|value| value.truth().ok_or_else(Error::no_overload)),
        };
        if one == Ok(decisive) {
            return Ok(Val::bool(decisive));
        }
        let other = self
            .value(other, scope)?
            .truth()
            .ok_or_else(Error::no_overload)?;
        if other == decisive {
            return Ok(Val::bool(decisive));
        }
        one.map(|_| Val::bool(!decisive))
    }

    /// What the parser makes of `all`, `exists`, `exists_one`, `map` and `filter`.
    fn walk(
        &mut self,
        walk: &ComprehensionExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let range = self.value(&walk.iter_range, scope)?;
        let items = range.items().ok_or_else(Error::no_overload)?;
        self.budget.charge(items.len() as u64)?;
        let mut result = Ok(self.value(&walk.accu_init, scope)?);
        for item in items {
            let value = match item {
                Item::At(_, value) => value,
                Item::Pair(key, _) => Val::Cel(Cel::from(key)),
            };
            let with_result = Scope::new(scope, &walk.accu_var, result);
            if self.value(&walk.loop_cond, Some(&with_result))?.truth() == Some(false) {
                result = with_result.value;
                break;
            }
            let inner = Scope::new(Some(&with_result), &walk.iter_var, Ok(value));
            let next = self.step(&walk.loop_step, &walk.accu_var, &inner);
            result = match next {
                Ok(Next::Same) => with_result.value,
                Ok(Next::Longer(values)) => appended(with_result.value, values),
                Ok(Next::Value(value)) => Ok(value),
                Err(Error::Cost) => return Err(Error::Cost),
                Err(error) => Err(error),
            };
            // Only logic can come to an answer in spite of an error.
            if result.is_err() && !is_logic(&walk.loop_step) {
                break;
            }
        }
        let last = Scope::new(scope, &walk.accu_var, result);
        self.value(&walk.result, Some(&last))
    }

    /// One step of a walk. A result that grows by elements is told apart, since it would be copied at each step.
    fn step(
        &mut self,
        step: &IdedExpr,
        result: &str,
        scope: &Scope<'_, 'a>,
    ) -> Result<Next<'a>, Error> {
        let Expr::Call(call) = &step.expr else {
            return self.value(step, Some(scope)).map(Next::Value);
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (
                op::ADD,
                [
                    one,
                    IdedExpr {
                        expr: Expr::List(list),
                        ..
                    },
                ],
            ) if is_named(one, result) => {
                let mut values = Vec::with_capacity(list.elements.len());
                for element in &list.elements {
                    values.push(self.value(element, Some(scope))?);
                }
                Ok(Next::Longer(values))
            }
            (op::CONDITIONAL, [condition, then, otherwise]) if is_named(otherwise, result) => {
                let holds = self.value(condition, Some(scope))?.truth();
                match holds.ok_or_else(Error::no_overload)? {
                    true => self.step(then, result, scope),
                    false => Ok(Next::Same),
                }
            }
            _ => self.value(step, Some(scope)).map(Next::Value),
        }
    }
}

enum Next<'a> {
    Same,
    Longer(Vec<Val<'a>>),
    Value(Val<'a>),
}

/// A name that an expression gave to a value.
pub(crate) struct Scope<'s, 'a> {
    parent: Option<&'s Scope<'s, 'a>>,
    name: &'s str,
    value: Result<Val<'a>, Error>,
}

impl<'s, 'a> Scope<'s, 'a> {
    pub(crate) fn new(
        parent: Option<&'s Scope<'s, 'a>>,
        name: &'s str,
        value: Result<Val<'a>, Error>,
    ) -> Self {
        Scope {
            parent,
            name,
            value,
        }
    }

    fn find<'f>(
        scope: Option<&'f Scope<'_, 'a>>,
        name: &str,
    ) -> Option<&'f Result<Val<'a>, Error>> {
        let mut at = scope;
        while let Some(scope) = at {
            if scope.name == name {
                return Some(&scope.value);
            }
            at = scope.parent;
        }
        None
    }
}

fn appended<'a>(list: Result<Val<'a>, Error>, values: Vec<Val<'a>>) -> Result<Val<'a>, Error> {
    match list? {
        Val::List(mut list) => {
            Rc::make_mut(&mut list).extend(values);
            Ok(Val::List(list))
        }
        _ => Err(Error::no_overload()),
    }
}

fn is_named(expr: &IdedExpr, name: &str) -> bool {
    matches!(&expr.expr, Expr::Ident(found) if found == name)
}

fn is_logic(step: &IdedExpr) -> bool {
    matches!(&step.expr, Expr::Call(call) if call.func_name == op::LOGICAL_AND || call.func_name == op::LOGICAL_OR)
}

fn of_literal<'a>(literal: &LiteralValue) -> Val<'a> {
    Val::Cel(match literal {
        LiteralValue::Boolean(value) => Cel::Bool(*value.inner()),
        LiteralValue::Int(value) => Cel::Int(*value.inner()),
        LiteralValue::UInt(value) => Cel::UInt(*value.inner()),
        LiteralValue::Double(value) => Cel::Float(*value.inner()),
        LiteralValue::String(value) => Cel::String(Arc::new(value.inner().to_owned())),
        LiteralValue::Bytes(value) => Cel::Bytes(Arc::new(value.inner().to_vec())),
        LiteralValue::Null => Cel::Null,
    })
}
