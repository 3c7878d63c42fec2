//! Client libraries and an operator, unchanged, against three masters of which the leader is killed.

use anyhow::{Context, Result, ensure};
use clients::{Kind, Rig, define_gadgets, node, python, survive};

/// Of an operator's log, what a failure shows.
const LOG_BYTES: usize = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_do_their_work_and_an_operator_survives_the_loss_of_a_master() -> Result<()> {
    let (python, node) = (python()?, node()?);
    let mut rig = Rig::start().await?;
    for script in ["kubernetes_client.py", "kr8s_client.py"] {
        let told = rig.script(python.clone(), script).succeed().await?;
        ensure!(told.contains("all as expected"), "{script}: {told}");
        println!("{script} has done its work");
    }
    let folder = node.display().to_string();
    let script = rig.script("node".into(), "client_node.mjs");
    let told = script
        .with(&[], &[("NODE_FOLDER", &folder)])
        .succeed()
        .await?;
    ensure!(told.contains("all as expected"), "client_node.mjs: {told}");
    println!("client_node.mjs has done its work");

    define_gadgets(&rig).await?;
    let log = tempfile::NamedTempFile::new()?;
    let _kopf = rig
        .script(python.clone(), "run_operator.py")
        .start(log.path())?;
    for kind in [Kind::Maps, Kind::Gadgets] {
        survive(&mut rig, "kopf", kind).await.with_context(|| {
            let said = std::fs::read(log.path()).unwrap_or_default();
            let end = said.len().saturating_sub(LOG_BYTES);
            format!("kopf said: {}", String::from_utf8_lossy(&said[end..]))
        })?;
    }
    println!("the operator in kopf has survived");
    Ok(())
}
