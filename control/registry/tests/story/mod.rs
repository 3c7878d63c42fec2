//! One command of a story in, the answer as text out.

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use mvcc::MemStore;
use objects::cluster::ClusterSettings;
use objects::{FieldSelector, LabelSelector, Revision, Status, Timestamp, Uid};
use registry::{
    Caller, DeleteOptions, Deleted, FieldValidation, ListOptions, Patch, PatchKind, Pipeline,
    Propagation, Registry, Shell, Target, VersionMatch, WatchEvent, WriteOptions, Written,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// A cluster, and what was said in it so far.
pub struct Story {
    pipeline: Pipeline,
    /// Keeps the table as the definitions of custom kinds say.
    definitions: BoxFuture<'static, Status>,
    /// Keeps the admission policies.
    policies: BoxFuture<'static, Status>,
    shell: Arc<ScriptShell>,
    caller: Caller,
    watches: BTreeMap<String, Events>,
    token: Option<String>,
}

/// Time that stands still until it is told to go on, and ids that count.
struct ScriptShell {
    now_ms: AtomicI64,
    ids: AtomicU64,
}

impl Shell for ScriptShell {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now_ms.load(Ordering::SeqCst))
    }

    fn uid(&self) -> Uid {
        Uid(format!("uid-{}", self.ids.fetch_add(1, Ordering::SeqCst)))
    }

    fn name_suffix(&self) -> String {
        format!("bcd{:02}", self.ids.fetch_add(1, Ordering::SeqCst))
    }
}

/// A command's words: what is plain, and what is `name=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (named, plain): (Vec<&str>, Vec<&str>) =
            line.split(' ').partition(|word| word.contains('='));
        Words {
            plain,
            named: named
                .iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.get(name).copied()
    }

    fn flag(&self, name: &str) -> bool {
        self.plain.contains(&name)
    }
}

impl Story {
    /// An empty cluster with the namespace `default`.
    pub fn new() -> Self {
        let shell = Arc::new(ScriptShell {
            now_ms: AtomicI64::new(1_767_225_600_000), // 2026-01-01T00:00:00Z
            ids: AtomicU64::new(1),
        });
        let settings = ClusterSettings {
            cluster_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_address: "10.96.0.10".to_owned(),
        };
        let registry = Arc::new(Registry::builtin());
        let pipeline = Pipeline::new(Arc::new(MemStore::new()), registry, shell.clone(), settings);
        let caller = Caller::master();
        let (follower, of_policies) = (pipeline.clone(), pipeline.clone());
        let mut story = Story {
            pipeline,
            definitions: async move { follower.follow_definitions().await }.boxed(),
            policies: async move { of_policies.follow_policies().await }.boxed(),
            shell,
            caller,
            watches: BTreeMap::new(),
            token: None,
        };
        story.tell("create ns", r#"{"metadata":{"name":"default"}}"#);
        story
    }

    /// Does what the command says and tells the answer.
    pub fn tell(&mut self, command: &str, body: &str) -> String {
        let _ = (&mut self.definitions).now_or_never();
        let _ = (&mut self.policies).now_or_never();
        let words = Words::of(command);
        let answer = match words.plain[0] {
            "tick" => self.tick(words.plain[1]),
            "as" => self.be(words.plain[1]),
            "compact" => self.compact(words.plain[1]),
            "watch" => self.watch(&words),
            "events" => Ok(self.events(words.plain[1])),
            "list" => self.list(&words),
            "table" => self.table(&words),
            _ => self.request(&words, body),
        };
        answer.unwrap_or_else(|status| refused(&status))
    }

    fn request(&mut self, words: &Words<'_>, body: &str) -> Result<String, Status> {
        let target = self.target(words);
        let show = words.get("show");
        let access = self.pipeline.access();
        block_on(access.read_all(&**self.pipeline.store())).expect("the store reads");
        access.authorize(&self.caller, verb_of(words.plain[0]), &target)?;
        match words.plain[0] {
            "get" => {
                let json = block_on(self.pipeline.get(&target, revision(words)))?;
                Ok(format!("200 {}", shown(&json, show)))
            }
            "create" => {
                let (value, options) = write_body(words, body)?;
                let written =
                    block_on(self.pipeline.create(&self.caller, &target, value, &options))?;
                Ok(answered(&written, show))
            }
            "update" => {
                let (value, options) = write_body(words, body)?;
                let written =
                    block_on(self.pipeline.update(&self.caller, &target, value, &options))?;
                Ok(answered(&written, show))
            }
            "patch" => {
                let (value, options) = write_body(words, body)?;
                let patch = Patch {
                    kind: patch_kind(words),
                    value,
                };
                let written =
                    block_on(self.pipeline.patch(&self.caller, &target, &patch, &options))?;
                Ok(answered(&written, show))
            }
            "delete" => match block_on(self.pipeline.delete(
                &self.caller,
                &target,
                &delete_options(words),
            ))? {
                Deleted::Object(json) => Ok(format!("200 object {}", shown(&json, show))),
                Deleted::Status(status) => Ok(format!("200 {}", serde_json::json!(status.details))),
            },
            "deletecollection" => {
                let (list, options) = (list_options(words, None), delete_options(words));
                let list = block_on(self.pipeline.delete_collection(
                    &self.caller,
                    &target,
                    &list,
                    &options,
                ))?;
                Ok(format!("200 {} items", list.items.len()))
            }
            other => panic!("no command {other:?}"),
        }
    }

    fn list(&mut self, words: &Words<'_>) -> Result<String, Status> {
        let target = self.target(words);
        let token = self.token.take().filter(|_| words.flag("continue"));
        let list = block_on(self.pipeline.list(&target, &list_options(words, token)))?;
        self.token = list.continue_token;
        let mut lines = vec![format!(
            "200 at {} remaining {:?}",
            list.revision, list.remaining
        )];
        lines.extend(
            list.items
                .iter()
                .map(|item| format!("  {}", shown(item, words.get("show")))),
        );
        Ok(lines.join("\n"))
    }

    fn table(&mut self, words: &Words<'_>) -> Result<String, Status> {
        let target = self.target(words);
        let list = block_on(self.pipeline.list(&target, &list_options(words, None)))?;
        let objects = list.items.iter().map(|item| &item[..]);
        let include = registry::tableprint::IncludeObject::None;
        let table = registry::tableprint::table(
            &target.resource,
            objects,
            Value::Null,
            include,
            true,
            self.shell.now(),
        )?;
        let cell = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let names = table["columnDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|column| cell(&column["name"]));
        let mut lines = vec![names.collect::<Vec<_>>().join(" | ")];
        for row in table["rows"].as_array().into_iter().flatten() {
            let cells: Vec<String> = row["cells"]
                .as_array()
                .into_iter()
                .flatten()
                .map(cell)
                .collect();
            lines.push(cells.join(" | "));
        }
        Ok(lines.join("\n"))
    }

    fn watch(&mut self, words: &Words<'_>) -> Result<String, Status> {
        let name = words.plain[1].to_owned();
        let rest = Words {
            plain: words.plain[1..].to_vec(),
            named: words.named.clone(),
        };
        let target = self.target(&rest);
        let events = block_on(self.pipeline.watch(&target, &list_options(words, None)))?;
        self.watches.insert(name, events);
        Ok("watching".to_owned())
    }

    fn events(&mut self, name: &str) -> String {
        let events = self.watches.get_mut(name).expect("the watch was opened");
        let mut lines = Vec::new();
        while let Some(event) = events.next().now_or_never() {
            match event {
                None => lines.push("closed".to_owned()),
                Some(Err(status)) => lines.push(refused(&status)),
                Some(Ok(event)) => {
                    let detail = match event.kind {
                        registry::WatchEventKind::Bookmark => {
                            shown(&event.object, Some("/metadata/annotations"))
                        }
                        _ => shown(&event.object, None),
                    };
                    lines.push(format!(
                        "{} {} {detail}",
                        event.kind.as_str(),
                        event.revision
                    ));
                }
            }
            if lines.last().is_some_and(|line| line == "closed") {
                break;
            }
        }
        lines.join("\n")
    }

    fn tick(&mut self, time: &str) -> Result<String, Status> {
        let seconds: i64 = time.trim_end_matches('s').parse().expect("seconds");
        self.shell
            .now_ms
            .fetch_add(seconds * 1000, Ordering::SeqCst);
        Ok(self.shell.now().to_string())
    }

    fn be(&mut self, who: &str) -> Result<String, Status> {
        self.caller = match who.strip_prefix("node:") {
            Some(node) => Caller {
                user: format!("system:node:{node}"),
                groups: vec!["system:nodes".to_owned()],
                ..Caller::default()
            },
            None if who == "master" => Caller::master(),
            None => Caller {
                user: who.to_owned(),
                ..Caller::default()
            },
        };
        Ok(self.caller.user.clone())
    }

    fn compact(&mut self, revision: &str) -> Result<String, Status> {
        let revision = Revision(revision.parse().expect("a revision"));
        block_on(self.pipeline.store().compact(revision)).expect("the store compacts");
        Ok("done".to_owned())
    }

    /// `pods default/a`, `pods default/`, `pods`, `deploy/scale default/a`.
    fn target(&self, words: &Words<'_>) -> Target {
        let (resource, subresource) = match words.plain[1].split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (words.plain[1], None),
        };
        let registry = self.pipeline.registry();
        let row = registry.by_name(resource).expect("the resource exists");
        let place = words
            .plain
            .get(2)
            .copied()
            .filter(|word| !FLAGS.contains(word))
            .unwrap_or_default();
        let (namespace, name) = match place.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, place),
        };
        let namespace =
            namespace.or((words.plain[0] == "create" && row.namespaced).then_some("default"));
        Target {
            resource: row.clone(),
            namespace: namespace.map(str::to_owned),
            name: Some(name)
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        }
    }
}

const FLAGS: [&str; 10] = [
    "force",
    "strict",
    "ignore",
    "dry-run",
    "json",
    "merge",
    "strategic",
    "apply",
    "continue",
    "bookmarks",
];

fn verb_of(command: &str) -> registry::Verb {
    match command {
        "create" => registry::Verb::Create,
        "update" => registry::Verb::Update,
        "patch" => registry::Verb::Patch,
        "delete" => registry::Verb::Delete,
        "deletecollection" => registry::Verb::DeleteCollection,
        _ => registry::Verb::Get,
    }
}

fn revision(words: &Words<'_>) -> Option<Revision> {
    words
        .get("rv")
        .map(|text| Revision(text.parse().expect("a revision")))
}

fn list_options(words: &Words<'_>, continue_token: Option<String>) -> ListOptions {
    // Selectors of a story use `:` for `=`, since the words of a command do.
    let selector = |name: &str| words.get(name).unwrap_or_default().replace(':', "=");
    ListOptions {
        label_selector: LabelSelector::parse(&selector("labels")).expect("a label selector"),
        field_selector: FieldSelector::parse(&selector("fields")).expect("a field selector"),
        limit: words
            .get("limit")
            .map(|text| text.parse().expect("a number")),
        continue_token,
        resource_version: revision(words),
        version_match: words.get("match").map(|word| match word {
            "exact" => VersionMatch::Exact,
            _ => VersionMatch::NotOlderThan,
        }),
        allow_bookmarks: words.flag("bookmarks"),
        send_initial_events: words.get("initial").map(|word| word == "true"),
        is_uncounted: false,
    }
}

fn write_body(words: &Words<'_>, body: &str) -> Result<(Value, WriteOptions), Status> {
    let (value, duplicate_fields) = registry::decode_json(body.as_bytes())?;
    let field_validation = match (words.flag("strict"), words.flag("ignore")) {
        (true, _) => FieldValidation::Strict,
        (_, true) => FieldValidation::Ignore,
        _ => FieldValidation::Warn,
    };
    let options = WriteOptions {
        dry_run: words.flag("dry-run"),
        field_manager: words.get("manager").map(str::to_owned),
        field_validation,
        duplicate_fields,
        force: words.flag("force"),
        create_refused: None,
        ..WriteOptions::default()
    };
    Ok((value, options))
}

fn patch_kind(words: &Words<'_>) -> PatchKind {
    match () {
        () if words.flag("json") => PatchKind::Json,
        () if words.flag("merge") => PatchKind::Merge,
        () if words.flag("apply") => PatchKind::Apply,
        () => PatchKind::Strategic,
    }
}

fn delete_options(words: &Words<'_>) -> DeleteOptions {
    DeleteOptions {
        grace_seconds: words
            .get("grace")
            .map(|text| text.parse().expect("seconds")),
        propagation: words.get("propagation").map(|word| match word {
            "orphan" => Propagation::Orphan,
            "foreground" => Propagation::Foreground,
            _ => Propagation::Background,
        }),
        uid: words.get("uid").map(Uid::from),
        resource_version: revision(words),
        dry_run: words.flag("dry-run"),
        ..DeleteOptions::default()
    }
}

fn answered(written: &Written, show: Option<&str>) -> String {
    let code = if written.created { 201 } else { 200 };
    let mut text = format!("{code} {}", shown(&written.json, show));
    for warning in &written.warnings {
        text.push_str(&format!("\n  warning: {warning}"));
    }
    text
}

/// Namespace, name and revision, and the members at the comma-separated pointers of `show`; `owners` shows who owns which
/// fields, `all` everything else.
fn shown(json: &[u8], show: Option<&str>) -> String {
    let mut value: Value = serde_json::from_slice(json).expect("answers are JSON");
    let entries = value
        .pointer_mut("/metadata/managedFields")
        .map(Value::take);
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
    if show == Some("all") {
        return format!("{value:#}");
    }
    let at = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut text = match at("/metadata/namespace") {
        "" => format!(
            "{}@{}",
            at("/metadata/name"),
            at("/metadata/resourceVersion")
        ),
        namespace => format!(
            "{namespace}/{}@{}",
            at("/metadata/name"),
            at("/metadata/resourceVersion")
        ),
    };
    for pointer in show.into_iter().flat_map(|show| show.split(',')) {
        if pointer == "owners" {
            text.push_str(&owners(entries.as_ref()));
            continue;
        }
        let found = value
            .pointer(pointer)
            .map_or("absent".to_owned(), Value::to_string);
        text.push_str(&format!("\n  {pointer}: {found}"));
    }
    text
}

/// Who owns which fields since when, an entry a line.
fn owners(entries: Option<&Value>) -> String {
    let lines = entries.and_then(Value::as_array).into_iter().flatten();
    let lines = lines.map(|entry| {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let part = match text("subresource") {
            "" => String::new(),
            part => format!("/{part}"),
        };
        let fields = registry::apply::Set::decode(&entry["fieldsV1"]).expect("fields");
        let time = text("time").get(11..19).unwrap_or_default();
        format!(
            "\n  {} {}{part} {} {time}: {}",
            text("operation"),
            text("manager"),
            text("apiVersion"),
            fields.to_string().replace('\n', " ")
        )
    });
    lines.collect()
}

fn refused(status: &Status) -> String {
    let reason = status
        .reason
        .map(|reason| serde_json::json!(reason))
        .unwrap_or_default();
    let mut text = format!("{} {}", status.code, reason.as_str().unwrap_or_default());
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<String> = causes
        .map(|cause| format!("\n  {}: {} ({})", cause.field, cause.message, cause.reason))
        .collect();
    if status.code == 422 && !causes.is_empty() {
        let head = status
            .message
            .split(" is invalid: ")
            .next()
            .unwrap_or_default();
        text.push_str(&format!(": {head} is invalid"));
    } else {
        text.push_str(&format!(": {}", status.message));
    }
    text.push_str(&causes.concat());
    text
}
