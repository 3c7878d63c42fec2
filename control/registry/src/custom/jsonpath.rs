//! The paths of printed columns, scale and selectable fields: Kubernetes' JSONPath as far as definitions may use it.

use serde_json::Value;

/// A path that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// Elements of which a member has the value, or has it not.
    Where(Vec<Step>, bool, Value),
    /// Elements that have the member.
    Has(Vec<Step>),
}

impl JsonPath {
    /// Reads `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels['a.b']`.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        if !text.starts_with(['.', '[']) {
            return Err("must be a simple json path starting with .".to_owned());
        }
        steps(text).map(JsonPath)
    }

    /// The members of a path that names one place without lists; None for others.
    pub fn members(&self) -> Option<Vec<&str>> {
        let members = self.0.iter().map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            _ => None,
        });
        members.collect()
    }

    /// What lies there.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        find(&self.0, value)
    }

    /// Puts a value in the place of members; parts that are missing are made.
    pub fn put(&self, root: &mut Value, value: Value) {
        let Some(members) = self.members() else {
            return;
        };
        let mut at = root;
        for member in members {
            if !at.is_object() {
                *at = Value::Object(Default::default());
            }
            at = &mut at[member];
        }
        *at = value;
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    steps.iter().fold(vec![value], |found, step| {
        found
            .into_iter()
            .flat_map(|value| below(step, value))
            .collect()
    })
}

fn below<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let elements = || match value {
        Value::Array(values) => values.iter().collect::<Vec<_>>(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    };
    match step {
        Step::Member(name) => value.get(name).into_iter().collect(),
        Step::Index(at) => {
            let values = value.as_array().map_or(&[][..], Vec::as_slice);
            let from_end = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
            let at = match at {
                0.. => Some(from_end),
                _ => values.len().checked_sub(from_end),
            };
            at.and_then(|at| values.get(at)).into_iter().collect()
        }
        Step::All => elements(),
        Step::Where(path, equal, wanted) => {
            let fits = |element: &&Value| {
                find(path, element)
                    .first()
                    .is_some_and(|found| (*found == wanted) == *equal)
            };
            elements().into_iter().filter(fits).collect()
        }
        Step::Has(path) => elements()
            .into_iter()
            .filter(|element| !find(path, element).is_empty())
            .collect(),
    }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after).ok_or("unterminated array")?;
            steps.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
            continue;
        }
        let after = rest
            .strip_prefix('.')
            .ok_or_else(|| format!("unexpected {rest:?}"))?;
        if after.is_empty() && steps.is_empty() {
            return Ok(steps);
        }
        if after.starts_with(['[', '.']) {
            rest = after;
            if after.starts_with('.') {
                return Err("recursive descent is not supported".to_owned());
            }
            continue;
        }
        let (name, left) = member(after);
        if name.is_empty() {
            return Err("an empty name between dots".to_owned());
        }
        steps.push(match name.as_str() {
            "*" => Step::All,
            _ => Step::Member(name),
        });
        rest = left;
    }
    Ok(steps)
}

/// A name up to the next dot or bracket; a backslash takes the letter after it as it is.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// Where the bracket ends, outside of quotes and inner brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Result<Step, String> {
    let text = text.trim();
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Member(name.replace("\\.", ".")));
    }
    if let Some(filter) = text
        .strip_prefix("?(")
        .and_then(|text| text.strip_suffix(')'))
    {
        return filter_of(filter.trim());
    }
    text.parse()
        .map(Step::Index)
        .map_err(|_| format!("invalid array index {text}"))
}

fn filter_of(text: &str) -> Result<Step, String> {
    for (sign, equal) in [("==", true), ("!=", false)] {
        let Some((path, wanted)) = text.split_once(sign) else {
            continue;
        };
        let wanted = wanted.trim();
        let wanted = match quoted(wanted) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(wanted)
                .map_err(|_| format!("unrecognized value {wanted} in a filter"))?,
        };
        return Ok(Step::Where(of_current(path)?, equal, wanted));
    }
    of_current(text).map(Step::Has)
}

fn of_current(path: &str) -> Result<Vec<Step>, String> {
    let path = path
        .trim()
        .strip_prefix('@')
        .ok_or("a filter must begin with @")?;
    steps(path)
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_columns_ask() {
        let value = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"ports": [{"name": "one", "port": 1}, {"name": "two", "port": 2}]},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type!='Ready')].status",
                json!(["False"]),
            ),
            (".metadata.labels['a\\.b/c']", json!(["x"])),
            (".metadata.labels.a\\.b/c", json!(["x"])),
            (".spec.ports[*].name", json!(["one", "two"])),
            (".spec.ports[-1].port", json!([2])),
            (".spec.ports[?(@.port==1)].name", json!(["one"])),
            (".spec.missing", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(json!(found.find(&value)), expected, "{path}");
        }
        for path in ["spec", ".spec[", ".spec..x", ".a[x]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
        let mut made = json!({});
        JsonPath::parse(".spec.size")
            .unwrap()
            .put(&mut made, json!(3));
        assert_eq!(made, json!({"spec": {"size": 3}}));
    }
}
