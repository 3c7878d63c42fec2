//! Images from a registry: Debian's `docker-registry`, at an address that the node reaches.

use crate::manifests::{SLEEP, pod, state};
use crate::site::{Site, items};
use crate::told::{Told, assert_words, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[test]
fn images_come_from_a_registry() {
    let mut site = Site::empty("registry", 2);
    let registry = Registry::start(&site);
    registry.push(
        "team/app",
        "v1",
        &site.image_archive(),
        &site.home().join("layout"),
    );
    site.start_masters(1);
    site.start_node("n1", &["--insecure-registry", &registry.address]);
    site.wait_nodes(1);

    site.apply(&of_image(
        "pulled",
        &format!("{}/team/app:v1", registry.address),
    ));
    site.apply(&of_image(
        "unknown",
        &format!("{}/team/none:v1", registry.address),
    ));
    site.apply(&of_image("misspelt", "UPPER/case::1"));
    let pod = site.wait(&["pod", "pulled"], 30, |pod| {
        pod["status"]["phase"] == "Running"
    });
    let status = &pod["status"]["containerStatuses"][0];
    assert_words(status["imageID"].as_str().unwrap_or(""), &["sha256:"]);
    assert_eq!(
        site.ctl(&["exec", "pulled", "--", "echo", "here"]).ok(),
        "here\n"
    );
    assert_words(
        &site.ctl(&["describe", "pod", "pulled"]).ok(),
        &["Pulling", "Pulled", "Started"],
    );
    assert_words(&site.ctl(&["image", "list"]).ok(), &["n1", "team/app:v1"]);

    let waits = |reason: &'static str| move |pod: &Value| state(pod)["waiting"]["reason"] == reason;
    let pod = site.wait(&["pod", "unknown"], 40, waits("ImagePullBackOff"));
    assert_words(
        state(&pod)["waiting"]["message"].as_str().unwrap_or(""),
        &["team/none:v1"],
    );
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_words(
        &site.ctl(&["describe", "pod", "unknown"]).ok(),
        &["Failed", "ErrImagePull", "BackOff"],
    );
    site.wait(&["pod", "misspelt"], 20, waits("InvalidImageName"));

    // A pod whose image comes later starts then, without anybody's doing.
    registry.push(
        "team/none",
        "v1",
        &site.image_archive(),
        &site.home().join("again"),
    );
    site.wait(&["pod", "unknown"], 60, |pod| {
        pod["status"]["phase"] == "Running"
    });
    assert_eq!(items(&site.get(&["pods"])).len(), 3);
}

fn of_image(name: &str, image: &str) -> String {
    let mut pod = pod(name, SLEEP);
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    pod.to_string()
}

/// A registry; it ends with the value.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(site: &Site) -> Registry {
        let address = format!("{}:5000", site.host_address());
        let data = site.home().join("registry");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        let file = site.home().join("registry.yml");
        fs::write(&file, config).expect("it can be written");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .expect("docker-registry is missing; deploy/test installs it");
        until("the registry", 10, || {
            TcpStream::connect(&address).map_err(|error| error.to_string())
        });
        Registry { process, address }
    }

    /// Pushes what an OCI archive holds. Protocol: the OCI distribution specification.
    fn push(&self, name: &str, tag: &str, archive: &Path, unpacked: &Path) {
        fs::create_dir_all(unpacked).expect("the folder can be made");
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(unpacked);
        Told::of(tar, b"").ok();
        let blobs = unpacked.join("blobs/sha256");
        for blob in fs::read_dir(&blobs)
            .expect("an archive has blobs")
            .flatten()
        {
            let digest = blob
                .file_name()
                .into_string()
                .expect("a digest is hexadecimal");
            let (_, head) = self.send(
                "POST",
                &format!("/v2/{name}/blobs/uploads/"),
                "application/octet-stream",
                b"",
                202,
            );
            let place = head
                .lines()
                .find_map(|line| line.strip_prefix("Location: "))
                .expect("an upload has a place")
                .to_owned();
            let path = place
                .strip_prefix(&format!("http://{}", self.address))
                .unwrap_or(&place);
            let content = fs::read(blob.path()).expect("it can be read");
            self.send(
                "PUT",
                &format!("{path}&digest=sha256:{digest}"),
                "application/octet-stream",
                &content,
                201,
            );
        }
        let index =
            fs::read_to_string(unpacked.join("index.json")).expect("an archive has an index");
        let index: Value = serde_json::from_str(&index).expect("it is JSON");
        let digest = index["manifests"][0]["digest"]
            .as_str()
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .expect("it names a manifest");
        let manifest = fs::read(blobs.join(digest)).expect("it is there");
        self.send(
            "PUT",
            &format!("/v2/{name}/manifests/{tag}"),
            "application/vnd.oci.image.manifest.v1+json",
            &manifest,
            201,
        );
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        wanted: u16,
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the registry answers");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .expect("the registry reads");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("the registry answers");
        let answer = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
        let code = answer
            .split_whitespace()
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        assert_eq!(code, wanted, "{method} {path}: {answer}");
        (code, answer)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
