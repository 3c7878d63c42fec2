//! Generates the facts table of `registry::schema` from the Go sources of Kubernetes' API types.
//!
//! The sources are in Debian's packages golang-k8s-{api,apimachinery,apiextensions-apiserver,metrics}-dev (sid): `apt-get
//! download` them, `dpkg -x` them into one folder, and give its `usr/share/gocode/src/k8s.io` as `--go-sources`. The types
//! of APIService are in no such package: copy `staging/src/k8s.io/kube-aggregator` of Debian's source package kubernetes
//! (bookworm) beside them; they are as old as their version. Nothing is downloaded here. Why Go and not the OpenAPI documents: only the Go structs say which scalars are pointers, and the tags beside them
//! hold JSON name, protobuf number and patch strategy at once.

mod go;

use anyhow::{Context, bail};
use go::{Body, Declaration, Field, Package, mark, marks};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const HEADER: &str = "\
# Facts of Kubernetes' API types. Written by `cargo xtask schema` from kinds.txt; do not edit.
#   @package NAME GROUP OPENAPI-PREFIX         (GROUP is - for core)
#   @type NAME [kind] [atomic]                 then one line a field:
#   JSON-NAME PROTOBUF-NUMBER TYPE FLAG...    (~ = the fields of TYPE stand in this map themselves)
#   or = TYPE                               the fields of another type
# TYPE: a scalar, a type of the package, package.type, []TYPE, {}TYPE (map of text), items[]TYPE (list within a message),
#   TYPE|array, TYPE|bool, TYPE|strings (that, or a list of it, a boolean, a list of texts).
# ptr: a pointer in Go. keep: written even when zero. req: required. merge[=KEY], replace, retain: patch strategy.
# list=map|set|atomic, key=K[,K]: list type. atomic: atomic map, or type that is owned as a whole; granular: not here. go=NAME: the name of the type in Go's errors.
# default=JSON: the default that OpenAPI publishes.
";

/// Writes the facts of every type that the kinds in `kinds` reach to `out`.
pub fn generate(go_sources: &Path, kinds: &Path, out: &Path) -> anyhow::Result<()> {
    let wanted =
        std::fs::read_to_string(kinds).with_context(|| format!("read {}", kinds.display()))?;
    let mut generator = Generator {
        go_sources: go_sources.to_owned(),
        packages: BTreeMap::new(),
        kinds: BTreeSet::new(),
        written: BTreeMap::new(),
        atomic: BTreeSet::new(),
        queue: Vec::new(),
    };
    for line in wanted.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(package) = words.next() else {
            continue;
        };
        for kind in words {
            generator.want(package, kind)?;
        }
    }
    while let Some(name) = generator.queue.pop() {
        generator.describe(&name)?;
    }
    let text = generator.text();
    std::fs::write(out, &text).with_context(|| format!("write {}", out.display()))?;
    println!(
        "{}: {} types, {} bytes",
        out.display(),
        generator.written.len(),
        text.len()
    );
    Ok(())
}

/// Where a package lies under `k8s.io`.
fn home(package: &str) -> String {
    let parent = match package.split('/').next().unwrap_or_default() {
        "meta" => "apimachinery/pkg/apis/",
        "apiextensions" => "apiextensions-apiserver/pkg/apis/",
        "apiregistration" => "kube-aggregator/pkg/apis/",
        "metrics" => "metrics/pkg/apis/",
        _ => "api/",
    };
    format!("{parent}{package}")
}

/// A type by package (`core/v1`) and name.
type Name = (String, String);

struct Generator {
    go_sources: PathBuf,
    packages: BTreeMap<String, Package>,
    kinds: BTreeSet<Name>,
    written: BTreeMap<Name, String>,
    atomic: BTreeSet<Name>,
    queue: Vec<Name>,
}

/// A Go type as the facts table and as Go's errors name it.
struct Resolved {
    shape: String,
    go: String,
    /// True when `go` does not follow from `shape`.
    renamed: bool,
}

impl Resolved {
    fn plain(shape: &str, go: &str) -> Self {
        Resolved {
            shape: shape.to_owned(),
            go: go.to_owned(),
            renamed: false,
        }
    }
}

impl Generator {
    fn want(&mut self, package: &str, kind: &str) -> anyhow::Result<()> {
        let types = &self.package(package)?.types;
        if !types.contains_key(kind) {
            bail!("{package} has no type {kind}");
        }
        let list = format!("{kind}List");
        let has_list = types.contains_key(&list);
        for name in [kind.to_owned()]
            .into_iter()
            .chain(has_list.then_some(list))
        {
            self.kinds.insert((package.to_owned(), name.clone()));
            self.queue.push((package.to_owned(), name));
        }
        Ok(())
    }

    fn package(&mut self, name: &str) -> anyhow::Result<&Package> {
        if !self.packages.contains_key(name) {
            let folder = self.go_sources.join(home(name));
            let package = go::read_package(&folder)?;
            self.packages.insert(name.to_owned(), package);
        }
        Ok(&self.packages[name])
    }

    fn describe(&mut self, name: &Name) -> anyhow::Result<()> {
        if self.written.contains_key(name) {
            return Ok(());
        }
        self.written.insert(name.clone(), String::new());
        let (package, type_name) = name;
        let declaration = self.declaration(package, type_name)?;
        if mark(&declaration.comment, "structType") == Some("atomic") {
            self.atomic.insert(name.clone());
        }
        let mut lines = String::new();
        match declaration.body {
            Body::Struct(fields) => {
                for field in &fields {
                    self.field(package, field, &mut lines)
                        .with_context(|| format!("{package}.{type_name}"))?;
                }
            }
            // `type List metav1.List`: the same fields under another name.
            Body::Named(other) => {
                let resolved = self.resolve(package, &other)?;
                writeln!(lines, "= {}", resolved.shape)?;
            }
        }
        self.written.insert(name.clone(), lines);
        Ok(())
    }

    fn declaration(&mut self, package: &str, name: &str) -> anyhow::Result<Declaration> {
        let declaration = self
            .package(package)?
            .types
            .get(name)
            .with_context(|| format!("{package} has no type {name}"))?;
        let body = match &declaration.body {
            Body::Named(other) => Body::Named(other.clone()),
            Body::Struct(fields) => Body::Struct(fields.clone()),
        };
        Ok(Declaration {
            comment: declaration.comment.clone(),
            body,
        })
    }

    fn field(&mut self, package: &str, field: &Field, lines: &mut String) -> anyhow::Result<()> {
        let json = field.tags.get("json").context("a field without json tag")?;
        let mut options = json.split(',');
        let name = options.next().unwrap_or_default();
        let options: Vec<&str> = options.collect();
        if name == "-" {
            return Ok(());
        }
        let number = field
            .tags
            .get("protobuf")
            .and_then(|tag| tag.split(',').nth(1));
        let number: u32 = number.unwrap_or("0").parse()?;
        let bare_type = field.go_type.trim_start_matches('*');
        let resolved = self.resolve(package, bare_type)?;
        if name.is_empty() {
            writeln!(lines, "~ {number} {}", resolved.shape)?;
            return Ok(());
        }
        write!(lines, "{name} {number} {}", resolved.shape)?;
        for flag in flags(field, &options) {
            write!(lines, " {flag}")?;
        }
        if let Some(default) = mark(&field.comment, "default") {
            let default = self.constant(package, default)?;
            write!(lines, " default={default}")?;
        }
        if resolved.renamed {
            write!(lines, " go={}", resolved.go)?;
        }
        lines.push('\n');
        Ok(())
    }

    fn resolve(&mut self, package: &str, go_type: &str) -> anyhow::Result<Resolved> {
        if go_type == "[]byte" {
            return Ok(Resolved::plain("bytes", "[]uint8"));
        }
        if let Some(element) = go_type.strip_prefix("[]") {
            let element = self.resolve(package, element)?;
            return Ok(Resolved {
                shape: format!("[]{}", element.shape),
                go: format!("[]{}", element.go),
                renamed: element.renamed,
            });
        }
        if let Some((key, value)) = go_type
            .strip_prefix("map[")
            .and_then(|rest| rest.split_once(']'))
        {
            let (key, value) = (self.resolve(package, key)?, self.resolve(package, value)?);
            return Ok(Resolved {
                shape: format!("{{}}{}", value.shape),
                go: format!("map[{}]{}", key.go, value.go),
                renamed: key.renamed || value.renamed,
            });
        }
        if let Some(name) = go_type.strip_prefix('*') {
            return self.resolve(package, name);
        }
        match go_type {
            "string" | "bool" | "int32" | "int64" => return Ok(Resolved::plain(go_type, go_type)),
            "float64" => return Ok(Resolved::plain("double", go_type)),
            _ => {}
        }
        match go_type.split_once('.') {
            Some((alias, name)) => self.resolve_import(package, alias, name),
            None => self.resolve_named(package, package, go_type),
        }
    }

    fn resolve_import(
        &mut self,
        package: &str,
        alias: &str,
        name: &str,
    ) -> anyhow::Result<Resolved> {
        let path = self.package(package)?.imports.get(alias).cloned();
        let path = path.with_context(|| format!("{package} does not import {alias}"))?;
        match (path.as_str(), name) {
            ("k8s.io/apimachinery/pkg/api/resource", "Quantity") => {
                Ok(Resolved::plain("quantity", "resource.Quantity"))
            }
            ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString") => {
                Ok(Resolved::plain("intorstring", "intstr.IntOrString"))
            }
            ("k8s.io/apimachinery/pkg/runtime", "RawExtension") => {
                Ok(Resolved::plain("raw", "runtime.RawExtension"))
            }
            ("k8s.io/apimachinery/pkg/types", name) => Ok(Resolved {
                shape: "string".to_owned(),
                go: format!("types.{name}"),
                renamed: true,
            }),
            (path, name) => {
                let other = path
                    .strip_prefix("k8s.io/api/")
                    .or_else(|| path.strip_prefix("k8s.io/apimachinery/pkg/apis/"))
                    .with_context(|| format!("no facts for {path}.{name}"))?
                    .to_owned();
                self.resolve_named(package, &other, name)
            }
        }
    }

    fn resolve_named(&mut self, from: &str, package: &str, name: &str) -> anyhow::Result<Resolved> {
        let go = format!("{}.{name}", package.rsplit('/').next().unwrap_or(package));
        if package.starts_with("meta/") {
            let leaf = match name {
                "Time" => Some("time"),
                "MicroTime" => Some("microtime"),
                "Duration" => Some("duration"),
                "FieldsV1" => Some("fieldsv1"),
                _ => None,
            };
            if let Some(leaf) = leaf {
                return Ok(Resolved::plain(leaf, &go));
            }
        }
        if package.starts_with("apiextensions/") {
            // Types that read and write JSON by methods of their own.
            let own = match name {
                "JSON" => Some("json"),
                "JSONSchemaPropsOrArray" => Some("JSONSchemaProps|array"),
                "JSONSchemaPropsOrBool" => Some("JSONSchemaProps|bool"),
                "JSONSchemaPropsOrStringArray" => Some("JSONSchemaProps|strings"),
                _ => None,
            };
            if let Some(shape) = own {
                return Ok(Resolved::plain(shape, &go));
            }
        }
        let declaration = self.declaration(package, name)?;
        if let Body::Named(other) = &declaration.body {
            let other = self.resolve(package, other)?;
            let in_message = mark(&declaration.comment, "protobuf.nullable").is_some();
            return Ok(Resolved {
                shape: format!("{}{}", if in_message { "items" } else { "" }, other.shape),
                go,
                renamed: true,
            });
        }
        self.queue.push((package.to_owned(), name.to_owned()));
        let shape = if from == package {
            name.to_owned()
        } else {
            format!("{package}.{name}")
        };
        Ok(Resolved::plain(&shape, &go))
    }

    /// The JSON of a `+default` mark, which may name a constant.
    fn constant(&mut self, package: &str, text: &str) -> anyhow::Result<String> {
        let named = text
            .strip_prefix("ref(")
            .and_then(|rest| rest.strip_suffix(')'));
        let Some(name) = named else {
            return Ok(text.to_owned());
        };
        let constants = &self.package(package)?.constants;
        constants
            .get(name)
            .cloned()
            .with_context(|| format!("{package} has no constant {name}"))
    }

    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        let mut package = "";
        for (name, lines) in &self.written {
            if package != name.0 {
                package = &name.0;
                let group = match self.packages[package].group.as_str() {
                    "" => "-",
                    group => group,
                };
                let prefix = format!("io.k8s.{}", home(package).replace('/', "."));
                text.push_str(&format!("@package {package} {group} {prefix}\n"));
            }
            let kind = if self.kinds.contains(name) {
                " kind"
            } else {
                ""
            };
            let atomic = match self.atomic.contains(name) {
                true => " atomic",
                false => "",
            };
            text.push_str(&format!("@type {}{kind}{atomic}\n{lines}", name.1));
        }
        text
    }
}

fn flags(field: &Field, options: &[&str]) -> Vec<String> {
    let mut flags = Vec::new();
    if field.go_type.starts_with('*') {
        flags.push("ptr".to_owned());
    }
    let omitted = options.contains(&"omitempty") || options.contains(&"omitzero");
    if !omitted {
        flags.push("keep".to_owned());
    }
    let optional = mark(&field.comment, "optional").is_some();
    if mark(&field.comment, "required").is_some() || (!optional && !omitted) {
        flags.push("req".to_owned());
    }
    let key = field.tags.get("patchMergeKey");
    for strategy in field
        .tags
        .get("patchStrategy")
        .into_iter()
        .flat_map(|tag| tag.split(','))
    {
        flags.push(match (strategy, key) {
            ("merge", Some(key)) => format!("merge={key}"),
            ("retainKeys", _) => "retain".to_owned(),
            (other, _) => other.to_owned(),
        });
    }
    if let Some(kind) = mark(&field.comment, "listType") {
        flags.push(format!("list={kind}"));
    }
    let keys: Vec<&str> = marks(&field.comment, "listMapKey").collect();
    if !keys.is_empty() {
        flags.push(format!("key={}", keys.join(",")));
    }
    let kinds = [
        mark(&field.comment, "mapType"),
        mark(&field.comment, "structType"),
    ];
    let relations = ["atomic", "granular"].into_iter();
    let told = relations.filter(|relation| kinds.contains(&Some(*relation)));
    flags.extend(told.map(str::to_owned));
    flags
}
