//! Printing: tables, JSON, YAML; colours only on a terminal.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::IsTerminal;

/// Prints rows below headers, aligned as kubectl does.
pub fn table(headers: &[String], rows: Vec<Vec<String>>) {
    println!("{}", render(headers, rows));
}

fn render(headers: &[String], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !headers.is_empty() {
        table.set_header(headers.iter().map(|header| header.to_uppercase()));
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Prints JSON for people and machines.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints YAML.
pub fn yaml(value: &impl serde::Serialize) -> Result<()> {
    print!("{}", yaml_text(value)?);
    Ok(())
}

/// YAML text that ends its last line.
pub fn yaml_text(value: &impl serde::Serialize) -> Result<String> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The rows of a `meta.k8s.io/v1` Table: headers and cells, with the columns of lower priority when `wide`.
pub fn server_table(answer: &Value, wide: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let columns = answer["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let shown: Vec<usize> = (0..columns.len())
        .filter(|index| wide || columns[*index]["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let headers = shown
        .iter()
        .map(|index| columns[*index]["name"].as_str().unwrap_or("").to_owned())
        .collect();
    (headers, rows_of(answer, &shown))
}

/// The cells of a Table's rows, of the columns `shown`.
pub fn rows_of(answer: &Value, shown: &[usize]) -> Vec<Vec<String>> {
    let rows = answer["rows"].as_array().map_or(&[][..], Vec::as_slice);
    rows.iter()
        .map(|row| {
            shown
                .iter()
                .map(|index| cell(&row["cells"][*index]))
                .collect()
        })
        .collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) if text.is_empty() => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `24h`, `90m`, `45s`: the largest unit in which it is whole.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units
        .iter()
        .find(|(unit, _)| seconds > *unit && seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// `2.0 GiB`, `3.1 MiB`, `12 B`.
pub fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1 << shift)),
        None => format!("{bytes} B"),
    }
}

/// Text that stands out on a terminal, and is plain elsewhere.
pub fn strong(text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_told_in_their_unit() {
        assert_eq!(duration(86_400), "24h");
        assert_eq!([duration(7 * 86_400), duration(90)], ["7d", "90s"]);
        assert_eq!([bytes(2 << 30), bytes(12)], ["2.0 GiB", "12 B"]);
    }

    #[test]
    fn a_table_shows_what_its_width_allows() {
        let answer = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["web-1", "1/1", "10.0.0.1"]}, {"cells": ["b", "", null]}],
        });
        let (headers, rows) = server_table(&answer, false);
        assert_eq!(
            render(&headers, rows),
            "NAME    READY\nweb-1   1/1\nb       <none>"
        );
        assert_eq!(
            server_table(&answer, true).1[0],
            ["web-1", "1/1", "10.0.0.1"]
        );
    }
}
