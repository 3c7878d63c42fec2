//! kube-rs, unchanged: as a client of everything that its users ask, and as the frame of an operator that outlives a master.

mod operator;

use anyhow::{Context, Result, bail, ensure};
use clients::Rig;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const MANAGER: &str = "kube-rs-test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_does_its_work_and_its_operator_survives_the_loss_of_a_master() -> Result<()> {
    let mut rig = Rig::start().await?;
    let client = client(&rig).await?;
    objects_are_written_listed_and_watched(&client).await?;
    println!("kube-rs has written, listed and watched");
    rig.add_node("n1").await?;
    containers_are_spoken_with(&client).await?;
    println!("kube-rs has spoken with a container");
    operator::survive(&mut rig, client).await?;
    println!("the operator in kube-rs has survived");
    Ok(())
}

async fn client(rig: &Rig) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(rig.kubeconfig())?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

fn map(name: &str, word: &str) -> Result<ConfigMap> {
    let object =
        json!({"metadata": {"name": name, "labels": {"of": "kube-rs"}}, "data": {"word": word}});
    Ok(serde_json::from_value(object)?)
}

async fn objects_are_written_listed_and_watched(client: &Client) -> Result<()> {
    let version = client.apiserver_version().await?;
    ensure!(version.major == "1", "{version:?}");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let ours = watcher::Config::default().labels("of=kube-rs");
    let mut seen = watcher(maps.clone(), ours.streaming_lists())
        .applied_objects()
        .boxed();
    for number in 0..25 {
        let made = map(&format!("a{number:02}"), "one")?;
        maps.create(&PostParams::default(), &made).await?;
    }
    for _ in 0..25 {
        let told = timeout(PATIENCE, seen.try_next())
            .await
            .context("the watch tells nothing")??;
        ensure!(told.is_some(), "the watch ended");
    }

    // In pages, each of which says how much follows.
    let mut page = ListParams::default().labels("of=kube-rs").limit(10);
    let mut names = Vec::new();
    loop {
        let list = maps.list(&page).await?;
        names.extend(list.items.iter().map(ResourceExt::name_any));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    ensure!(names.len() == 25 && names.is_sorted(), "{names:?}");
    let meta = maps
        .list_metadata(&ListParams::default().labels("of=kube-rs"))
        .await?;
    ensure!(
        meta.items.len() == 25,
        "{} objects without content",
        meta.items.len()
    );

    // Applied by two managers, who do not take from each other unless told to.
    let apply = PatchParams::apply(MANAGER);
    let mine = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"word": "mine"}});
    maps.patch("b", &apply, &Patch::Apply(&mine)).await?;
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"word": "theirs"}});
    let other = PatchParams::apply("another");
    match maps.patch("b", &other, &Patch::Apply(&theirs)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        answer => bail!("no conflict: {answer:?}"),
    }
    let forced = maps
        .patch("b", &other.force(), &Patch::Apply(&theirs))
        .await?;
    ensure!(word(&forced) == Some("theirs"), "{forced:?}");
    let merge = json!({"data": {"word": null, "more": "x"}});
    let merged = maps
        .patch("b", &PatchParams::default(), &Patch::Merge(&merge))
        .await?;
    ensure!(word(&merged).is_none(), "{merged:?}");

    // A write that does not know the newest state is refused.
    let mut stale = maps.get("a00").await?;
    let newer = maps
        .patch(
            "a00",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"word": "two"}})),
        )
        .await?;
    ensure!(
        newer.resource_version() != stale.resource_version(),
        "nothing was written"
    );
    stale.data = None;
    match maps.replace("a00", &PostParams::default(), &stale).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        answer => bail!("no conflict: {answer:?}"),
    }
    ensure!(
        maps.get_opt("absent").await?.is_none(),
        "what is absent was found"
    );
    maps.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("of=kube-rs"),
    )
    .await?;
    ensure!(
        maps.list(&ListParams::default().labels("of=kube-rs"))
            .await?
            .items
            .is_empty(),
        "some are left"
    );
    Ok(())
}

fn word(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("word").map(String::as_str)
}

async fn containers_are_spoken_with(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    ensure!(
        nodes.list(&ListParams::default()).await?.items.len() == 1,
        "there is one node"
    );
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let script = "echo first; echo second; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let pod = json!({"metadata": {"name": "talker"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "main", "image": clients::IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    let runs = await_condition(pods.clone(), "talker", conditions::is_pod_running());
    timeout(PATIENCE, runs)
        .await
        .context("the pod does not run")??;

    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pin!(pods.log_stream("talker", &follow).await?.lines());
    for expected in ["first", "second"] {
        let line = timeout(PATIENCE, lines.try_next()).await;
        let line = line.context("no line of the log")??;
        ensure!(
            line.as_deref() == Some(expected),
            "{line:?} in place of {expected}"
        );
    }
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let told = pods.logs("talker", &tail).await?;
    ensure!(told == "second\n", "{told:?}");

    let attach = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods
        .exec(
            "talker",
            ["sh", "-c", "read word; echo got $word; exit 3"],
            &attach,
        )
        .await?;
    let mut stdin = process.stdin().context("there is a standard input")?;
    stdin.write_all(b"hello\n").await?;
    let mut told = String::new();
    let mut stdout = process.stdout().context("there is a standard output")?;
    timeout(PATIENCE, stdout.read_to_string(&mut told))
        .await
        .context("the output does not end")??;
    ensure!(told == "got hello\n", "{told:?}");
    let status = process.take_status().context("there is a status")?.await;
    let status: Value = serde_json::to_value(status.context("the status was not told")?)?;
    ensure!(status["reason"] == "NonZeroExitCode", "{status}");

    pods.delete("talker", &DeleteParams::default()).await?;
    let gone = async {
        while pods.get_opt("talker").await?.is_some() {
            sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, gone)
        .await
        .context("the pod does not go")?
}
