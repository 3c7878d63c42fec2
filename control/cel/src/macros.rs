//! Macros that the parser leaves as calls: they bind names, so that their last arguments are evaluated within a scope.

use crate::eval::Scope;
use crate::operators;
use crate::value::{Item, Val, key_of};
use crate::{Error, Evaluation};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr};
use std::collections::BTreeMap;
use std::rc::Rc;

impl<'a> Evaluation<'a, '_> {
    /// The answer of a macro; None when the call is none.
    pub(crate) fn macro_call(
        &mut self,
        call: &CallExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Option<Result<Val<'a>, Error>> {
        let target = call.target.as_deref()?;
        let names: Vec<&str> = call.args.iter().map_while(ident).collect();
        Some(
            match (
                call.func_name.as_str(),
                call.args.as_slice(),
                names.as_slice(),
            ) {
                ("bind", [_, value, then], [name, ..]) if ident(target) == Some("cel") => {
                    let value = self.value(value, scope);
                    self.value(then, Some(&Scope::new(scope, name, value)))
                }
                ("optMap" | "optFlatMap", [_, then], [name, ..]) => {
                    self.opt_map(call, target, name, then, scope)
                }
                ("all" | "exists" | "existsOne" | "exists_one", [_, _, then], [key, value, ..]) => {
                    self.quantify(&call.func_name, target, (key, value), then, scope)
                }
                ("transformList" | "transformMap", [_, _, then], [key, value, ..]) => {
                    self.transform(&call.func_name, target, (key, value), None, then, scope)
                }
                ("transformList" | "transformMap", [_, _, filter, then], [key, value, ..]) => self
                    .transform(
                        &call.func_name,
                        target,
                        (key, value),
                        Some(filter),
                        then,
                        scope,
                    ),
                ("sortBy", [_, then], [name, ..]) => self.sort_by(target, name, then, scope),
                _ => return None,
            },
        )
    }

    fn opt_map(
        &mut self,
        call: &CallExpr,
        target: &IdedExpr,
        name: &str,
        then: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let value = match self.value(target, scope)? {
            Val::Optional(Some(value)) => (*value).clone(),
            Val::Optional(None) => return Ok(Val::none()),
            _ => return Err(Error::no_overload()),
        };
        let answer = self.value(then, Some(&Scope::new(scope, name, Ok(value))))?;
        Ok(match call.func_name.as_str() {
            "optMap" => Val::some(answer),
            _ => answer,
        })
    }

    /// Indexes and elements of a list, or keys and values of a map.
    fn pairs(
        &mut self,
        target: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Vec<(Val<'a>, Val<'a>)>, Error> {
        let items = self
            .value(target, scope)?
            .items()
            .ok_or_else(Error::no_overload)?;
        self.budget.charge(items.len() as u64)?;
        let pairs = items.into_iter().map(|item| match item {
            Item::At(at, value) => (Val::int(at), value),
            Item::Pair(key, value) => (Val::Cel(Cel::from(key)), value),
        });
        Ok(pairs.collect())
    }

    fn quantify(
        &mut self,
        name: &str,
        target: &IdedExpr,
        names: (&str, &str),
        then: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let mut holds_for = 0;
        let mut failed = None;
        for (key, value) in self.pairs(target, scope)? {
            let outer = Scope::new(scope, names.0, Ok(key));
            let inner = Scope::new(Some(&outer), names.1, Ok(value));
            match self.value(then, Some(&inner)).map(|value| value.truth()) {
                Ok(Some(true)) if name == "exists" => return Ok(Val::bool(true)),
                Ok(Some(false)) if name == "all" => return Ok(Val::bool(false)),
                Ok(Some(holds)) => holds_for += i32::from(holds),
                Ok(None) => failed = Some(Error::no_overload()),
                Err(Error::Cost) => return Err(Error::Cost),
                Err(error) => failed = Some(error),
            }
        }
        match (failed, name) {
            (Some(error), _) => Err(error),
            (None, "all") => Ok(Val::bool(true)),
            (None, "exists") => Ok(Val::bool(false)),
            (None, _) => Ok(Val::bool(holds_for == 1)),
        }
    }

    fn transform(
        &mut self,
        name: &str,
        target: &IdedExpr,
        names: (&str, &str),
        filter: Option<&IdedExpr>,
        then: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let mut list = Vec::new();
        let mut map = BTreeMap::new();
        for (key, value) in self.pairs(target, scope)? {
            let outer = Scope::new(scope, names.0, Ok(key.clone()));
            let inner = Scope::new(Some(&outer), names.1, Ok(value));
            if let Some(filter) = filter {
                let kept = self.value(filter, Some(&inner))?.truth();
                if !kept.ok_or_else(Error::no_overload)? {
                    continue;
                }
            }
            let made = self.value(then, Some(&inner))?;
            match name {
                "transformList" => list.push(made),
                _ => {
                    map.insert(key_of(&key)?, made);
                }
            }
        }
        Ok(match name {
            "transformList" => Val::list(list),
            _ => Val::Map(Rc::new(map)),
        })
    }

    fn sort_by(
        &mut self,
        target: &IdedExpr,
        name: &str,
        then: &IdedExpr,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Val<'a>, Error> {
        let values = self
            .value(target, scope)?
            .elements()
            .ok_or_else(Error::no_overload)?;
        self.budget.charge(values.len() as u64)?;
        let mut keyed = Vec::with_capacity(values.len());
        for value in values {
            let key = self.value(then, Some(&Scope::new(scope, name, Ok(value.clone()))))?;
            self.budget.charge_letters(key.letters(u64::MAX))?;
            keyed.push((key, value));
        }
        let mut failed = None;
        keyed.sort_by(|(one, _), (other, _)| {
            operators::sort_order(one, other).unwrap_or_else(|error| {
                failed = Some(error);
                std::cmp::Ordering::Equal
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Val::list(
                keyed.into_iter().map(|(_, value)| value).collect(),
            )),
        }
    }
}

/// The name that an argument is.
pub fn ident(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Ident(name) => Some(name),
        _ => None,
    }
}
