//! What the values of a Go test stand for: texts, sets of fields, parsers.

use crate::go::{Body, File, Go};
use crate::types;
use registry::apply::schema::{Schema, Type};
use registry::apply::{Datum, Element, Path, Set};
use serde_json::{Number, Value, json};
use std::collections::HashMap;

/// Where names are looked up: a function's, then the package's.
pub struct Scope<'a> {
    pub package: &'a File,
    pub locals: HashMap<String, Go>,
}

/// What reads objects: one type for all versions, or a type a version.
#[derive(Clone, Copy)]
pub enum Parser {
    Same(Type<'static>),
    ByVersion(&'static Schema),
}

impl Parser {
    pub fn of_version(self, version: &str) -> Result<Type<'static>, String> {
        match self {
            Parser::Same(r#type) => Ok(r#type),
            Parser::ByVersion(schema) => schema
                .named(version)
                .ok_or_else(|| format!("no type {version:?}")),
        }
    }
}

impl<'a> Scope<'a> {
    pub fn global(package: &'a File) -> Self {
        Scope {
            package,
            locals: HashMap::new(),
        }
    }

    fn lookup(&self, name: &str) -> Option<&Go> {
        self.locals
            .get(name)
            .or_else(|| self.package.values.get(name))
    }

    /// A text.
    pub fn text(&self, go: &Go) -> Result<String, String> {
        match go {
            Go::Text(text) => Ok(text.clone()),
            Go::Name(name) => match self.lookup(name) {
                Some(value) => self.text(&value.clone()),
                None => Err(format!("no text {name}")),
            },
            Go::Call(callee, arguments) => self.called_text(callee, arguments),
            other => Err(format!("no text: {other:?}")),
        }
    }

    fn called_text(&self, callee: &Go, arguments: &[Go]) -> Result<String, String> {
        let Go::Name(name) = callee else {
            return Err("a text of an unknown call".to_owned());
        };
        match (name.as_str(), arguments) {
            ("typed.YAMLObject" | "YAMLObject" | "string" | "fieldpath.APIVersion", [inner]) => {
                self.text(inner)
            }
            ("fmt.Sprintf", [format, rest @ ..]) => {
                let mut text = self.text(format)?;
                for argument in rest {
                    let argument = self.text(argument)?;
                    let at = text.find("%s").ok_or("Sprintf with other verbs than %s")?;
                    text.replace_range(at..at + 2, &argument);
                }
                Ok(text)
            }
            (name, arguments) => {
                let function = self.package.functions.get(name);
                let (parameters, body) = function.ok_or_else(|| format!("no function {name}"))?;
                let locals = parameters.iter().cloned().zip(arguments.iter().cloned());
                let inner = Scope {
                    package: self.package,
                    locals: locals.collect(),
                };
                let calls = body.calls("fmt.Sprintf");
                let (arguments, _) = calls.first().ok_or("a function that makes no text")?;
                inner.called_text(&Go::Name("fmt.Sprintf".to_owned()), arguments)
            }
        }
    }

    /// A scalar.
    pub fn scalar(&self, go: &Go) -> Result<Value, String> {
        match go {
            Go::Text(text) => Ok(json!(text)),
            Go::Number(text) => {
                let whole = text.parse::<i64>().map(Value::from);
                whole.or_else(|_| {
                    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
                    number
                        .map(Value::Number)
                        .ok_or_else(|| format!("no number {text}"))
                })
            }
            Go::Name(name) => match name.as_str() {
                "true" => Ok(json!(true)),
                "false" => Ok(json!(false)),
                "nil" => Ok(Value::Null),
                name => Err(format!("no scalar {name}")),
            },
            Go::Call(callee, value) if is_name(callee, &["float64"]) => {
                self.scalar(value.first().ok_or("no number")?)
            }
            other => Err(format!("no scalar: {other:?}")),
        }
    }

    /// `_NS(…)`: a set of paths; None for nil.
    pub fn set(&self, go: &Go) -> Result<Option<Set>, String> {
        match go {
            Go::Name(name) if name == "nil" => Ok(None),
            Go::Name(name) => match self.lookup(name) {
                Some(value) => self.set(&value.clone()),
                None => Err(format!("no set {name}")),
            },
            Go::Call(callee, paths) if is_name(callee, &["_NS", "NewSet", "fieldpath.NewSet"]) => {
                let paths: Result<Vec<Path>, String> =
                    paths.iter().map(|path| self.path(path)).collect();
                Ok(Some(Set::of(paths?)))
            }
            other => Err(format!("no set: {other:?}")),
        }
    }

    /// `_P(…)`: a path.
    pub fn path(&self, go: &Go) -> Result<Path, String> {
        let Go::Call(callee, parts) = go else {
            return Err(format!("no path: {go:?}"));
        };
        if !is_name(callee, &["_P", "MakePathOrDie", "fieldpath.MakePathOrDie"]) {
            return Err(format!("no path: {callee:?}"));
        }
        let parts = parts.iter().map(|part| self.element(part));
        Ok(Path(parts.collect::<Result<_, _>>()?))
    }

    fn element(&self, go: &Go) -> Result<Element, String> {
        match go {
            Go::Number(number) => Ok(Element::Index(number.parse().map_err(|_| "no index")?)),
            Go::Call(callee, members)
                if is_name(callee, &["_KBF", "KeyByFields", "fieldpath.KeyByFields"]) =>
            {
                let pairs = members.chunks(2).map(|pair| match pair {
                    [name, value] => Ok((self.text(name)?, self.scalar(value)?)),
                    _ => Err("a key without a value".to_owned()),
                });
                Ok(Element::key(pairs.collect::<Result<Vec<_>, _>>()?))
            }
            Go::Call(callee, value) if is_name(callee, &["_V", "value.NewValueInterface"]) => {
                let [value] = &value[..] else {
                    return Err("a value of several".to_owned());
                };
                Ok(Element::Value(Datum(self.scalar(value)?)))
            }
            other => Ok(Element::field(&self.text(other)?)),
        }
    }

    /// What reads objects.
    pub fn parser(&self, go: &Go) -> Result<Parser, String> {
        match go {
            Go::Name(name) if name == "DeducedParser" || name == "typed.DeducedParseableType" => {
                let mut schema = Schema::default();
                schema.deduced();
                let schema: &'static Schema = Box::leak(Box::new(schema));
                let deduced = schema.named("__untyped_deduced_");
                Ok(Parser::Same(deduced.ok_or("declared above")?))
            }
            Go::Name(name) => match self.lookup(name) {
                Some(value) => self.parser(&value.clone()),
                None => Err(format!("no parser {name}")),
            },
            Go::Call(function, _) => match &**function {
                Go::Function(body) => self.parser_of(body),
                other => Err(format!("no parser: {other:?}")),
            },
            other => Err(format!("no parser: {other:?}")),
        }
    }

    fn parser_of(&self, body: &Body) -> Result<Parser, String> {
        let made = body.calls("typed.NewParser");
        let (arguments, _) = made.first().ok_or("a parser without a schema")?;
        let schema = types::schema(&self.text(arguments.first().ok_or("no schema")?)?)?;
        let of_one_type = body.calls("Type");
        match of_one_type.first() {
            Some((arguments, _)) if body.names("SameVersionParser") => {
                let name = self.text(arguments.first().ok_or("no type")?)?;
                let r#type = schema
                    .named(&name)
                    .ok_or_else(|| format!("no type {name}"))?;
                Ok(Parser::Same(r#type))
            }
            _ => Ok(Parser::ByVersion(schema)),
        }
    }
}

/// Whether the value is one of these names.
pub fn is_name(go: &Go, names: &[&str]) -> bool {
    matches!(go, Go::Name(name) if names.contains(&name.as_str()))
}

/// The members of a literal by name; those without a name by their place among `order`.
pub fn members<'g>(go: &'g Go, order: &[&'static str]) -> Result<HashMap<String, &'g Go>, String> {
    let Go::Literal(_, list) = go else {
        return Err(format!("no literal: {go:?}"));
    };
    let named = list
        .iter()
        .enumerate()
        .map(|(at, (name, value))| match name {
            Some(Go::Name(name) | Go::Text(name)) => Ok((name.clone(), value)),
            None => match order.get(at) {
                Some(name) => Ok(((*name).to_owned(), value)),
                None => Err(format!("member {at} without a name")),
            },
            Some(other) => Err(format!("no name: {other:?}")),
        });
    named.collect()
}

/// The values of a list.
pub fn items(go: &Go) -> impl Iterator<Item = &Go> {
    let list = match go {
        Go::Literal(_, list) => &list[..],
        _ => &[],
    };
    list.iter().map(|(_, value)| value)
}
