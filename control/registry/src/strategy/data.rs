//! ConfigMaps and Secrets: small files by name. Rules: Kubernetes' core/v1 defaults and validation.

use super::Strategy;
use super::edit::{Members, default_text, map_at, read_flag, read_map, read_text};
use crate::Faults;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::{Object, names};
use serde_json::Value;

/// Bytes that all values together may have.
const BYTES_MAX: usize = 1 << 20;

/// The config maps' strategy.
pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let mut bytes = 0;
        for part in ["data", "binaryData"] {
            for (key, value) in read_map(&object.body, part).into_iter().flatten() {
                check_key(part, key, faults);
                let length = value.as_str().unwrap_or_default().len();
                bytes += if part == "data" {
                    length
                } else {
                    length / 4 * 3
                };
                let twice = part == "binaryData"
                    && read_map(&object.body, "data").is_some_and(|data| data.contains_key(key));
                if twice {
                    faults.invalid_text(
                        format!("{part}[{key}]"),
                        key,
                        "duplicate of key present in data",
                    );
                }
            }
        }
        if bytes > BYTES_MAX {
            faults.too_long("", BYTES_MAX);
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        check_frozen(object, old, &["data", "binaryData"], faults);
    }
}

/// The secrets' strategy.
pub struct Secrets;

/// What a secret of a type must hold.
const TYPES: [(&str, &[&str]); 5] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/basic-auth", &[]),
];

impl Strategy for Secrets {
    fn default_fields(&self, object: &mut Object) {
        default_text(&mut object.body, "type", "Opaque");
        let Some(Value::Object(texts)) = object.body.shift_remove("stringData") else {
            return;
        };
        let Some(data) = map_at(&mut object.body, "data") else {
            return;
        };
        for (key, value) in texts {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, Value::String(encoded));
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let empty = Members::new();
        let data = read_map(&object.body, "data").unwrap_or(&empty);
        let mut bytes = 0;
        for (key, value) in data {
            check_key("data", key, faults);
            bytes += value.as_str().unwrap_or_default().len() / 4 * 3;
        }
        if bytes > BYTES_MAX {
            faults.too_long("data", BYTES_MAX);
        }
        let kind = read_text(&object.body, "type");
        let needed = TYPES
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, keys)| *keys);
        for key in needed
            .unwrap_or_default()
            .iter()
            .filter(|key| !data.contains_key(**key))
        {
            faults.required(format!("data[{key}]"), "");
        }
        if kind == "kubernetes.io/basic-auth"
            && !data.contains_key("username")
            && !data.contains_key("password")
        {
            faults.required("data[username]", "");
            faults.required("data[password]", "");
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        if read_text(&object.body, "type") != read_text(&old.body, "type") {
            faults.invalid_text(
                "type",
                read_text(&object.body, "type"),
                "field is immutable",
            );
        }
        check_frozen(object, old, &["data"], faults);
    }
}

fn check_key(part: &str, key: &str, faults: &mut Faults) {
    faults.invalid_texts(format!("{part}[{key}]"), key, &names::config_key(key));
}

/// What was made immutable stays as it is.
fn check_frozen(object: &Object, old: &Object, parts: &[&str], faults: &mut Faults) {
    if !read_flag(&old.body, "immutable") {
        return;
    }
    if !read_flag(&object.body, "immutable") {
        faults.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for part in parts {
        if object.body.get(*part) != old.body.get(*part) {
            faults.forbidden(part, "field is immutable when `immutable` is set");
        }
    }
}
