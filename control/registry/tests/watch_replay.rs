//! Whatever happens and wherever a watch begins: replaying its events over the list gives the list at the end.

mod common;

use common::{cluster, target};
use futures::FutureExt;
use futures::executor::block_on;
use futures::stream::StreamExt;
use objects::{LabelSelector, Revision};
use proptest::prelude::*;
use registry::{
    Caller, DeleteOptions, ListOptions, Patch, PatchKind, Pipeline, WatchEventKind, WriteOptions,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Objects = BTreeMap<String, String>;

#[derive(Clone, Debug)]
enum Step {
    Create(u8, bool),
    Label(u8, bool),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4u8, any::<bool>()).prop_map(|(name, web)| Step::Create(name, web)),
        (0..4u8, any::<bool>()).prop_map(|(name, web)| Step::Label(name, web)),
        (0..4u8).prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 0..24)
}

fn app(web: bool) -> &'static str {
    if web { "web" } else { "db" }
}

/// Does the step; that it is refused is no matter.
fn run(pipeline: &Pipeline, step: &Step) {
    let caller = Caller::master();
    let options = WriteOptions::default();
    let name = |name: &u8| format!("c{name}");
    match step {
        Step::Create(n, web) => {
            let body = json!({"metadata": {"name": name(n), "labels": {"app": app(*web)}}});
            let target = target(pipeline, "configmaps", None);
            let _ = block_on(pipeline.create(&caller, &target, body, &options));
        }
        Step::Label(n, web) => {
            let value = json!({"metadata": {"labels": {"app": app(*web)}}});
            let patch = Patch {
                kind: PatchKind::Merge,
                value,
            };
            let target = target(pipeline, "configmaps", Some(&name(n)));
            let _ = block_on(pipeline.patch(&caller, &target, &patch, &options));
        }
        Step::Delete(n) => {
            let target = target(pipeline, "configmaps", Some(&name(n)));
            let _ = block_on(pipeline.delete(&caller, &target, &DeleteOptions::default()));
        }
    }
}

fn options(rv: Option<Revision>) -> ListOptions {
    ListOptions {
        label_selector: LabelSelector::parse("app=web").expect("a selector"),
        resource_version: rv,
        ..ListOptions::default()
    }
}

fn key_and_revision(json: &[u8]) -> (String, String) {
    let object: Value = serde_json::from_slice(json).expect("is JSON");
    let text = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("name"), text("resourceVersion"))
}

fn list(pipeline: &Pipeline) -> (Objects, Revision) {
    let target = target(pipeline, "configmaps", None);
    let list = block_on(pipeline.list(&target, &options(None))).expect("lists");
    (
        list.items
            .iter()
            .map(|item| key_and_revision(item))
            .collect(),
        list.revision,
    )
}

fn replay(
    pipeline: &Pipeline,
    mut objects: Objects,
    rv: Option<Revision>,
    later: impl FnOnce(),
) -> Objects {
    let target = target(pipeline, "configmaps", None);
    let mut watch = block_on(pipeline.watch(&target, &options(rv))).expect("watches");
    later();
    let mut last = Revision(0);
    while let Some(Some(event)) = watch.next().now_or_never() {
        let event = event.expect("no error");
        let (name, revision) = key_and_revision(&event.object);
        assert_eq!(revision, event.revision.to_string());
        if rv.is_some() {
            assert!(event.revision > last, "events come in order");
            last = event.revision;
        }
        let known = objects.contains_key(&name);
        match event.kind {
            WatchEventKind::Added => assert!(!known, "{name} is added once"),
            WatchEventKind::Modified | WatchEventKind::Deleted => {
                assert!(known, "{name} was added")
            }
            WatchEventKind::Bookmark => unreachable!("none were asked for"),
        }
        match event.kind {
            WatchEventKind::Deleted => drop(objects.remove(&name)),
            _ => drop(objects.insert(name, revision)),
        }
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_watch_tells_everything_once_and_in_order(before in steps(), after in steps()) {
        let pipeline = cluster();
        before.iter().for_each(|step| run(&pipeline, step));
        let (known, revision) = list(&pipeline);
        let live = || after.iter().for_each(|step| run(&pipeline, step));
        let followed = replay(&pipeline, known.clone(), Some(revision), live);
        let (end, _) = list(&pipeline);
        prop_assert_eq!(&followed, &end);
        prop_assert_eq!(&replay(&pipeline, known, Some(revision), || {}), &end, "from history");
        prop_assert_eq!(&replay(&pipeline, Objects::new(), None, || {}), &end, "from synthetic events");
    }
}
