//! Volumes of a pod, and where its containers mount them.

use super::super::edit::{Members, read_list, read_map, read_maps, read_text};
use crate::Faults;
use objects::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks the volumes; answers with their names.
pub fn validate<'a>(spec: &'a Members, field: &str, faults: &mut Faults) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (index, volume) in read_maps(spec, "volumes") {
        let field = format!("{field}.volumes[{index}]");
        let name = read_text(volume, "name");
        if name.is_empty() {
            faults.required(format!("{field}.name"), "");
        } else {
            faults.invalid_texts(format!("{field}.name"), name, &names::dns1123_label(name));
            if !known.insert(name) {
                faults.duplicate(format!("{field}.name"), &Value::String(name.to_owned()));
            }
        }
        check_source(volume, &field, faults);
    }
    known
}

/// Checks a container's mounts against the names of the volumes.
pub fn validate_mounts(
    container: &Members,
    volumes: &BTreeSet<&str>,
    field: &str,
    faults: &mut Faults,
) {
    let mut paths = BTreeSet::new();
    for (index, mount) in read_maps(container, "volumeMounts") {
        let field = format!("{field}.volumeMounts[{index}]");
        let name = read_text(mount, "name");
        if name.is_empty() {
            faults.required(format!("{field}.name"), "");
        } else if !volumes.contains(name) {
            faults.not_found(format!("{field}.name"), name);
        }
        let path = read_text(mount, "mountPath");
        if path.is_empty() {
            faults.required(format!("{field}.mountPath"), "");
        } else if !paths.insert(path) {
            faults.invalid_text(format!("{field}.mountPath"), path, "must be unique");
        }
        let sub_path = read_text(mount, "subPath");
        if !sub_path.is_empty() {
            check_relative(sub_path, &format!("{field}.subPath"), faults);
        }
    }
}

fn check_source(volume: &Members, field: &str, faults: &mut Faults) {
    let sources: Vec<&String> = volume.keys().filter(|name| *name != "name").collect();
    match sources[..] {
        [] => faults.required(field, "must specify a volume type"),
        [_] => {}
        [_, second, ..] => {
            faults.forbidden(
                format!("{field}.{second}"),
                "may not specify more than 1 volume type",
            );
        }
    }
    let needed = [
        ("secret", "secretName"),
        ("configMap", "name"),
        ("hostPath", "path"),
        ("persistentVolumeClaim", "claimName"),
        ("nfs", "server"),
    ];
    for (source, member) in needed {
        if let Some(source_map) = read_map(volume, source) {
            if read_text(source_map, member).is_empty() {
                faults.required(format!("{field}.{source}.{member}"), "");
            }
            check_items(source_map, &format!("{field}.{source}"), faults);
        }
    }
    if let Some(projected) = read_map(volume, "projected") {
        for (index, source) in read_maps(projected, "sources") {
            for (name, value) in source {
                if let Some(source) = value.as_object() {
                    check_items(
                        source,
                        &format!("{field}.projected.sources[{index}].{name}"),
                        faults,
                    );
                }
            }
        }
    }
}

fn check_items(source: &Members, field: &str, faults: &mut Faults) {
    if let Some(mode) = source.get("defaultMode")
        && !mode
            .as_i64()
            .is_some_and(|mode| (0..=0o777).contains(&mode))
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        faults.invalid(format!("{field}.defaultMode"), mode, detail);
    }
    if read_list(source, "items").is_empty() {
        return;
    }
    for (index, item) in read_maps(source, "items") {
        let field = format!("{field}.items[{index}]");
        let refers = ["fieldRef", "resourceFieldRef"]
            .iter()
            .any(|name| item.contains_key(*name));
        if !refers && read_text(item, "key").is_empty() {
            faults.required(format!("{field}.key"), "");
        }
        match read_text(item, "path") {
            "" => faults.required(format!("{field}.path"), ""),
            path => check_relative(path, &format!("{field}.path"), faults),
        }
    }
}

fn check_relative(path: &str, field: &str, faults: &mut Faults) {
    if path.starts_with('/') {
        faults.invalid_text(field, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        faults.invalid_text(field, path, "must not contain '..'");
    }
}
