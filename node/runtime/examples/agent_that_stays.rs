//! An agent that starts a container and stays until it is killed: `agent_that_stays DIR NAME POD IMAGE SHIM`. The tests of
//! restarts run it as a process of its own.

use node_runtime::{ContainerSpec, Images, ImagesConfig, Pods, PodsConfig};
use std::path::PathBuf;

const COUNTS: &str =
    "trap 'exit 11' TERM; i=0; while true; do i=$((i+1)); echo $i; sleep 0.02; done";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, name, pod, image, shim] = &args[..] else {
        panic!("give DIR NAME POD IMAGE SHIM, not {args:?}");
    };
    let (dir, config) = (
        PathBuf::from(dir),
        PodsConfig::new(PathBuf::from(dir).join("run")),
    );
    let config = PodsConfig {
        shim: shim.into(),
        cgroup_root: name.into(),
        ..config
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let images = Images::open(ImagesConfig::new(dir.join("images"))).expect("opens");
        let pods = Pods::open(config, images).await.expect("opens");
        let command = ["/bin/sh", "-c", COUNTS];
        let spec = ContainerSpec {
            name: "a".into(),
            image: image.into(),
            command: command.into_iter().map(str::to_owned).collect(),
            log_path: Some(dir.join("logs/a/0.log")),
            ..ContainerSpec::default()
        };
        let id = pods.start_container(pod, spec).await.expect("starts");
        std::fs::write(dir.join("started"), id).expect("tells");
        std::future::pending::<()>().await;
    });
}
