//! Strategic merge patches: maps merge, lists merge by the key that the type declares, directives steer.
//! Semantics and texts: apimachinery's `strategicpatch`. Members are merged in the patch's order, so that the result does
//! not depend on chance.

use super::directives::{self, ORDER_PREFIX, PATCH, PRIMITIVE_DELETE_PREFIX, RETAIN_KEYS};
use super::{Field, PatchRule, Schemas, Shape, Type};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Why a strategic merge patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Original or patch is no JSON map.
    #[error("invalid JSON document")]
    NotAMap,
    /// `$deleteFromPrimitiveList` is malformed.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$retainKeys` is malformed, or the patch names a member that it does not list.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` is malformed.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// A list within a list.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Anything else that the patch got wrong.
    #[error("{0}")]
    Other(String),
}

impl MergeError {
    /// The HTTP status that Kubernetes answers.
    pub fn code(&self) -> u16 {
        match self {
            MergeError::ListOfLists => 422,
            MergeError::Other(_) => 500,
            _ => 400,
        }
    }

    pub(super) fn no_merge_key(map: &Map<String, Value>, key: &str) -> Self {
        let map = go_text(&Value::Object(map.clone()));
        MergeError::Other(format!(
            "map: {map} does not contain declared merge key: {key}"
        ))
    }

    pub(super) fn bad_patch_type(directive: &Value, map: &Map<String, Value>) -> Self {
        MergeError::Other(format!(
            "unknown patch type: {} in map: {}",
            go_text(directive),
            go_text(&Value::Object(map.clone()))
        ))
    }
}

/// Applies `patch` to `original`, both objects of `type`.
pub fn strategic_merge(
    schemas: &Schemas,
    r#type: &Type,
    original: Value,
    patch: Value,
) -> Result<Value, MergeError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(MergeError::NotAMap);
    };
    let level = Level {
        schemas,
        inside: Inside::Type(r#type),
    };
    merge_map(level, original, patch).map(Value::Object)
}

/// Where in the types a merge stands.
#[derive(Clone, Copy)]
pub(super) struct Level<'a> {
    schemas: &'a Schemas,
    inside: Inside<'a>,
}

#[derive(Clone, Copy)]
enum Inside<'a> {
    Type(&'a Type),
    /// Something without declared members; Go's word for it.
    Other(&'static str),
}

impl<'a> Level<'a> {
    pub(super) fn field(self, name: &str) -> Result<&'a Field, MergeError> {
        match self.inside {
            Inside::Type(r#type) => r#type.field(name).ok_or_else(|| {
                MergeError::Other(format!(
                    "unable to find api field in struct {} for the json field {name:?}",
                    r#type.go_name
                ))
            }),
            Inside::Other(word) => Err(MergeError::Other(format!(
                "merging an object in json but data type is not struct, instead is: {word}"
            ))),
        }
    }

    fn below(self, shape: &Shape) -> Self {
        let inside = match shape {
            Shape::Struct(id) => Inside::Type(self.schemas.get(*id)),
            Shape::Map(_) => Inside::Other("map"),
            Shape::List(_) | Shape::WrappedList(_) => Inside::Other("slice"),
            Shape::Text => Inside::Other("string"),
            _ => Inside::Other("struct"),
        };
        Level { inside, ..self }
    }

    /// The level of a list's elements.
    pub(super) fn elements(self, field: &Field) -> Result<Self, MergeError> {
        match &field.shape {
            Shape::List(element) | Shape::WrappedList(element) => Ok(self.below(element)),
            _ => Err(MergeError::Other(
                "expected slice or array type, but got: struct".to_owned(),
            )),
        }
    }
}

/// Merges `patch` into `original`.
pub(super) fn merge_map(
    level: Level<'_>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, MergeError> {
    match patch.get(PATCH).map(|directive| directive.as_str()) {
        None => {}
        Some(Some("replace")) => {
            patch.shift_remove(PATCH);
            return Ok(patch);
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(MergeError::bad_patch_type(&patch[PATCH], &patch)),
    }
    if let Some(keys) = patch.shift_remove(RETAIN_KEYS) {
        directives::retain_keys(&mut original, &patch, &keys)?;
    }
    directives::set_element_orders(level, &mut original, &mut patch)?;
    for (key, value) in patch {
        match key.strip_prefix(PRIMITIVE_DELETE_PREFIX) {
            Some(_) => directives::delete_from_primitive_list(&mut original, &key, value)?,
            None => merge_member(level, &mut original, key, value)?,
        }
    }
    Ok(original)
}

fn merge_member(
    level: Level<'_>,
    original: &mut Map<String, Value>,
    key: String,
    patch: Value,
) -> Result<(), MergeError> {
    if patch.is_null() {
        original.shift_remove(&key);
        return Ok(());
    }
    let merged = match (original.get_mut(&key), patch) {
        (Some(Value::Object(old)), Value::Object(patch)) => {
            let field = level.field(&key)?;
            if field.patch.replace {
                Some(Value::Object(patch))
            } else {
                let old = std::mem::take(old);
                Some(Value::Object(merge_map(
                    level.below(&field.shape),
                    old,
                    patch,
                )?))
            }
        }
        (Some(Value::Array(old)), Value::Array(patch)) => {
            let field = level.field(&key)?;
            let elements = level.elements(field)?;
            let old = std::mem::take(old);
            Some(Value::Array(merge_list(elements, field.patch, old, patch)?))
        }
        (_, patch) => directives::without_directives(patch),
    };
    match merged {
        Some(value) => original.insert(key, value),
        None => original.shift_remove(&key),
    };
    Ok(())
}

/// Merges a patch's list into a list by the rule of its member.
pub(super) fn merge_list(
    elements: Level<'_>,
    rule: PatchRule,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, MergeError> {
    if !rule.merge {
        return Ok(patch);
    }
    let holds_maps = match check_elements(&original, &patch)? {
        None => return Ok(original),
        Some(holds_maps) => holds_maps,
    };
    if !holds_maps {
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for value in original.iter().chain(&patch) {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return Ok(directives::in_order(merged, &patch, &original, None));
    }
    let Some(key) = rule.key else {
        return Err(MergeError::Other(
            "cannot merge lists without merge key for struct".to_owned(),
        ));
    };
    let (original, patch) = directives::take_element_directives(original, patch, key)?;
    directives::check_merge_keys(&original, key)?;
    directives::check_merge_keys(&patch, key)?;
    // Orders need the keys only.
    let order = |list: &[Value]| -> Vec<Value> {
        let key_only =
            |value: &Value| Value::Object(Map::from_iter([(key.to_owned(), value[key].clone())]));
        list.iter().map(key_only).collect()
    };
    let (patch_order, server_order) = (order(&patch), order(&original));
    let merged = merge_elements(elements, original, patch, key)?;
    Ok(directives::in_order(
        merged,
        &patch_order,
        &server_order,
        Some(key),
    ))
}

fn merge_elements(
    level: Level<'_>,
    mut merged: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<Vec<Value>, MergeError> {
    for element in patch {
        let found = merged
            .iter_mut()
            .find(|old| old.get(key) == element.get(key));
        match (found, element) {
            (Some(Value::Object(old)), Value::Object(element)) => {
                *old = merge_map(level, std::mem::take(old), element)?;
            }
            (_, element) => merged.push(element),
        }
    }
    Ok(merged)
}

/// Whether the elements are maps; None when there are none. All must be of one type, and none a list.
pub(super) fn check_elements(
    original: &[Value],
    patch: &[Value],
) -> Result<Option<bool>, MergeError> {
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else {
        return Ok(None);
    };
    if first.is_array() {
        return Err(MergeError::ListOfLists);
    }
    if all.any(|other| std::mem::discriminant(other) != std::mem::discriminant(first)) {
        let lists = Value::Array(vec![original.into(), patch.into()]);
        return Err(MergeError::Other(format!(
            "list element types are not identical: {}",
            go_text(&lists)
        )));
    }
    Ok(Some(first.is_object()))
}

/// A value as Go's `%v` prints it.
pub(super) fn go_text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(word) => text.push_str(word),
        Value::Array(list) => {
            let words: Vec<String> = list.iter().map(go_text).collect();
            text = format!("[{}]", words.join(" "));
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|member| member.0);
            let words = members
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_text(value)));
            text = format!("map[{}]", words.collect::<Vec<_>>().join(" "));
        }
        other => write!(text, "{other}").expect("a text takes what is written"),
    }
    text
}

/// Whether a name is a directive rather than a member.
pub(super) fn is_directive(name: &str) -> bool {
    name.starts_with(PRIMITIVE_DELETE_PREFIX) || name.starts_with(ORDER_PREFIX)
}
