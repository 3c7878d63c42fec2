//! Manifests: files, folders and standard input, YAML or JSON, many documents each.

use crate::cli::Files;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
const BYTES_MAX: u64 = 64 << 20;

/// An object of a manifest and where it was written.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file and, where it holds several, the number of the document: `web.yaml, document 2`.
    pub origin: String,
    /// The object as written.
    pub object: Value,
}

/// Reads every object that `files` names. Namespaces come first, since others may lie in them; else the order is kept.
pub fn read(files: &Files) -> Result<Vec<Document>> {
    ensure!(
        !files.filename.is_empty(),
        "name a file, a folder or - with -f"
    );
    let mut documents = Vec::new();
    for name in &files.filename {
        if name.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(BYTES_MAX)
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            documents.extend(parse("standard input", &text)?);
            continue;
        }
        for file in expand(name, files.recursive)? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            documents.extend(parse(&file.display().to_string(), &text)?);
        }
    }
    ensure!(!documents.is_empty(), "there is no object in what -f names");
    documents.sort_by_key(|document| document.object["kind"] != "Namespace");
    Ok(documents)
}

/// The documents of a text. A `List` stands for its items.
pub fn parse(origin: &str, text: &str) -> Result<Vec<Document>> {
    let values: Vec<Value> = if text.trim_start().starts_with('{') {
        json_documents(text).with_context(|| format!("{origin} is malformed JSON"))?
    } else {
        serde_saphyr::from_multiple(text).map_err(|error| {
            // Line and column say where; a picture of the place would break the one line.
            anyhow::anyhow!("{origin} is malformed YAML: {}", error.without_snippet())
        })?
    };
    let several = values.len() > 1;
    let mut documents = Vec::new();
    for (index, value) in values
        .into_iter()
        .enumerate()
        .filter(|(_, value)| !value.is_null())
    {
        let origin = if several {
            format!("{origin}, document {}", index + 1)
        } else {
            origin.to_owned()
        };
        if !value.is_object() {
            bail!("{origin} is no object: it must be a map with apiVersion, kind and metadata");
        }
        match value["items"].as_array() {
            Some(items)
                if value["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.ends_with("List")) =>
            {
                documents.extend(items.iter().map(|item| Document {
                    origin: origin.clone(),
                    object: item.clone(),
                }));
            }
            _ => documents.push(Document {
                origin,
                object: value,
            }),
        }
    }
    Ok(documents)
}

/// Objects in JSON, one after the other; lines of `---` may part them, as in YAML.
fn json_documents(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match stream.next() {
            None => return Ok(values),
            Some(Ok(value)) => values.push(value),
            Some(Err(error)) => return Err(error),
        }
        let behind = rest
            .get(stream.byte_offset()..)
            .unwrap_or_default()
            .trim_start();
        let parted = behind.strip_prefix("---");
        rest = parted.map_or(behind, |behind| behind.trim_start_matches('-'));
    }
}

fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect()
        })
        .with_context(|| format!("cannot read the folder {}", path.display()))?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                files.extend(expand(&entry, true)?);
            }
        } else if entry
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|text| EXTENSIONS.contains(&text))
        {
            files.push(entry);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_documents_and_lists_are_read() {
        let text = "kind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let kinds: Vec<_> = parse("f", text)
            .expect("parses")
            .into_iter()
            .map(|document| document.object["kind"].clone())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(
            parse("f", "{\"kind\":\"A\"} {\"kind\":\"B\"}")
                .expect("parses")
                .len(),
            2
        );
        let parted = "{\"kind\":\"A\"}\n---\n{\"kind\":\"B\"}\n---\n";
        assert_eq!(parse("f", parted).expect("parses").len(), 2);
        assert!(parse("f", "{\"kind\":\"A\"}\n---\n{").is_err());
    }

    #[test]
    fn malformed_input_says_where() {
        let error = parse("web.yaml", "a: [1\nb: 2")
            .expect_err("malformed")
            .to_string();
        assert!(error.starts_with("web.yaml is malformed YAML"), "{error}");
        assert!(
            error.lines().count() == 1 && error.contains("line 2"),
            "{error}"
        );
        let error = parse("web.yaml", "kind: A\n---\n- 1\n")
            .expect_err("no map")
            .to_string();
        assert!(
            error.starts_with("web.yaml, document 2 is no object"),
            "{error}"
        );
        assert!(parse("web.json", "{").is_err());
    }
}
