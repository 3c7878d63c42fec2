//! A node of its own for each test: folder, cgroup root, image of busybox, one pod. Everything is taken down at the end.
//!
//! Needs root, `/bin/busybox` (Debian: busybox-static) and the shim's binary: `cargo build -p trireme-shim` puts it where
//! it is looked for, beside the tests' folder of the target directory; `TRIREME_SHIM` names another.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_runtime::image::build::Builder;
use node_runtime::{
    ContainerSpec, Exit, ImageConfig, Images, ImagesConfig, PodSpec, Pods, PodsConfig,
};

/// Name of the image in every node.
pub const IMAGE: &str = "test/busybox:1";
/// UID of the pod in every node.
pub const POD: &str = "6f0cbd4e-0000-4000-8000-000000000001";

const APPLETS: [&str; 34] = [
    "sh", "cat", "chmod", "cut", "date", "dd", "df", "echo", "env", "false", "grep", "head",
    "hostname", "id", "ifconfig", "ip", "kill", "ls", "mkdir", "mknod", "mount", "nproc", "ps",
    "pwd", "readlink", "rm", "seq", "sleep", "stat", "stty", "tail", "touch", "true", "wc",
];

/// A node.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub pods: Pods,
    pub images: Images,
    pub name: String,
}

pub fn shim() -> PathBuf {
    if let Some(path) = std::env::var_os("TRIREME_SHIM") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("the test knows itself");
    let shim = exe
        .ancestors()
        .nth(2)
        .expect("TARGET/PROFILE/deps/TEST")
        .join("shim");
    assert!(
        shim.exists(),
        "{} is missing: run `cargo build -p trireme-shim`, or set TRIREME_SHIM",
        shim.display()
    );
    shim
}

pub fn busybox() -> Builder {
    let binary = Path::new("/bin/busybox");
    assert!(
        binary.exists(),
        "/bin/busybox is missing: install the package busybox-static"
    );
    let words = |given: &[&str]| Some(given.iter().map(|word| word.to_string()).collect());
    let config = ImageConfig {
        cmd: words(&["/bin/sh"]),
        env: words(&["PATH=/bin", "FROM_IMAGE=yes"]),
        ..ImageConfig::default()
    };
    Builder::new(config)
        .busybox(binary, &APPLETS)
        .expect("busybox can be read")
}

/// The archive of busybox's image, made by the first test that needs it.
fn busybox_archive() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let archive = folder.join("busybox-image-1.tar");
    if !archive.exists() {
        let fresh = folder.join(format!("busybox-{:x}.tar", rand::random::<u64>()));
        busybox()
            .write_oci_archive(IMAGE, &fresh)
            .expect("writes the archive");
        std::fs::rename(&fresh, &archive).expect("places the archive");
    }
    archive
}

pub fn config(dir: &Path, name: &str) -> PodsConfig {
    PodsConfig {
        shim: shim(),
        cgroup_root: name.into(),
        ..PodsConfig::new(dir.join("run"))
    }
}

/// Runs a test on a node with one pod that shares the host's network, and takes the node down, whatever happens.
pub fn on_node<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<Node>) -> F) {
    on_node_with(
        PodSpec {
            hostname: Some("box".into()),
            ..PodSpec::default()
        },
        test,
    );
}

/// As `on_node`, with a pod of this specification.
pub fn on_node_with<F: Future<Output = ()>>(
    spec: PodSpec,
    test: impl FnOnce(std::sync::Arc<Node>) -> F,
) {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests run containers and need root"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::Builder::new()
        .prefix("trireme-rt-")
        .tempdir()
        .expect("a temporary folder");
    let name = format!("trirt{}x{:x}", std::process::id(), rand::random::<u32>());
    runtime.block_on(async {
        let images =
            Images::open(ImagesConfig::new(dir.path().join("images"))).expect("opens images");
        let archive = busybox_archive();
        images
            .import_oci_archive(&archive, None)
            .await
            .expect("imports");
        let pods = Pods::open(config(dir.path(), &name), images.clone())
            .await
            .expect("opens pods");
        let node = std::sync::Arc::new(Node {
            dir,
            pods,
            images,
            name,
        });
        let spec = PodSpec {
            uid: POD.into(),
            namespace: "default".into(),
            name: "pod".into(),
            ..spec
        };
        let test = std::panic::AssertUnwindSafe(async {
            node.pods.create(spec).await.expect("creates the pod");
            test(node.clone()).await;
        });
        let result = tokio::time::timeout(
            Duration::from_secs(60),
            futures::FutureExt::catch_unwind(test),
        )
        .await;
        // The test may have dropped and reopened the pods; what is on disk is what is there.
        let pods = Pods::open(config(node.dir.path(), &node.name), node.images.clone())
            .await
            .expect("reopens");
        for pod in pods.list() {
            pods.remove(&pod.spec.uid).await.expect("removes the pod");
        }
        pods.dismantle().await.expect("dismantles");
        let log = node.dir.path().join("run/pods").join(POD);
        assert!(!log.exists(), "the pod's folder is left");
        match result {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the test took longer than a minute"),
        }
    });
}

/// A container that runs a shell script and logs.
pub fn script(node: &Node, name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        image: IMAGE.into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: Some(log_path(node, name)),
        ..ContainerSpec::default()
    }
}

pub fn log_path(node: &Node, name: &str) -> PathBuf {
    node.dir.path().join("logs").join(name).join("0.log")
}

/// The contents of a log, each line as `stream tag content`.
pub fn log(node: &Node, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(log_path(node, name)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, rest)| rest.to_string())
        .collect()
}

/// Runs a container to its end.
pub async fn run(node: &Node, spec: ContainerSpec) -> (String, Exit) {
    let id = node.pods.start_container(POD, spec).await.expect("starts");
    let exit = wait(node, &id).await;
    (id, exit)
}

pub async fn wait(node: &Node, id: &str) -> Exit {
    tokio::time::timeout(Duration::from_secs(20), node.pods.wait(POD, id))
        .await
        .expect("ends in time")
        .expect("is known")
}

pub fn words(given: &[&str]) -> Vec<String> {
    given.iter().map(|word| word.to_string()).collect()
}

/// Runs a command in a container and gives code and standard output.
pub async fn exec(node: &Node, id: &str, command: &str) -> (i32, String) {
    let command = words(&["/bin/sh", "-c", command]);
    let captured = node
        .pods
        .exec_capture(POD, id, &command, Duration::from_secs(10), 1 << 20)
        .await
        .expect("executes");
    (
        captured.code,
        String::from_utf8_lossy(&captured.stdout).into_owned()
            + &String::from_utf8_lossy(&captured.stderr),
    )
}
