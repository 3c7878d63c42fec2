//! The cases of `typed`: validation, sets of fields, merging, comparing, removing, changed schemas.

use crate::go::{File, Go};
use crate::scope::{Scope, items, members};
use crate::types::{object, schema};
use crate::{Case, Outcome};
use registry::apply::schema::Type;
use registry::apply::{Duplicates, Set, equal};
use serde_json::Value;

/// All cases of a file's tables.
pub(super) fn cases(file: &str, package: &File) -> Vec<Case> {
    let tables: [(&str, &str, &[&'static str], Check); 5] = [
        ("mergeCases", "triplets", &["lhs", "rhs", "out"], merge),
        (
            "symdiffCases",
            "quints",
            &["lhs", "rhs", "removed", "modified", "added"],
            compare,
        ),
        (
            "removeCases",
            "quadruplets",
            &["object", "set", "removeOutput", "extractOutput"],
            remove,
        ),
        ("fieldsetCases", "pairs", &["object", "set"], field_set),
        ("validationCases", "", &[], validate),
    ];
    let scope = Scope::global(package);
    let mut cases = Vec::new();
    for (table, rows, order, check) in tables {
        let Some(all) = package.values.get(table) else {
            continue;
        };
        for group in items(all) {
            let outcomes = of_group(&scope, group, rows, order, check);
            cases.extend(outcomes.into_iter().map(|(name, outcome)| Case {
                name: format!("{file} {table} {name}"),
                outcome,
            }));
        }
    }
    for group in package
        .values
        .get("reconcileCases")
        .into_iter()
        .flat_map(items)
    {
        cases.push(Case::of(
            format!("{file} reconcileCases {}", name_of(&scope, group)),
            reconcile(&scope, group),
        ));
    }
    cases.extend(deduced(file, package));
    cases
}

type Check = fn(&Scope<'_>, Type<'static>, &Row<'_>) -> Result<(), String>;
type Row<'g> = std::collections::HashMap<String, &'g Go>;

fn name_of(scope: &Scope<'_>, group: &Go) -> String {
    let name = members(group, &[])
        .ok()
        .and_then(|members| Some(scope.text(members.get("name")?)));
    name.and_then(Result::ok).unwrap_or_default()
}

fn of_group(
    scope: &Scope<'_>,
    group: &Go,
    rows: &str,
    order: &[&'static str],
    check: Check,
) -> Vec<(String, Outcome)> {
    let name = name_of(scope, group);
    let group = members(group, &[]).expect("a table of structs");
    let r#type = || {
        let schema = schema(&scope.text(group.get("schema").ok_or("no schema")?)?)?;
        let root = scope.text(group.get("rootTypeName").ok_or("no root type")?)?;
        schema.named(&root).ok_or_else(|| format!("no type {root}"))
    };
    let run = |row: &Row<'_>| match r#type() {
        Ok(r#type) => Outcome::of(check(scope, r#type, row)),
        Err(why) => Outcome::Unread(why),
    };
    if rows.is_empty() {
        let lists = ["validObjects", "invalidObjects", "duplicatesObjects"];
        let lists = lists
            .iter()
            .filter_map(|list| Some((*list, *group.get(*list)?)));
        let objects =
            lists.flat_map(|(list, objects)| items(objects).map(move |object| (list, object)));
        let objects = objects.enumerate().map(|(at, (list, object))| {
            let row = Row::from([(list.to_owned(), object)]);
            (format!("{name} {list} {at}"), run(&row))
        });
        return objects.collect();
    }
    let rows = group.get(rows).into_iter().flat_map(|rows| items(rows));
    let rows = rows.enumerate().map(|(at, row)| {
        let outcome = match members(row, order) {
            Ok(row) => run(&row),
            Err(why) => Outcome::Unread(why),
        };
        (format!("{name} {at}"), outcome)
    });
    rows.collect()
}

/// An object that must fit.
fn fitting(
    scope: &Scope<'_>,
    r#type: Type<'static>,
    row: &Row<'_>,
    name: &str,
    duplicates: Duplicates,
) -> Result<Value, String> {
    let value = object(&scope.text(row.get(name).ok_or_else(|| unread(name))?)?)
        .map_err(|why| unread(&why))?;
    r#type
        .validate(&value, duplicates)
        .map_err(|faults| format!("{name} does not fit: {}", faults[0]))?;
    Ok(value)
}

/// Marks what is wrong with the reading, not with the answer.
fn unread(why: &str) -> String {
    format!("{}{why}", Outcome::UNREAD)
}

fn same_sets(what: &str, got: &Set, wanted: &Set) -> Result<(), String> {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("{what}: wanted\n{wanted}\ngot\n{got}")),
    }
}

fn same_values(got: &Value, wanted: &Value) -> Result<(), String> {
    match equal(got, wanted) {
        true => Ok(()),
        false => Err(format!("wanted {wanted}, got {got}")),
    }
}

fn set(scope: &Scope<'_>, row: &Row<'_>, name: &str) -> Result<Set, String> {
    let set = scope.set(row.get(name).ok_or_else(|| unread(name))?);
    Ok(set.map_err(|why| unread(&why))?.unwrap_or_default())
}

fn merge(scope: &Scope<'_>, r#type: Type<'static>, row: &Row<'_>) -> Result<(), String> {
    let live = fitting(scope, r#type, row, "lhs", Duplicates::Allow)?;
    let applied = fitting(scope, r#type, row, "rhs", Duplicates::Refuse)?;
    let wanted = fitting(scope, r#type, row, "out", Duplicates::Allow)?;
    let got = r#type
        .merge(&live, &applied)
        .map_err(|fault| fault.to_string())?;
    same_values(&got, &wanted)
}

fn compare(scope: &Scope<'_>, r#type: Type<'static>, row: &Row<'_>) -> Result<(), String> {
    let [old, new] =
        ["lhs", "rhs"].map(|name| fitting(scope, r#type, row, name, Duplicates::Allow));
    let (old, new) = (old?, new?);
    let there = r#type
        .compare(&old, &new)
        .map_err(|fault| fault.to_string())?;
    same_sets("added", &there.added, &set(scope, row, "added")?)?;
    same_sets("modified", &there.modified, &set(scope, row, "modified")?)?;
    same_sets("removed", &there.removed, &set(scope, row, "removed")?)?;
    let back = r#type
        .compare(&new, &old)
        .map_err(|fault| fault.to_string())?;
    same_sets("modified backwards", &back.modified, &there.modified)?;
    same_sets("added backwards", &back.added, &there.removed)?;
    same_sets("removed backwards", &back.removed, &there.added)
}

/// What is extracted is the client's part and not ours.
fn remove(scope: &Scope<'_>, r#type: Type<'static>, row: &Row<'_>) -> Result<(), String> {
    let value = fitting(scope, r#type, row, "object", Duplicates::Refuse)?;
    let output = scope.text(
        row.get("removeOutput")
            .ok_or_else(|| unread("removeOutput"))?,
    )?;
    if output == "unparseable" {
        return Err(unread("only the extracted value is given"));
    }
    let wanted = object(&output).map_err(|why| unread(&why))?;
    same_values(&r#type.remove(&value, &set(scope, row, "set")?), &wanted)
}

fn field_set(scope: &Scope<'_>, r#type: Type<'static>, row: &Row<'_>) -> Result<(), String> {
    let value = fitting(scope, r#type, row, "object", Duplicates::Allow)?;
    let got = r#type
        .field_set(&value)
        .map_err(|fault| fault.to_string())?;
    same_sets("fields", &got, &set(scope, row, "set")?)
}

fn validate(scope: &Scope<'_>, r#type: Type<'static>, row: &Row<'_>) -> Result<(), String> {
    let (list, text) = row.iter().next().ok_or("no object")?;
    // What YAML itself refuses is refused as well.
    let value = object(&scope.text(text)?);
    let fits = |duplicates| match &value {
        Ok(value) => r#type.validate(value, duplicates).is_ok(),
        Err(_) => false,
    };
    let wanted = match list.as_str() {
        "validObjects" => (true, true),
        "duplicatesObjects" => (false, true),
        _ => (false, false),
    };
    let got = (fits(Duplicates::Refuse), fits(Duplicates::Allow));
    match got.0 == wanted.0 && (list == "invalidObjects" || got.1 == wanted.1) {
        true => Ok(()),
        false => Err(format!("fits {got:?}, wanted {wanted:?}: {value:?}")),
    }
}

fn reconcile(scope: &Scope<'_>, group: &Go) -> Result<(), String> {
    let group = members(group, &[]).map_err(|why| unread(&why))?;
    let text = |name: &str| {
        scope
            .text(group.get(name).ok_or_else(|| unread(name))?)
            .map_err(|why| unread(&why))
    };
    let schema = schema(&text("newSchema")?).map_err(|why| unread(&why))?;
    let root = text("rootTypeName")?;
    let r#type = schema.named(&root).ok_or_else(|| unread(&root))?;
    let old = set(scope, &group, "oldFields")?;
    let fixed = scope.set(
        group
            .get("fixedFields")
            .ok_or_else(|| unread("fixedFields"))?,
    )?;
    let got = r#type.reconcile(&old).map_err(|fault| fault.to_string())?;
    same_sets("fields", &got, &fixed.unwrap_or(old))
}

/// The tables within the functions about deduced types.
fn deduced(file: &str, package: &File) -> Vec<Case> {
    let scope = Scope::global(package);
    let parser = scope
        .parser(&Go::Name("DeducedParser".to_owned()))
        .expect("known");
    let r#type = parser.of_version("").expect("one for all");
    let tables: [(&str, &str, &[&'static str], Check); 3] = [
        (
            "TestMergeDeduced",
            "triplets",
            &["lhs", "rhs", "out"],
            merge,
        ),
        ("TestToSetDeduced", "pairs", &["object", "set"], field_set),
        (
            "TestSymdiffDeduced",
            "quints",
            &["lhs", "rhs", "removed", "modified", "added"],
            compare,
        ),
    ];
    let mut cases = Vec::new();
    for (function, table, order, check) in tables {
        let Some((_, body)) = package.functions.get(function) else {
            continue;
        };
        let locals = body.locals();
        let rows = locals.get(table).into_iter().flat_map(items).enumerate();
        cases.extend(rows.map(|(at, row)| {
            let outcome = members(row, order).map_err(|why| unread(&why));
            let outcome = outcome.and_then(|row| check(&scope, r#type, &row));
            Case::of(format!("{file} {function} {at}"), outcome)
        }));
    }
    cases
}
