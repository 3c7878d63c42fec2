//! Reads the text form of the facts, whose head says what its lines mean. Allocates little: names stay slices of the text.

use super::{Alternative, Field, PatchRule, Schemas, Shape, Topology, Type, TypeId, Wire};
use objects::GroupVersionKind;
use std::collections::HashMap;

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("schema table, line {line}: {what}; run `cargo xtask schema`")]
pub struct LoadError {
    line: usize,
    what: &'static str,
}

/// A type before its embedded types are laid open.
struct Draft {
    name: &'static str,
    package: &'static str,
    group: &'static str,
    prefix: &'static str,
    is_kind: bool,
    is_atomic: bool,
    lines: Vec<(usize, &'static str)>,
}

/// Reads the whole table.
pub fn parse(text: &'static str) -> Result<Schemas, LoadError> {
    let drafts = read_drafts(text)?;
    let ids = drafts
        .iter()
        .enumerate()
        .map(|(at, draft)| ((draft.package, draft.name), TypeId(at as u32)))
        .collect();
    let reader = Reader {
        drafts: &drafts,
        ids,
    };
    let mut schemas = Schemas {
        types: Vec::with_capacity(drafts.len()),
        by_name: HashMap::new(),
        by_kind: HashMap::new(),
    };
    for (at, draft) in drafts.iter().enumerate() {
        let r#type = reader.finish(draft)?;
        let id = TypeId(at as u32);
        if draft.is_kind {
            let version = version_of(draft.package);
            schemas
                .by_kind
                .insert((draft.group, version, draft.name), id);
        }
        schemas.by_name.insert(r#type.name.clone(), id);
        schemas.types.push(r#type);
    }
    Ok(schemas)
}

fn read_drafts(text: &'static str) -> Result<Vec<Draft>, LoadError> {
    let mut package = ("", "", "");
    let mut drafts: Vec<Draft> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split(' ');
        let broken = |what| LoadError { line: at + 1, what };
        match words.next() {
            None | Some("") | Some("#") => {}
            Some("@package") => {
                let mut word = || {
                    words
                        .next()
                        .ok_or_else(|| broken("a package has three words"))
                };
                package = (word()?, word()?, word()?);
                if package.1 == "-" {
                    package.1 = "";
                }
            }
            Some("@type") => {
                let name = words.next();
                let marks: Vec<&str> = words.collect();
                drafts.push(Draft {
                    name: name.ok_or_else(|| broken("a type without a name"))?,
                    package: package.0,
                    group: package.1,
                    prefix: package.2,
                    is_kind: marks.contains(&"kind"),
                    is_atomic: marks.contains(&"atomic"),
                    lines: Vec::new(),
                });
            }
            Some(_) => {
                let draft = drafts
                    .last_mut()
                    .ok_or_else(|| broken("a field before any type"))?;
                draft.lines.push((at + 1, line));
            }
        }
    }
    Ok(drafts)
}

fn version_of(package: &'static str) -> &'static str {
    package.rsplit('/').next().unwrap_or(package)
}

struct Reader<'a> {
    drafts: &'a [Draft],
    ids: HashMap<(&'static str, &'static str), TypeId>,
}

impl Reader<'_> {
    fn finish(&self, draft: &Draft) -> Result<Type, LoadError> {
        let mut fields = Vec::new();
        let mut by_number = Vec::new();
        self.lay_open(draft, &mut fields, Some(&mut by_number))?;
        let mut by_json: Vec<u16> = (0..fields.len()).map(|at| at as u16).collect();
        by_json.sort_by_key(|at| fields[usize::from(*at)].name);
        by_number.sort_by_key(|entry| entry.0);
        let version = version_of(draft.package);
        let kind = GroupVersionKind::new(draft.group, version, draft.name);
        Ok(Type {
            name: format!("{}.{}", draft.prefix, draft.name),
            go_name: draft.name,
            go_path: format!("{version}.{}", draft.name),
            kind: draft.is_kind.then_some(kind),
            is_atomic: draft.is_atomic,
            fields,
            by_json,
            by_number,
        })
    }

    /// Appends the members of `draft`, and their numbers when they are those of the message asked for.
    fn lay_open(
        &self,
        draft: &Draft,
        fields: &mut Vec<Field>,
        mut numbers: Option<&mut Vec<(u32, Wire)>>,
    ) -> Result<(), LoadError> {
        for (line, text) in &draft.lines {
            let broken = |what| LoadError { line: *line, what };
            let mut words = text.split(' ');
            let name = words.next().unwrap_or_default();
            if name == "=" {
                let other = self.reference(draft, words.next().unwrap_or_default());
                let other = other.ok_or_else(|| broken("an unknown type"))?;
                let other = &self.drafts[other.0 as usize];
                self.lay_open(other, fields, numbers.as_deref_mut())?;
                continue;
            }
            let number = words.next().and_then(|word| word.parse().ok());
            let number: u32 = number.ok_or_else(|| broken("no field number"))?;
            let shape = words.next().and_then(|word| self.shape(draft, word));
            let shape = shape.ok_or_else(|| broken("an unknown type"))?;
            let wire = match (&shape, name) {
                (Shape::Struct(id), "~") => {
                    self.lay_open(&self.drafts[id.0 as usize], fields, None)?;
                    Wire::Embedded(*id)
                }
                (_, "~") => return Err(broken("only a struct can be embedded")),
                _ => {
                    let field =
                        read_flags(name, shape, words).ok_or_else(|| broken("an unknown flag"))?;
                    fields.push(field);
                    Wire::Member((fields.len() - 1) as u16)
                }
            };
            if let (Some(numbers), true) = (numbers.as_deref_mut(), number != 0) {
                numbers.push((number, wire));
            }
        }
        Ok(())
    }

    fn shape(&self, draft: &Draft, word: &'static str) -> Option<Shape> {
        if let Some(element) = word.strip_prefix("items[]") {
            return Some(Shape::WrappedList(Box::new(self.shape(draft, element)?)));
        }
        if let Some(element) = word.strip_prefix("[]") {
            return Some(Shape::List(Box::new(self.shape(draft, element)?)));
        }
        if let Some(value) = word.strip_prefix("{}") {
            return Some(Shape::Map(Box::new(self.shape(draft, value)?)));
        }
        if let Some((name, alternative)) = word.split_once('|') {
            let alternative = match alternative {
                "array" => Alternative::List,
                "bool" => Alternative::Bool,
                "strings" => Alternative::Texts,
                _ => return None,
            };
            return Some(Shape::Either(self.reference(draft, name)?, alternative));
        }
        Some(match word {
            "string" => Shape::Text,
            "bool" => Shape::Bool,
            "int32" => Shape::Int32,
            "int64" => Shape::Int64,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "quantity" => Shape::Quantity,
            "intorstring" => Shape::IntOrString,
            "time" => Shape::Time,
            "microtime" => Shape::MicroTime,
            "raw" => Shape::Raw,
            "json" => Shape::Json,
            "duration" => Shape::Duration,
            "fieldsv1" => Shape::FieldsV1,
            name => Shape::Struct(self.reference(draft, name)?),
        })
    }

    fn reference(&self, draft: &Draft, name: &'static str) -> Option<TypeId> {
        let full = name.rsplit_once('.').unwrap_or((draft.package, name));
        self.ids.get(&full).copied()
    }
}

fn read_flags(
    name: &'static str,
    shape: Shape,
    words: impl Iterator<Item = &'static str>,
) -> Option<Field> {
    let mut field = Field {
        name,
        shape,
        pointer: false,
        keep: false,
        required: false,
        patch: PatchRule::default(),
        topology: Topology::default(),
        default: None,
        go_type: None,
    };
    for word in words {
        match word.split_once('=') {
            None => match word {
                "ptr" => field.pointer = true,
                "keep" => field.keep = true,
                "req" => field.required = true,
                "merge" => field.patch.merge = true,
                "replace" => field.patch.replace = true,
                "retain" => field.patch.retain_keys = true,
                "atomic" => field.topology.atomic_map = true,
                "granular" => field.topology.granular_map = true,
                _ => return None,
            },
            Some(("merge", key)) => {
                field.patch.merge = true;
                field.patch.key = Some(key);
            }
            Some(("list", kind)) => field.topology.list = Some(kind),
            Some(("key", keys)) => field.topology.keys = keys.split(',').collect(),
            Some(("default", json)) => field.default = Some(serde_json::from_str(json).ok()?),
            Some(("go", name)) => field.go_type = Some(name),
            Some(_) => return None,
        }
    }
    Some(field)
}
