//! Names that follow from what they name: children of an owner, and the hash of a pod template.
//!
//! The alphabet has no vowels and no digits that look like letters, as Kubernetes' `rand.SafeEncodeString`.

use serde_json::Value;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Kubernetes' limit for most names.
const NAME_LENGTH_MAX: usize = 253;
/// The limit of a DNS label: a pod's name is also its host name.
const POD_NAME_LENGTH_MAX: usize = 63;

/// FNV-1a: small, stable for ever, and good enough where a collision is noticed and resolved.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash with its bits spread once more: FNV's high bits are weak for short inputs.
    fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

/// `length` characters of the safe alphabet.
fn encode(mut hash: u64, length: usize) -> String {
    let base = ALPHABET.len() as u64;
    (0..length)
        .map(|_| {
            let at = (hash % base) as usize;
            hash /= base;
            char::from(ALPHABET[at])
        })
        .collect()
}

/// `prefix-xxxxx`, the same for the same `parts`; the prefix is cut so that the name stays legal.
pub fn child(prefix: &str, parts: &[&str]) -> String {
    cut_child(prefix, parts, NAME_LENGTH_MAX)
}

/// The name of the pod number `index` of the owner with this uid.
pub fn pod(owner: &str, owner_uid: &str, index: usize) -> String {
    cut_child(owner, &[owner_uid, &index.to_string()], POD_NAME_LENGTH_MAX)
}

fn cut_child(prefix: &str, parts: &[&str], length_max: usize) -> String {
    let mut hash = Fnv::new();
    for part in parts {
        hash.add(part.as_bytes());
        hash.add(&[0]);
    }
    let suffix = encode(hash.finish(), 5);
    let room = length_max - suffix.len() - 1;
    let prefix = prefix.get(..room).unwrap_or(prefix);
    format!("{}-{suffix}", prefix.trim_end_matches(['-', '.']))
}

/// The `pod-template-hash` of a template: the same for templates that mean the same, whatever the order of their members.
/// `collisions` tells apart two templates that hash alike.
pub fn template_hash(template: &Value, collisions: i32) -> String {
    let mut hash = Fnv::new();
    add_value(&mut hash, &normal_template(template));
    if collisions > 0 {
        hash.add(&collisions.to_le_bytes());
    }
    encode(hash.finish(), 9)
}

/// Whether two templates mean the same, the hash label aside.
pub fn same_template(left: &Value, right: &Value) -> bool {
    normal_template(left) == normal_template(right)
}

/// A template without what carries no meaning: the hash label, nulls, and empty lists and maps that Go's clients drop or add.
fn normal_template(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
        labels.remove("pod-template-hash");
    }
    normalise("", &mut template);
    template
}

/// Maps that mean the same empty as absent; an empty map elsewhere can mean something, as `emptyDir: {}` does.
const EMPTY_IS_ABSENT: [&str; 9] = [
    "metadata",
    "labels",
    "annotations",
    "resources",
    "limits",
    "requests",
    "nodeSelector",
    "securityContext",
    "matchLabels",
];

fn normalise(name: &str, value: &mut Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => {
            for item in items.iter_mut() {
                normalise("", item);
            }
            !items.is_empty()
        }
        Value::Object(map) => {
            map.retain(|name, value| normalise(name, value));
            !(map.is_empty() && EMPTY_IS_ABSENT.contains(&name))
        }
        _ => true,
    }
}

fn add_value(hash: &mut Fnv, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            hash.add(b"{");
            for name in names {
                hash.add(name.as_bytes());
                hash.add(b":");
                add_value(hash, &map[name]);
            }
            hash.add(b"}");
        }
        Value::Array(items) => {
            hash.add(b"[");
            for item in items {
                add_value(hash, item);
                hash.add(b",");
            }
            hash.add(b"]");
        }
        scalar => hash.add(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn template_hash_ignores_order_and_empties() {
        let one = json!({"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}});
        let two = json!({"spec": {"containers": [{"image": "i", "name": "c"}]}, "metadata": {"labels": {"app": "web"}}});
        assert_eq!(template_hash(&one, 0), template_hash(&two, 0));
        assert!(same_template(&one, &two));
        assert_ne!(template_hash(&one, 0), template_hash(&one, 1));
        let three = json!({"spec": {"containers": [{"image": "j", "name": "c"}]}, "metadata": {"labels": {"app": "web"}}});
        assert!(!same_template(&one, &three));
        assert_ne!(template_hash(&one, 0), template_hash(&three, 0));
        // Stored in every ReplicaSet's name: a change of the hash would start a rollout everywhere.
        assert_eq!(template_hash(&two, 0), "ksphfv9z9");
    }

    #[test]
    fn child_names_are_stable_and_legal() {
        assert_eq!(pod("web", "uid", 0), pod("web", "uid", 0));
        assert_ne!(pod("web", "uid", 0), pod("web", "uid", 1));
        assert!(pod(&"a".repeat(70), "uid", 0).len() <= 63);
        assert!(!child("web-", &["x"]).contains("--"));
    }
}
