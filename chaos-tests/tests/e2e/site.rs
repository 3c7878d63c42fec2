//! A site: machines as network namespaces on a bridge of their own, with masters and agents as real processes.
//!
//! What a killed run left behind, the next one of the same story sweeps away first.

use crate::told::{Told, until};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Everything that stories leave on disk while they run.
const HOME: &str = "/var/lib/trireme-e2e";
/// The image of [`Site::import_image`].
pub const IMAGE: &str = "trireme.local/busybox:1";
/// Lines of each machine's log that a failure shows.
const LOG_LINES: usize = 25;

/// The machines of one story.
pub struct Site {
    story: &'static str,
    octet: u8,
    home: PathBuf,
    /// Where the first master keeps its kubeconfig and join token.
    operator: PathBuf,
    machines: BTreeMap<String, Machine>,
    _alone: Flock<File>,
}

struct Machine {
    address: String,
    program: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Site {
    /// An empty site; `octet` makes its network `10.91.OCTET.0/24`.
    pub fn empty(story: &'static str, octet: u8) -> Site {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this needs root: it makes network namespaces and runs containers"
        );
        for tool in ["ip", "nft", "nsenter", "busybox"] {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .output()
                .expect("there is a shell");
            assert!(
                found.status.success(),
                "{tool} is missing; deploy/test installs what tests need"
            );
        }
        let home = Path::new(HOME).join(story);
        fs::create_dir_all(&home).expect("the stories' folder can be made");
        let lock =
            File::create(Path::new(HOME).join("lock")).expect("the stories' folder can be written");
        let alone = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .expect("the lock can be waited for");
        let operator = home.join("m1");
        let site = Site {
            story,
            octet,
            home,
            operator,
            machines: BTreeMap::new(),
            _alone: alone,
        };
        site.sweep();
        fs::create_dir_all(&site.home).expect("the story's folder can be made");
        site.make_bridge();
        site
    }

    /// A cluster that is ready: masters `m1`.. and nodes `n1`.., with the image on them.
    pub fn cluster(story: &'static str, octet: u8, masters: usize, nodes: usize) -> Site {
        let mut site = Site::empty(story, octet);
        site.start_masters(masters);
        for number in 1..=nodes {
            site.start_node(&format!("n{number}"), &[]);
        }
        if nodes > 0 {
            site.wait_nodes(nodes);
            site.import_image();
        }
        site
    }

    /// Starts a new cluster's masters and waits until all vote.
    pub fn start_masters(&mut self, count: usize) {
        self.start_masters_with(count, |_, _| vec![]);
    }

    /// The same with more flags for each, by its name.
    pub fn start_masters_with(&mut self, count: usize, flags: impl Fn(&Site, &str) -> Vec<String>) {
        let start = |site: &mut Site, name: &str, how: &[&str]| {
            let more = flags(site, name);
            let more = more.iter().map(String::as_str);
            let how: Vec<&str> = how.iter().copied().chain(more).collect();
            site.start_master(name, &how);
        };
        start(self, "m1", &["--init"]);
        until("the join token", 30, || {
            self.token()
                .is_file()
                .then_some(())
                .ok_or_else(|| self.log("m1"))
        });
        let (url, token) = (self.url("m1"), self.token().display().to_string());
        for number in 2..=count {
            let how = ["--join", &url, "--token-file", &token];
            start(self, &format!("m{number}"), &how);
        }
        self.wait_voters(count);
    }

    /// Waits until so many masters vote and the kubeconfig names them.
    pub fn wait_voters(&self, count: usize) {
        until("the voting masters", 60, || {
            let list = self.json(&["member", "list", "-o", "json"])?;
            let voters = list["members"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|member| member["voter"] == true)
                .count();
            let named = fs::read_to_string(self.kubeconfig())
                .unwrap_or_default()
                .matches(":6443")
                .count();
            (voters == count && named >= count)
                .then_some(())
                .ok_or_else(|| list.to_string())
        });
    }

    /// Starts a master on a machine of its own.
    pub fn start_master(&mut self, name: &str, how: &[&str]) {
        let (data, address) = (self.data(name).display().to_string(), self.machine(name));
        let mut arguments = vec![
            "run",
            "--data-dir",
            &data,
            "--name",
            name,
            "--address",
            &address,
        ];
        arguments.extend(how);
        self.start_as(name, &bin("control"), &arguments);
    }

    /// Starts an agent on a machine of its own.
    pub fn start_node(&mut self, name: &str, more: &[&str]) {
        let urls: Vec<String> = self
            .machines
            .keys()
            .filter(|name| name.starts_with('m'))
            .map(|name| self.url(name))
            .collect();
        let (urls, token) = (urls.join(","), self.token().display().to_string());
        let (data, address) = (self.data(name).display().to_string(), self.machine(name));
        let cgroup = self.cgroup(name);
        let mut arguments = vec![
            "run",
            "--data-dir",
            &data,
            "--name",
            name,
            "--address",
            &address,
        ];
        arguments.extend([
            "--server",
            &urls,
            "--token-file",
            &token,
            "--cgroup-root",
            &cgroup,
        ]);
        arguments.extend(more);
        self.start_as(name, &bin("node"), &arguments);
    }

    /// Waits until so many nodes are ready.
    pub fn wait_nodes(&self, count: usize) {
        until("the ready nodes", 60, || {
            let nodes = self.json(&["get", "nodes", "-o", "json"])?;
            let ready = items(&nodes)
                .iter()
                .filter(|node| condition(node, "Ready") == "True")
                .count();
            (ready == count)
                .then_some(())
                .ok_or_else(|| format!("{ready} of {count} nodes are ready"))
        });
    }

    /// Makes the image and puts it on every node.
    pub fn import_image(&self) {
        let archive = self.image_archive();
        let told = self
            .ctl(&["image", "import", &archive.display().to_string()])
            .ok();
        assert!(told.contains(&format!("imported {IMAGE}")), "{told}");
    }

    /// The image's archive, as `deploy/make-image` makes it.
    pub fn image_archive(&self) -> PathBuf {
        let archive = self.home.join("busybox.tar");
        let mut make = Command::new(repository().join("deploy/make-image"));
        make.arg(&archive).arg(IMAGE);
        Told::of(make, b"").ok();
        archive
    }

    /// Starts a program with these arguments on a machine.
    pub fn start_as(&mut self, name: &str, program: &Path, arguments: &[&str]) {
        self.machine(name);
        let machine = self.machines.get_mut(name).expect("was just made");
        machine.program = program.to_owned();
        machine.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.start(name);
    }

    /// Starts again what last ran on the machine.
    pub fn start(&mut self, name: &str) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(name))
            .expect("the log can be written");
        let mut command = self.on(name, &self.machines[name].program);
        command.args(&self.machines[name].arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        let process = command.spawn().expect("nsenter can be run");
        self.machines.get_mut(name).expect("is there").process = Some(process);
    }

    /// Starts on a machine what a text like that of `install.sh` says to start.
    pub fn start_as_told(&mut self, name: &str, told: &str) {
        let command = told
            .lines()
            .find_map(|line| line.strip_prefix("start it with: "))
            .unwrap_or_else(|| panic!("nothing to start in {told}"));
        let words: Vec<&str> = command.split_whitespace().collect();
        self.start_as(name, Path::new(words[0]), &words[1..]);
    }

    /// Says where the first master keeps its kubeconfig and join token.
    pub fn operated_from(&mut self, folder: &Path) {
        self.operator = folder.to_owned();
    }

    /// Ends the machine's process with a signal and waits until it is gone.
    pub fn end(&mut self, name: &str, signal: Signal) {
        let Some(mut process) = self
            .machines
            .get_mut(name)
            .and_then(|machine| machine.process.take())
        else {
            return;
        };
        let _ = kill(Pid::from_raw(process.id() as i32), signal);
        let _ = process.wait();
    }

    /// A command in the machine's namespace.
    pub fn on(&self, name: &str, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns(name)))
            .arg(program);
        command
    }

    /// Runs `ctl`.
    pub fn ctl(&self, arguments: &[&str]) -> Told {
        self.ctl_with(arguments, "")
    }

    /// Runs `ctl` with standard input.
    pub fn ctl_with(&self, arguments: &[&str], input: &str) -> Told {
        Told::of(self.ctl_command(arguments), input.as_bytes())
    }

    /// `ctl`, not yet run.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(bin("ctl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments);
        command
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.ctl_with(&["apply", "-f", "-"], manifests).ok()
    }

    /// What `ctl` prints, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let told = self.ctl(arguments);
        if told.code != Some(0) {
            return Err(format!("{told:?}"));
        }
        serde_json::from_str(&told.out).map_err(|error| format!("{error}: {told:?}"))
    }

    /// Objects, by the words of `ctl get`.
    #[track_caller]
    pub fn get(&self, what: &[&str]) -> Value {
        self.json(&[&["get"], what, &["-o", "json"]].concat())
            .unwrap_or_else(|told| panic!("{told}"))
    }

    /// Waits until an object satisfies the question.
    #[track_caller]
    pub fn wait(
        &self,
        what: &[&str],
        seconds: u64,
        mut question: impl FnMut(&Value) -> bool,
    ) -> Value {
        until(&what.join(" "), seconds, || {
            let object = self.json(&[&["get"], what, &["-o", "json"]].concat())?;
            if question(&object) {
                Ok(object)
            } else {
                Err(format!("{}", object.get("status").unwrap_or(&object)))
            }
        })
    }

    /// Fails when a node keeps something of pods that are no more.
    #[track_caller]
    pub fn assert_no_leaks(&self, node: &str) {
        until("a node without leaks", 60, || {
            let mut leaks = self.on(node, &bin("node"));
            leaks.arg("leaks").arg("--data-dir").arg(self.data(node));
            let told = Told::of(leaks, b"");
            match told.code {
                Some(0) => Ok(()),
                _ => Err(format!("{told:?}")),
            }
        });
    }

    /// The kubeconfig that the first master wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.operator.join("admin.kubeconfig")
    }

    /// The join token that the first master wrote.
    pub fn token(&self) -> PathBuf {
        self.operator.join("join-token")
    }

    /// The data directory of a machine.
    pub fn data(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The story's folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The API's URL on a master.
    pub fn url(&self, name: &str) -> String {
        format!("https://{}:6443", self.machines[name].address)
    }

    /// The address by which machines reach this one.
    pub fn host_address(&self) -> String {
        format!("10.91.{}.254", self.octet)
    }

    /// The name of an agent's branch of the cgroup tree.
    pub fn cgroup(&self, name: &str) -> String {
        format!("trireme-e2e-{}-{name}", self.story)
    }

    /// The masters' names.
    pub fn masters(&self) -> Vec<String> {
        self.machines
            .iter()
            .filter(|(_, machine)| machine.program.ends_with("control"))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The name of the master that leads.
    pub fn leader(&self) -> String {
        until("a leader", 20, || {
            let status = self.json(&["status", "-o", "json"])?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let leader = members.iter().find(|member| member["leader"] == true);
            leader
                .and_then(|leader| leader["name"].as_str())
                .map(str::to_owned)
                .ok_or_else(|| status.to_string())
        })
    }

    /// The end of a machine's log.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log_file(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Makes the machine where it is missing, and gives its address.
    pub fn machine(&mut self, name: &str) -> String {
        if let Some(machine) = self.machines.get(name) {
            return machine.address.clone();
        }
        let number = 10 + self.machines.len();
        let address = format!("10.91.{}.{number}", self.octet);
        let (netns, link) = (self.netns(name), format!("te{}-{name}", self.octet));
        let gateway = self.host_address();
        ip(&["netns", "add", &netns]);
        ip(&[
            "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &netns,
        ]);
        ip(&["link", "set", &link, "master", &self.bridge(), "up"]);
        ip(&[
            "-n",
            &netns,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ]);
        ip(&["-n", &netns, "link", "set", "lo", "up"]);
        ip(&["-n", &netns, "link", "set", "eth0", "up"]);
        ip(&["-n", &netns, "route", "add", "default", "via", &gateway]);
        let machine = Machine {
            address: address.clone(),
            program: PathBuf::new(),
            arguments: vec![],
            process: None,
        };
        self.machines.insert(name.to_owned(), machine);
        address
    }

    fn make_bridge(&self) {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&[
            "address",
            "add",
            &format!("{}/24", self.host_address()),
            "dev",
            &bridge,
        ]);
        ip(&["link", "set", &bridge, "up"]);
    }

    fn bridge(&self) -> String {
        format!("te{}", self.octet)
    }

    fn netns(&self, name: &str) -> String {
        format!("te-{}-{name}", self.story)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.home.join(format!("{name}.log"))
    }

    /// Removes all that this story has on the machine: of this run, or of one that was killed.
    fn sweep(&self) {
        let prefix = self.netns("");
        let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names: Vec<String> = namespaces
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix(&prefix)
                    .map(str::to_owned)
            })
            .collect();
        names
            .iter()
            .for_each(|name| end_programs(&self.netns(name)));
        for name in &names {
            for data in [
                self.data(name),
                self.data(name).join("var/lib/trireme/node"),
            ] {
                if data.join("settings.json").exists() {
                    let mut cleanup = self.on(name, &bin("node"));
                    cleanup.args(["cleanup", "--data-dir"]).arg(&data);
                    let told = Told::of(cleanup, b"");
                    if told.code != Some(0) {
                        eprintln!("the pods of {name} could not be removed: {told:?}");
                    }
                }
            }
            ip(&["netns", "delete", &self.netns(name)]);
        }
        let _ = Command::new("ip")
            .args(["link", "delete", &self.bridge()])
            .stderr(Stdio::null())
            .status();
        // Not through a mount that is still there: a container's files are not ours to remove.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let home = format!(" {}/", self.home.display());
        match mounts.lines().find(|line| line.contains(&home)) {
            Some(mount) => eprintln!("something is still mounted: {mount}"),
            None => drop(fs::remove_dir_all(&self.home)),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.machines.keys() {
                eprintln!("--- the log of {name} ends with:\n{}", self.log(name));
            }
        }
        if std::thread::panicking() && std::env::var_os("TRIREME_E2E_KEEP").is_some() {
            eprintln!(
                "TRIREME_E2E_KEEP is set: all runs on below {}, until the story's next run",
                self.home.display()
            );
            return;
        }
        let names: Vec<String> = self.machines.keys().cloned().collect();
        names
            .iter()
            .for_each(|name| self.end(name, Signal::SIGKILL));
        self.sweep();
    }
}

/// Ends the masters, agents and registries in a namespace; shims are ended by the agent's own cleaning up.
fn end_programs(netns: &str) {
    let told = Command::new("ip")
        .args(["netns", "pids", netns])
        .output()
        .expect("ip can be run");
    for pid in String::from_utf8_lossy(&told.stdout).split_whitespace() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let (true, Ok(pid)) = (["control", "node"].contains(&name.trim()), pid.parse()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A release program.
pub fn bin(name: &str) -> PathBuf {
    let folder = std::env::var_os("TRIREME_BIN")
        .expect("TRIREME_BIN must name the folder of the release programs, as deploy/test sets it");
    let path = Path::new(&folder).join(name);
    assert!(
        path.is_file(),
        "{} is missing; deploy/test builds it",
        path.display()
    );
    path
}

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the checkout")
        .to_owned()
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    Told::of(command, b"").ok();
}

/// The items of a list.
pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// The status of an object's condition: True, False, Unknown, or nothing.
pub fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let found = conditions
        .filter(|condition| condition["type"] == kind)
        .find_map(|condition| condition["status"].as_str());
    found.unwrap_or_default().to_owned()
}
