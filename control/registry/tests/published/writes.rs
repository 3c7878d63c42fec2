//! The cases of `merge`: sequences of applies and updates, with the object and the owners that they must lead to.

use crate::Case;
use crate::go::{File, Go};
use crate::scope::{Parser, Scope, is_name, items, members};
use crate::types::object;
use registry::apply::{
    ApplyError, Conflict, Duplicates, Fault, Ignored, Managers, Owned, Typed, Versions, Writer,
    equal,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// All cases of a file's functions.
pub(super) fn cases(file: &str, package: &File) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut functions: Vec<_> = package.functions.iter().collect();
    functions.sort_by_key(|(name, _)| *name);
    for (function, (parameters, body)) in functions {
        if !(function.starts_with("Test") || function.starts_with("test")) {
            continue;
        }
        // Functions that are run for every combination of three versions.
        let versions: Vec<Vec<&str>> = match parameters.len() {
            4 => combinations(),
            _ => vec![Vec::new()],
        };
        for versions in versions {
            let mut locals = body.locals();
            let given = parameters.iter().skip(1).zip(&versions);
            locals.extend(
                given.map(|(name, version)| (name.clone(), Go::Text((*version).to_owned()))),
            );
            let scope = Scope { package, locals };
            let runs = [body.calls("Test"), body.calls("TestWithConverter")].concat();
            let Some((arguments, fails)) = runs.first() else {
                continue;
            };
            let tables = body.literals("map TestCase");
            let mut rows: Vec<(String, &Go)> = Vec::new();
            for table in &tables {
                let Go::Literal(_, list) = table else {
                    continue;
                };
                rows.extend(list.iter().map(|(name, case)| match name {
                    Some(Go::Text(name)) => (name.clone(), case),
                    _ => (String::new(), case),
                }));
            }
            let alone: Vec<Go> = match tables.is_empty() {
                true => body.literals("TestCase"),
                false => Vec::new(),
            };
            rows.extend(alone.iter().map(|case| (String::new(), case)));
            cases.extend(rows.into_iter().map(|(name, case)| {
                let name = format!("{file} {function} {} {name}", versions.join("-"));
                Case::of(name, run(&scope, case, arguments, *fails))
            }));
        }
    }
    cases
}

fn combinations() -> Vec<Vec<&'static str>> {
    let versions = ["v1", "v2", "v3"];
    let mut all = Vec::new();
    for one in versions {
        for two in versions {
            all.extend(versions.map(|three| vec![one, two, three]));
        }
    }
    all
}

/// How a case sees an object in another version.
enum Converter {
    /// Every version is the same.
    Same,
    /// A letter is repeated as often as the version's number says.
    Repeating(Parser),
    /// Names end with the version.
    Renaming(Parser),
}

impl Versions<'static> for Converter {
    fn convert(
        &self,
        object: &Typed<'static>,
        version: &str,
    ) -> Result<Option<Typed<'static>>, Fault> {
        let fault = |text: String| Fault {
            path: String::new(),
            text,
        };
        let (value, parser) = match self {
            Converter::Same => {
                return Ok(Some(Typed {
                    version: version.to_owned(),
                    ..object.clone()
                }));
            }
            Converter::Repeating(parser) => {
                let number = version
                    .strip_prefix('v')
                    .and_then(|number| number.parse().ok());
                let Some(number) = number else {
                    return Ok(None);
                };
                (repeat(&object.value, number, true), parser)
            }
            Converter::Renaming(parser) => {
                (rename(&object.value, &object.version, version), parser)
            }
        };
        let r#type = parser.of_version(version).map_err(fault)?;
        Ok(Some(Typed {
            value,
            r#type,
            version: version.to_owned(),
        }))
    }
}

fn repeat(value: &Value, number: usize, is_top: bool) -> Value {
    match value {
        Value::Object(map) => {
            // Of names that become the same, the last in order wins.
            let mut map = map.clone();
            map.sort_keys();
            let members = map.iter().map(|(name, value)| {
                let first: String = name.chars().take(1).collect();
                let name = match is_top {
                    true => name.clone(),
                    false => first.repeat(number),
                };
                (name, repeat(value, number, false))
            });
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

fn rename(value: &Value, old: &str, new: &str) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(name, value)| {
                let name = match name.strip_suffix(old) {
                    Some(head) => format!("{head}{new}"),
                    None => name.clone(),
                };
                (name, rename(value, old, new))
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| rename(item, old, new)).collect(),
        other => other.clone(),
    }
}

struct State {
    parser: Parser,
    converter: Converter,
    ignored: Ignored,
    live: Option<Typed<'static>>,
    managers: Managers<String>,
}

/// What the case finds wrong with us.
fn run(scope: &Scope<'_>, case: &Go, arguments: &[Go], fails: bool) -> Result<(), String> {
    let unread = |why: String| format!("{}{why}", crate::Outcome::UNREAD);
    let case = members(case, &[]).map_err(unread)?;
    if case.keys().any(|name| name == "RequiresUnions") {
        return Err(unread("unions, which no API type has".to_owned()));
    }
    let parser = scope
        .parser(arguments.first().ok_or("no parser")?)
        .map_err(unread)?;
    let converter = match arguments.get(1) {
        None => Converter::Same,
        Some(go) => converter(scope, go, parser).map_err(unread)?,
    };
    let mut state = State {
        parser,
        converter,
        ignored: ignored(scope, &case).map_err(unread)?,
        live: None,
        managers: Managers::new(),
    };
    let operations: Vec<&Go> = case
        .get("Ops")
        .into_iter()
        .flat_map(|ops| items(ops))
        .collect();
    for (at, operation) in operations.iter().enumerate() {
        match state.act(scope, operation) {
            Ok(()) => {}
            Err(_) if fails => return Ok(()),
            Err(why) if why.starts_with(crate::Outcome::UNREAD) => return Err(why),
            Err(why) => return Err(format!("operation {at}: {why}")),
        }
    }
    let checked = state.check(scope, &case);
    match fails {
        false => checked,
        true if checked.is_err() => Ok(()),
        true => Err("an error was wanted".to_owned()),
    }
}

fn converter(scope: &Scope<'_>, go: &Go, parser: Parser) -> Result<Converter, String> {
    match go {
        Go::Literal(name, _) if name == "repeatingConverter" => Ok(Converter::Repeating(parser)),
        Go::Literal(name, _) if name == "renamingConverter" => Ok(Converter::Renaming(parser)),
        Go::Name(name) => match scope.locals.get(name) {
            Some(go @ Go::Literal(..)) => converter(scope, go, parser),
            _ => Err(format!("no converter {name}")),
        },
        other => Err(format!("no converter: {other:?}")),
    }
}

type Case_<'g> = std::collections::HashMap<String, &'g Go>;

fn ignored(scope: &Scope<'_>, case: &Case_<'_>) -> Result<Ignored, String> {
    let mut ignored = Ignored::new();
    for name in ["IgnoredFields", "IgnoreFilter"] {
        let Some(Go::Literal(_, list)) = case.get(name) else {
            continue;
        };
        for (version, set) in list {
            let version = scope.text(version.as_ref().ok_or("no version")?)?;
            let set = match set {
                Go::Call(callee, inner) if is_name(callee, &["fieldpath.NewExcludeSetFilter"]) => {
                    inner.first().ok_or("no set")?
                }
                set => set,
            };
            ignored.insert(version, scope.set(set)?.unwrap_or_default());
        }
    }
    Ok(ignored)
}

impl State {
    fn act(&mut self, scope: &Scope<'_>, operation: &Go) -> Result<(), String> {
        let unread = |why: String| format!("{}{why}", crate::Outcome::UNREAD);
        let Go::Literal(kind, _) = operation else {
            return Err(unread(format!("no operation: {operation:?}")));
        };
        let fields = members(operation, &[]).map_err(unread)?;
        if kind == "ChangeParser" {
            return self.change_parser(scope, fields.get("Parser").ok_or("no parser")?);
        }
        if !["Apply", "ForceApply", "Update"].contains(&kind.as_str()) {
            return Err(unread(format!("{kind}, which is the client's part")));
        }
        let text = |name: &str| {
            scope
                .text(fields.get(name).ok_or_else(|| unread(name.to_owned()))?)
                .map_err(unread)
        };
        let (manager, version) = (text("Manager")?, text("APIVersion")?);
        let value = object(&text("Object")?).map_err(unread)?;
        let r#type = self.parser.of_version(&version).map_err(unread)?;
        let duplicates = match kind.as_str() {
            "Update" => Duplicates::Allow,
            _ => Duplicates::Refuse,
        };
        let faults = r#type.validate(&value, duplicates);
        faults.map_err(|faults| format!("does not fit: {}", faults[0]))?;
        let new = Typed {
            value,
            r#type,
            version: version.clone(),
        };
        let live = self.live_in(&version)?;
        let writer = Writer {
            live: &live,
            manager: &manager,
            versions: &self.converter,
            ignored: &self.ignored,
        };
        let managers = self.managers.clone();
        if kind == "Update" {
            self.managers = writer
                .update(&new, managers)
                .map_err(|fault| fault.to_string())?;
            self.live = Some(new);
            return Ok(());
        }
        let wanted = match fields.get("Conflicts") {
            None => None,
            Some(list) => Some(conflicts(scope, list).map_err(unread)?),
        };
        match (writer.apply(&new, managers, kind == "ForceApply"), wanted) {
            (Ok((value, managers)), None) => {
                self.managers = managers;
                self.live = Some(match value {
                    Some(value) => Typed { value, ..new },
                    None => live,
                });
                Ok(())
            }
            (Ok(_), Some(wanted)) if wanted.is_empty() => Ok(()),
            (Ok(_), Some(wanted)) => Err(format!("no conflicts, wanted {wanted:?}")),
            (Err(ApplyError::Conflicts(mut got)), Some(mut wanted)) => {
                got.sort();
                wanted.sort();
                match got == wanted {
                    true => Ok(()),
                    false => Err(format!("conflicts {got:?}, wanted {wanted:?}")),
                }
            }
            (Err(ApplyError::Conflicts(got)), None) => Err(format!("conflicts {got:?}")),
            (Err(ApplyError::Fault(fault)), _) => Err(fault.to_string()),
        }
    }

    fn live_in(&self, version: &str) -> Result<Typed<'static>, String> {
        let live = match &self.live {
            Some(live) if live.version == version => return Ok(live.clone()),
            Some(live) => live,
            None => {
                return Ok(Typed {
                    value: Value::Null,
                    r#type: self.parser.of_version(version)?,
                    version: version.to_owned(),
                });
            }
        };
        let converted = self
            .converter
            .convert(live, version)
            .map_err(|fault| fault.to_string())?;
        converted.ok_or_else(|| format!("no version {version}"))
    }

    fn change_parser(&mut self, scope: &Scope<'_>, parser: &Go) -> Result<(), String> {
        self.parser = scope
            .parser(parser)
            .map_err(|why| format!("{}{why}", crate::Outcome::UNREAD))?;
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        live.r#type = self.parser.of_version(&live.version)?;
        let faults = live.r#type.validate(&live.value, Duplicates::Refuse);
        faults.map_err(|faults| format!("live does not fit: {}", faults[0]))
    }

    fn check(&self, scope: &Scope<'_>, case: &Case_<'_>) -> Result<(), String> {
        let unread = |why: String| format!("{}{why}", crate::Outcome::UNREAD);
        if let Some(wanted) = case.get("Object") {
            let wanted = object(&scope.text(wanted).map_err(unread)?).map_err(unread)?;
            let version = scope.text(
                case.get("APIVersion")
                    .ok_or_else(|| unread("APIVersion".to_owned()))?,
            );
            let live = self.live_in(&version.map_err(unread)?)?;
            if !equal(&live.value, &wanted) {
                return Err(format!("object {}, wanted {wanted}", live.value));
            }
        }
        if let Some(wanted) = case.get("Managed") {
            let wanted = managed(scope, wanted).map_err(unread)?;
            let got: BTreeMap<&String, (&registry::apply::Set, &str)> = self
                .managers
                .iter()
                .map(|(name, owned)| (name, (&owned.set, owned.version.as_str())))
                .collect();
            let wanted_view: BTreeMap<&String, (&registry::apply::Set, &str)> = wanted
                .iter()
                .filter(|(_, owned)| !owned.set.is_empty())
                .map(|(name, owned)| (name, (&owned.set, owned.version.as_str())))
                .collect();
            if got != wanted_view {
                return Err(format!("managers {got:?}, wanted {wanted_view:?}"));
            }
        }
        match self.managers.iter().find(|(_, owned)| owned.set.is_empty()) {
            Some((manager, _)) => Err(format!("{manager} owns nothing")),
            None => Ok(()),
        }
    }
}

fn conflicts(scope: &Scope<'_>, list: &Go) -> Result<Vec<Conflict<String>>, String> {
    let conflicts = items(list).map(|conflict| {
        let fields = members(conflict, &["Manager", "Path"])?;
        Ok(Conflict {
            manager: scope.text(fields.get("Manager").ok_or("no manager")?)?,
            path: scope.path(fields.get("Path").ok_or("no path")?)?,
        })
    });
    conflicts.collect()
}

fn managed(scope: &Scope<'_>, go: &Go) -> Result<Managers<String>, String> {
    let Go::Literal(_, list) = go else {
        return Err(format!("no managers: {go:?}"));
    };
    let mut managers = Managers::new();
    for (name, owned) in list {
        let name = scope.text(name.as_ref().ok_or("no manager")?)?;
        let Go::Call(callee, arguments) = owned else {
            return Err(format!("no versioned set: {owned:?}"));
        };
        let [set, version, _] = &arguments[..] else {
            return Err("no versioned set".to_owned());
        };
        if !is_name(callee, &["fieldpath.NewVersionedSet"]) {
            return Err(format!("no versioned set: {callee:?}"));
        }
        let owned = Owned {
            set: scope.set(set)?.unwrap_or_default(),
            version: scope.text(version)?,
            applied: false,
        };
        managers.insert(name, owned);
    }
    Ok(managers)
}
