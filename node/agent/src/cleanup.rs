//! Takes away all that an agent of a data directory has made outside of it and of its pods: processes, mounts, links,
//! cgroups, rules. The agent must not run; nothing is asked of the API. Run again it finds nothing to do.

use anyhow::{Context, bail};
use network::Network;
use node_runtime::{Images, ImagesConfig, Pods, PodsConfig};

use crate::cli::Cleanup;
use crate::data_dir::{DataDir, Settings};
use crate::run;

/// Cleans up.
pub async fn cleanup(args: &Cleanup) -> anyhow::Result<()> {
    if !args.data_dir.exists() {
        return Ok(());
    }
    let data = DataDir::open(&args.data_dir)?;
    let _lock = data.lock()?;
    let Some(settings) = data.settings()? else {
        return Ok(());
    };
    remove_pods(args, &data, &settings).await?;
    remove_network(&data, &settings).await?;
    for folder in ["logs", "messages", "tmp", "netns"] {
        match std::fs::remove_dir_all(data.path(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("cannot remove {}: {error}", data.path(folder).display())
            }
            _ => {}
        }
    }
    Ok(())
}

async fn remove_pods(args: &Cleanup, data: &DataDir, settings: &Settings) -> anyhow::Result<()> {
    let images =
        Images::open(ImagesConfig::new(data.path("images"))).context("cannot open the images")?;
    let mut config = PodsConfig {
        cgroup_root: settings.cgroup_root.clone(),
        ..PodsConfig::new(data.path("run"))
    };
    if let Some(shim) = &args.shim {
        config.shim.clone_from(shim);
    }
    let pods = Pods::open(config, images)
        .await
        .context("cannot open the pods")?;
    for pod in pods.list() {
        pods.remove(&pod.spec.uid).await.with_context(|| {
            format!(
                "cannot end the pod {}/{}",
                pod.spec.namespace, pod.spec.name
            )
        })?;
    }
    pods.dismantle()
        .await
        .context("cannot take the pods' folder down")
}

async fn remove_network(data: &DataDir, settings: &Settings) -> anyhow::Result<()> {
    let Some(config) = run::network_config(data, settings)? else {
        return Ok(());
    };
    // Without its DNS server: nobody is left to ask it.
    let network = Network::open(network::Config {
        dns: None,
        ..config
    })
    .await
    .context("cannot open the pods' network")?;
    network
        .teardown()
        .await
        .context("cannot remove the pods' network")
}
