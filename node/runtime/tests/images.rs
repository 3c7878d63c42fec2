//! Images: layers, whiteouts, archives that lie, and pulls from a real registry (Debian: docker-registry) on loopback.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node_runtime::image::build::{Builder, Entry};
use node_runtime::{
    ContainerSpec, ImageConfig, Images, ImagesConfig, Progress, PullOptions, RegistryCredentials,
};
use support::*;

fn entries(given: &[(&str, Entry)]) -> BTreeMap<String, Entry> {
    given
        .iter()
        .map(|(path, entry)| (path.to_string(), entry.clone()))
        .collect()
}

fn file(content: &str) -> Entry {
    Entry::File(0o644, content.into())
}

fn open(dir: &Path) -> Images {
    Images::open(ImagesConfig::new(dir.join("images"))).expect("opens")
}

#[test]
fn layers_stack_with_whiteouts_links_and_modes() {
    on_node(async |node| {
        let image = busybox()
            .layer(entries(&[
                ("data", Entry::Folder(0o755)),
                ("data/gone", file("x")),
                ("data/kept", file("old")),
                ("data/setuid", Entry::File(0o4755, b"s".to_vec())),
                ("dir", Entry::Folder(0o755)),
                ("dir/below", file("x")),
                ("link", Entry::Symlink("/data/kept".into())),
                ("hard", Entry::HardLink("data/kept".into())),
            ]))
            .layer(entries(&[
                ("data/.wh.gone", file("")),
                ("data/kept", file("new")),
                ("dir/.wh..wh..opq", file("")),
                ("dir/fresh", file("y")),
            ]));
        for (name, image) in [("test/plain", image.clone()), ("test/gzip", image.gzip())] {
            let archive = node.dir.path().join("layers.tar");
            image.write_oci_archive(name, &archive).expect("writes");
            node.images
                .import_oci_archive(&archive, None)
                .await
                .expect("imports");
            let spec = ContainerSpec {
                image: name.into(),
                ..script(
                    &node,
                    name,
                    "ls /data /dir; cat /link; echo; cat /hard; echo; stat -c %a /data/setuid; stat -c %a /tmp",
                )
            };
            let (_, exit) = run(&node, spec).await;
            let lines: Vec<String> = log(&node, name)
                .iter()
                .map(|line| line.replace("stdout F ", ""))
                .collect();
            assert_eq!(exit.code, 0, "{lines:?}");
            assert_eq!(
                lines,
                [
                    "/data:", "kept", "setuid", "", "/dir:", "fresh", "new", "old", "4755", "1777"
                ]
            );
        }
        let ids: Vec<String> = node
            .images
            .list()
            .expect("lists")
            .into_iter()
            .map(|image| image.id)
            .collect();
        assert_eq!(ids.len(), 3);
        assert_eq!(ids[1], ids[2], "compression does not change an image's id");
    });
}

#[tokio::test]
async fn many_layers_mount_where_options_are_too_long() {
    // The kernel takes one page of options; the builder's archive has a hundred layers.
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut builder = Builder::new(ImageConfig::default());
    for number in 0..100 {
        builder = builder.layer(entries(&[(&format!("f{number}"), file("x"))]));
    }
    let archive = dir.path().join("many.tar");
    builder
        .write_oci_archive("test/many", &archive)
        .expect("writes");
    let images = open(dir.path());
    let image = images
        .import_oci_archive(&archive, None)
        .await
        .expect("imports")
        .remove(0);
    assert_eq!(
        (
            image.layers.len(),
            images.layer_folders(&image).len(),
            image.bytes
        ),
        (100, 100, 100)
    );
}

#[tokio::test]
async fn archives_that_lie_change_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let images = open(dir.path());
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "safe").expect("writes");
    // A link to the outside, then a file through it: it must land inside.
    let escape = Builder::new(ImageConfig::default()).layer(entries(&[
        ("a", Entry::Symlink(dir.path().display().to_string())),
        ("a/outside", file("broken")),
    ]));
    let archive = dir.path().join("escape.tar");
    escape
        .write_oci_archive("test/escape", &archive)
        .expect("writes");
    // Whether it is refused or lands inside, the node's file is untouched.
    let _ = images.import_oci_archive(&archive, None).await;
    assert_eq!(std::fs::read_to_string(&outside).expect("reads"), "safe");

    let good =
        Builder::new(ImageConfig::default()).layer(entries(&[("f", file("content-of-a-file"))]));
    good.write_oci_archive("test/good", &archive)
        .expect("writes");
    let mut bytes = std::fs::read(&archive).expect("reads");
    let place = bytes
        .windows(17)
        .position(|window| window == b"content-of-a-file")
        .expect("is there");
    bytes[place] = b'X';
    std::fs::write(&archive, bytes).expect("writes");
    let error = images
        .import_oci_archive(&archive, None)
        .await
        .expect_err("is forged");
    assert!(error.to_string().contains("damaged or forged"), "{error}");
    assert!(images.resolve("test/good").expect("reads").is_none());
    std::fs::write(&archive, "not an archive").expect("writes");
    images
        .import_oci_archive(&archive, None)
        .await
        .expect_err("is none");
    let left = std::fs::read_dir(dir.path().join("images/tmp"))
        .expect("lists")
        .count();
    assert_eq!(left, 0, "nothing is left");
}

#[tokio::test]
async fn docker_save_archives_are_read_and_images_removed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let images = open(dir.path());
    let built = Builder::new(ImageConfig {
        cmd: Some(words(&["x"])),
        ..ImageConfig::default()
    })
    .layer(entries(&[("f", file("1"))]))
    .build()
    .expect("builds");
    let mut tar = tar::Builder::new(vec![]);
    let manifest =
        r#"[{"Config":"c.json","RepoTags":["saved:1","saved:2"],"Layers":["l/layer.tar"]}]"#;
    for (name, content) in [
        ("manifest.json", manifest.as_bytes()),
        ("c.json", &built.config),
        ("l/layer.tar", &built.layers[0]),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content)
            .expect("appends");
    }
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().expect("ends"))
        .expect("writes");
    let archive = dir.path().join("saved.tar.gz");
    std::fs::write(&archive, gzip.finish().expect("ends")).expect("writes");
    assert_eq!(
        images
            .import_oci_archive(&archive, None)
            .await
            .expect("imports")
            .len(),
        2
    );
    let image = images.resolve("saved:2").expect("reads").expect("is there");
    assert_eq!(image.config.cmd, Some(words(&["x"])));
    let layer = images.layer_folders(&image).remove(0);
    images.hold(&image.layers);
    images.remove("saved:1").await.expect("removes");
    images.remove("saved:2").await.expect("removes");
    images.remove("saved:2").await.expect("again is fine");
    assert!(layer.exists(), "a container holds it");
    images.release(&image.layers);
    images
        .import_oci_archive(&archive, Some("other"))
        .await
        .expect("imports");
    images.remove("other").await.expect("removes");
    assert!(!layer.exists() && images.list().expect("lists").is_empty());
    assert_eq!(
        std::fs::read_dir(dir.path().join("images/blobs/sha256"))
            .expect("lists")
            .count(),
        0
    );
}

/// A registry on loopback; ends with the value.
struct Registry {
    process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start(htpasswd: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.path().join("data").display()
        );
        if let Some(line) = htpasswd {
            let path = dir.path().join("htpasswd");
            std::fs::write(&path, line).expect("writes");
            config += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                path.display()
            );
        }
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).expect("writes");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("install the package docker-registry");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            address,
            _dir: dir,
        }
    }

    async fn push(&self, name: &str, image: &Builder, auth: &oci_client::secrets::RegistryAuth) {
        let built = image.build().expect("builds");
        let protocol = oci_client::client::ClientProtocol::Http;
        let client = oci_client::Client::new(oci_client::client::ClientConfig {
            protocol,
            ..Default::default()
        });
        let reference: oci_client::Reference = format!("{}/{name}", self.address)
            .parse()
            .expect("a reference");
        client
            .store_auth_if_needed(reference.resolve_registry(), auth)
            .await;
        let digest = |bytes: &[u8]| {
            use sha2::Digest;
            format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
        };
        for blob in built.layers.iter().chain([&built.config]) {
            client
                .push_blob(&reference, blob.clone(), &digest(blob))
                .await
                .expect("pushes a blob");
        }
        let kind = "application/vnd.oci.image.manifest.v1+json"
            .parse()
            .expect("a header");
        client
            .push_manifest_raw(&reference, built.manifest, kind)
            .await
            .expect("pushes the manifest");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn pulls_once_for_many_and_runs_what_it_pulled() {
    on_node(async |node| {
        let registry = Registry::start(None);
        let extra = busybox()
            .gzip()
            .layer(entries(&[("hello", file("from the registry\n"))]));
        registry
            .push(
                "team/app:v1",
                &extra,
                &oci_client::secrets::RegistryAuth::Anonymous,
            )
            .await;
        let name = format!("{}/team/app:v1", registry.address);
        let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let record = seen.clone();
        let options = PullOptions {
            progress: Some(Arc::new(move |progress| {
                record.lock().expect("unpoisoned").push(progress)
            })),
            ..PullOptions::default()
        };
        let pulls =
            futures::future::join_all((0..5).map(|_| node.images.pull(&name, options.clone())))
                .await;
        let first = pulls[0].as_ref().expect("pulls");
        assert!(
            pulls
                .iter()
                .all(|pull| pull.as_ref().expect("pulls") == first)
        );
        let last = *seen.lock().expect("unpoisoned").last().expect("progress");
        // Busybox's layer is here already, from an archive: only the other one came, and once.
        assert!(
            last.bytes == last.bytes_total && last.bytes_total < 10_000,
            "{last:?}"
        );
        let by_digest = format!("{}/team/app@{}", registry.address, first.digest);
        assert_eq!(
            node.images
                .resolve(&by_digest)
                .expect("reads")
                .expect("is found")
                .id,
            first.id
        );
        let (_, exit) = run(
            &node,
            ContainerSpec {
                image: by_digest,
                ..script(&node, "a", "cat /hello")
            },
        )
        .await;
        assert_eq!(
            (exit.code, log(&node, "a")),
            (0, words(&["stdout F from the registry"]))
        );
        let error = node
            .images
            .pull(
                &format!("{}/team/none:v1", registry.address),
                PullOptions::default(),
            )
            .await
            .expect_err("is not there");
        assert!(
            error.reason() == "ErrImagePull" && error.to_string().contains("team/none:v1"),
            "{error}"
        );
        drop(registry);
        let error = node
            .images
            .pull(&name, PullOptions::default())
            .await
            .expect_err("nobody answers");
        assert_eq!(error.reason(), "ErrImagePull");
    });
}

#[tokio::test]
async fn credentials_are_used_where_they_fit() {
    // htpasswd -Bbn user secret
    let registry = Registry::start(Some(HTPASSWD));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let images = open(dir.path());
    let auth = oci_client::secrets::RegistryAuth::Basic("user".into(), "secret".into());
    registry
        .push(
            "private:1",
            &Builder::new(ImageConfig::default()).layer(entries(&[("f", file("x"))])),
            &auth,
        )
        .await;
    let name = format!("{}/private:1", registry.address);
    let error = images
        .pull(&name, PullOptions::default())
        .await
        .expect_err("needs a user");
    assert!(error.to_string().to_lowercase().contains("auth"), "{error}");
    let credential = |password: &str| RegistryCredentials {
        registry: format!("https://{}/v1/", registry.address),
        username: "user".into(),
        password: password.into(),
    };
    let options = PullOptions {
        credentials: vec![credential("wrong"), credential("secret")],
        ..PullOptions::default()
    };
    let image = images
        .pull(&name, options)
        .await
        .expect("pulls with the second");
    let layer = images.layer_folders(&image).remove(0);
    let metadata = std::fs::metadata(layer.join("f")).expect("is there");
    assert_eq!(
        (metadata.permissions().mode() & 0o777, metadata.uid()),
        (0o644, 0)
    );
}

/// `user` with the password `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
