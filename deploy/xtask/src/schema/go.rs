//! Reads the Go sources of Kubernetes' API types, as far as those are written: structs of tagged fields, named types.
//! It is no parser of Go: it knows the layout that gofmt gives to these files, and refuses a field that it cannot read.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A package of API types.
#[derive(Debug, Default)]
pub struct Package {
    /// `discovery.k8s.io`; empty for core.
    pub group: String,
    /// The types by name.
    pub types: BTreeMap<String, Declaration>,
    /// The constants that are texts, as JSON, by name.
    pub constants: BTreeMap<String, String>,
    /// Import paths by the name under which the files use them.
    pub imports: BTreeMap<String, String>,
}

/// A type of a package.
#[derive(Debug)]
pub struct Declaration {
    /// The comment lines above it, without slashes.
    pub comment: Vec<String>,
    /// What it is.
    pub body: Body,
}

/// What a type is.
#[derive(Debug)]
pub enum Body {
    /// A struct.
    Struct(Vec<Field>),
    /// Another type under a new name.
    Named(String),
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// The comment lines above it, without slashes.
    pub comment: Vec<String>,
    /// Its Go type: `*int32`, `[]Container`, `metav1.ObjectMeta`.
    pub go_type: String,
    /// Its tags by name.
    pub tags: BTreeMap<String, String>,
}

/// Reads the package in `folder`: its types*.go and the group name in its register.go.
pub fn read_package(folder: &Path) -> anyhow::Result<Package> {
    let mut package = Package::default();
    let register = folder.join("register.go");
    let text = std::fs::read_to_string(&register)
        .with_context(|| format!("read {}", register.display()))?;
    package.group = group_name(&text)
        .with_context(|| format!("{}: no GroupName", register.display()))?
        .to_owned();
    for types in type_files(folder)? {
        let text =
            std::fs::read_to_string(&types).with_context(|| format!("read {}", types.display()))?;
        read_types(&text, &mut package).with_context(|| format!("in {}", types.display()))?;
    }
    Ok(package)
}

/// `types.go` and its kin (`types_jsonschema.go`), but neither tests nor what generators wrote.
fn type_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let is_go = path.extension().is_some_and(|extension| extension == "go");
        if let (true, Some(name)) = (is_go, name)
            && name.starts_with("types")
            && !name.ends_with("_test")
            && !name.ends_with("_generated")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn group_name(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find(|line| line.contains("GroupName =") || line.contains("GroupName string ="))?;
    line.split('"').nth(1)
}

fn read_types(text: &str, package: &mut Package) -> anyhow::Result<()> {
    let mut comment = Vec::new();
    let mut lines = outside_block_comments(text).enumerate();
    while let Some((at, line)) = lines.next() {
        let words = line.trim();
        if let Some(rest) = words.strip_prefix("//") {
            comment.push(rest.trim().to_owned());
            continue;
        }
        if line == "import (" {
            let block = lines.by_ref().map(|(_, line)| line.trim());
            package
                .imports
                .extend(block.take_while(|line| *line != ")").filter_map(import));
        } else if let Some(one) = line.strip_prefix("import ") {
            package.imports.extend(import(one));
        } else if let Some((name, rest)) = declaration(line) {
            let body = if rest == "struct {" {
                let block = lines.by_ref().take_while(|(_, line)| *line != "}");
                Body::Struct(read_fields(block)?)
            } else if rest == "struct {}" || rest == "struct{}" {
                Body::Struct(Vec::new())
            } else {
                Body::Named(rest.split("//").next().unwrap_or(rest).trim().to_owned())
            };
            if name.is_empty() {
                bail!("line {}: a type without a name", at + 1);
            }
            package.types.insert(
                name.to_owned(),
                Declaration {
                    comment: std::mem::take(&mut comment),
                    body,
                },
            );
        }
        if let Some((name, text)) = constant(words) {
            package.constants.insert(name.to_owned(), text.to_owned());
        }
        // A blank line does not end a comment: generators' marks stand above an empty line too.
        if !words.is_empty() {
            comment.clear();
        }
    }
    Ok(())
}

/// The lines of `text`, those of `/* … */` blocks emptied, so that line numbers stay right.
fn outside_block_comments(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().map(move |line| {
        inside |= line.trim_start().starts_with("/*");
        let shown = if inside { "" } else { line };
        inside &= !line.trim_end().ends_with("*/");
        shown
    })
}

fn import(line: &str) -> Option<(String, String)> {
    let (alias, rest) = line.split_once('"')?;
    let path = rest.strip_suffix('"')?;
    let alias = match alias.trim() {
        "" => path.rsplit('/').next()?,
        alias => alias,
    };
    Some((alias.to_owned(), path.to_owned()))
}

/// `Name Type = "text"` of a block of constants.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (left, text) = line.split_once(" = ")?;
    let name = left.split_whitespace().next()?;
    (text.starts_with('"') && text.ends_with('"')).then_some((name, text))
}

fn declaration(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("type ")?.split_once(' ')?;
    Some((name, rest.trim_start_matches("= ").trim()))
}

fn read_fields<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> anyhow::Result<Vec<Field>> {
    let mut fields = Vec::new();
    let mut comment = Vec::new();
    for (at, line) in lines {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("//") {
            comment.push(rest.trim().to_owned());
        } else if line.is_empty() {
            comment.clear();
        } else {
            let field = read_field(line, std::mem::take(&mut comment))
                .with_context(|| format!("line {}: not a tagged field: {line}", at + 1))?;
            fields.push(field);
        }
    }
    Ok(fields)
}

fn read_field(line: &str, comment: Vec<String>) -> Option<Field> {
    let (head, rest) = line.split_once('`')?;
    let tags = rest.split_once('`')?.0;
    // Embedded fields have a type only.
    let go_type = head
        .split_whitespace()
        .nth(1)
        .or(head.split_whitespace().next())?;
    Some(Field {
        comment,
        go_type: go_type.to_owned(),
        tags: read_tags(tags),
    })
}

fn read_tags(text: &str) -> BTreeMap<String, String> {
    let mut parts = text.split('"');
    let mut tags = BTreeMap::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        tags.insert(
            name.trim().trim_end_matches(':').to_owned(),
            value.to_owned(),
        );
    }
    tags
}

/// The value of a mark such as `+listType=map` in a comment; empty for a mark without value.
pub fn mark<'a>(comment: &'a [String], name: &str) -> Option<&'a str> {
    marks(comment, name).next()
}

/// Every value of a mark that may stand several times, such as `+listMapKey=ip`.
pub fn marks<'a>(comment: &'a [String], name: &str) -> impl Iterator<Item = &'a str> {
    comment.iter().filter_map(move |line| {
        let rest = line.strip_prefix('+')?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.trim()),
            None => rest.is_empty().then_some(rest),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_structs_and_named_types() {
        let source = "import (\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n)\n// +enum\ntype Policy string\n\n\
            type Probe struct {\n\t// +optional\n\t// +listMapKey=ip\n\tIPs []HostIP `json:\"ips,omitempty\" protobuf:\"bytes,14,rep,name=ips\" \
            patchStrategy:\"merge\"`\n\tHandler `json:\",inline\"`\n}\n";
        let mut package = Package::default();
        read_types(source, &mut package).expect("reads");
        assert_eq!(
            package.imports["metav1"],
            "k8s.io/apimachinery/pkg/apis/meta/v1"
        );
        assert!(matches!(&package.types["Policy"].body, Body::Named(other) if other == "string"));
        let Body::Struct(fields) = &package.types["Probe"].body else {
            panic!("a struct");
        };
        assert_eq!(fields[0].go_type, "[]HostIP");
        assert_eq!(fields[0].tags["patchStrategy"], "merge");
        assert_eq!(mark(&fields[0].comment, "listMapKey"), Some("ip"));
        assert_eq!(mark(&fields[0].comment, "optional"), Some(""));
        assert_eq!(fields[1].go_type, "Handler");
    }
}
