//! What a worker does for each action. Quick ones are done at once; pulls, stops and probes go on beside the worker.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use client::{Deadline, Payload};
use http::Method;
use lifecycle::{
    Action, Container, ContainerState, ContainerView, Exit, Observed, ProbeKind, Pull, PullState,
    ResizeFailure, StartFailure, StopReason, Volumes, allocated, env, probe, resources,
};
use node_runtime::{Error, Mount};
use objects::Timestamp;
use serde_json::{Value, json};

use super::observe::{Local, message_path};
use super::probes::{self, Asked};
use super::spec::{self, Start};
use super::worker::{Answer, Worker};
use super::{hooks, pull, references, volumes};
use crate::clock;

const RETRY_AFTER: Duration = Duration::from_secs(10);
const DELETE_DEADLINE: Deadline = Deadline(Duration::from_secs(5));
/// A failed start with this code, as container runtimes give it.
const START_ERROR_CODE: i32 = 128;
/// Failed starts that are remembered, of all containers of the pod.
const FAILED_STARTS_MAX: usize = 16;
const POST_START_TIME_MAX: Duration = Duration::from_secs(600);

impl Worker {
    /// Does it; true when the pod stands differently now, so that the next step follows at once.
    pub(super) async fn execute(&mut self, action: Action, observed: &Observed) -> bool {
        match action {
            Action::CreateSandbox => self.create_sandbox().await,
            Action::MountVolumes => self.mount_volumes(observed).await,
            Action::Pull {
                container,
                image,
                attempt,
            } => self.pull(container, image, attempt),
            Action::Start {
                container,
                attempt,
                level,
            } => self.start(&container, attempt, level, observed).await,
            Action::Stop {
                container,
                id,
                grace_s,
                why,
            } => self.stop(container, id, grace_s, why, observed),
            Action::Resize { container, id } => self.resize(&container, &id).await,
            Action::Probe {
                container,
                id,
                kind,
            } => self.probe(container, id, kind, observed),
            Action::RemoveContainer { id } => self.remove_container(&id).await,
            Action::RemoveSandbox => self.remove_sandbox().await,
            Action::DeleteFromApi => self.delete_from_api().await,
        }
    }

    async fn create_sandbox(&mut self) -> bool {
        let made = self.make_sandbox().await;
        self.local.sandbox_failure = None;
        if let Err(message) = made {
            self.context.events.warning(
                &self.subject,
                None,
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {message}"),
            );
            tracing::warn!(pod = %self.desired.label(), %message, "cannot make the pod's sandbox; trying again");
            self.local.sandbox_failure = Some((message, clock::now().plus(RETRY_AFTER)));
        }
        true
    }

    async fn make_sandbox(&mut self) -> Result<(), String> {
        let (netns, ip) = if self.desired.host_network() {
            (None, Some(self.context.address))
        } else {
            let uid = network::PodUid::parse(self.desired.uid.clone())?;
            let net = self.attach(&uid).await?;
            (Some(net.netns_path), Some(net.ip))
        };
        let sandbox = spec::sandbox(
            &self.desired,
            netns,
            ip.map(Into::into),
            &self.context.around,
        );
        self.context
            .pods
            .create(sandbox)
            .await
            .map_err(|error| error.to_string())
    }

    /// Gives the pod its network. Its rules are there before its first packet.
    async fn attach(&self, uid: &network::PodUid) -> Result<network::PodNet, String> {
        let network = &self.context.network;
        let ip = network
            .reserve_ip(uid)
            .await
            .map_err(|error| error.to_string())?;
        let pod = json!({ "metadata": self.desired.metadata(), "spec": self.desired.spec() });
        self.context.policies.admit(&pod, ip).await?;
        network
            .attach_pod(uid)
            .await
            .map_err(|error| error.to_string())
    }

    async fn mount_volumes(&mut self, observed: &Observed) -> bool {
        self.local.volumes = match volumes::prepare(&self.context, &self.desired, observed).await {
            Ok(()) => Volumes::Ready,
            Err(message) => {
                self.context
                    .events
                    .warning(&self.subject, None, "FailedMount", message.clone());
                Volumes::Failed {
                    message,
                    retry_at: clock::now().plus(RETRY_AFTER),
                }
            }
        };
        true
    }

    fn pull(&mut self, container: String, image: String, attempt: u32) -> bool {
        self.context.events.normal(
            &self.subject,
            Some(&container),
            "Pulling",
            format!("Pulling image \"{image}\""),
        );
        self.local.pulls.insert(
            container.clone(),
            Pull {
                attempt,
                image: image.clone(),
                state: PullState::Running,
            },
        );
        let (context, desired, answers) = (
            self.context.clone(),
            self.desired.clone(),
            self.answers.clone(),
        );
        tokio::spawn(async move {
            let result = pull::pull(&context, &desired, &image).await;
            // A worker that has ended needs no answer.
            let _ = answers
                .send(Answer::Pulled {
                    container,
                    attempt,
                    result,
                })
                .await;
        });
        true
    }

    async fn start(&mut self, name: &str, attempt: u32, level: u32, observed: &Observed) -> bool {
        let desired = self.desired.clone();
        let Some(view) = desired.container(name) else {
            return false;
        };
        if !self.local.pulls.contains_key(name) {
            self.context.events.normal(
                &self.subject,
                Some(name),
                "Pulled",
                format!(
                    "Container image \"{}\" already present on machine",
                    view.image()
                ),
            );
        }
        match self.try_start(&view, attempt, level, observed).await {
            Ok(id) => {
                self.local.start_failures.remove(name);
                self.local
                    .failed_starts
                    .retain(|failed| failed.name != name);
                self.context.events.normal(
                    &self.subject,
                    Some(name),
                    "Created",
                    format!("Created container: {name}"),
                );
                self.context.events.normal(
                    &self.subject,
                    Some(name),
                    "Started",
                    format!("Started container {name}"),
                );
                self.post_start(&view, id, observed);
            }
            Err(Error::Shim { message, .. }) => {
                tracing::warn!(pod = %desired.label(), %message, "the pod's sandbox is lost; making it anew");
                self.local.lost = true;
            }
            Err(error) => self.start_failed(&view, attempt, level, &error),
        }
        true
    }

    async fn try_start(
        &self,
        view: &ContainerView<'_>,
        attempt: u32,
        level: u32,
        observed: &Observed,
    ) -> Result<String, Error> {
        let (context, desired, name) = (&self.context, &self.desired, view.name());
        let mut own = view.spec.clone();
        if let Some(allocated) = allocated(desired, observed, name) {
            allocated.put(&mut own);
        }
        let view = &ContainerView {
            spec: &own,
            ..*view
        };
        let target = desired
            .target_of(name)
            .map(|target| {
                running(observed, target).ok_or_else(|| {
                    Error::Config(format!("unable to find target container {target}"))
                })
            })
            .transpose()?;
        let sources = references::sources(context, &desired.namespace, view.spec)
            .await
            .map_err(|error| Error::Config(error.to_string()))?;
        let env = env::environment(view.spec, desired, observed, &sources)
            .map_err(|error| Error::Config(error.to_string()))?;
        let mut mounts = volumes::mounts(context, desired, view, &env)
            .await
            .map_err(Error::Config)?;
        let words = message_path(context, desired, name, attempt);
        mounts.push(make_message_file(
            &words,
            view.spec.termination_message_path.as_deref(),
        )?);
        let folder = context
            .pod_logs(&desired.namespace, &desired.name, &desired.uid)
            .join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        let start = Start {
            attempt,
            level,
            env,
            mounts,
            log_path: folder.join(format!("{attempt}.log")),
            memory_bytes: context.around.memory_bytes,
            target,
        };
        let spec = spec::container(view, desired, start).map_err(Error::Config)?;
        context.pods.start_container(&desired.uid, spec).await
    }

    fn start_failed(&mut self, view: &ContainerView<'_>, attempt: u32, level: u32, error: &Error) {
        let (name, message, now) = (view.name(), error.to_string(), clock::now());
        self.context.events.warning(
            &self.subject,
            Some(name),
            "Failed",
            format!("Error: {message}"),
        );
        if !matches!(error, Error::Start { .. }) {
            let failure = StartFailure {
                reason: error.reason().to_owned(),
                message,
                retry_at: now.plus(RETRY_AFTER),
            };
            self.local.start_failures.insert(name.to_owned(), failure);
            return;
        }
        // What could be made but not run counts as a run, so that back-off and restart policy hold for it.
        self.local.start_failures.remove(name);
        let exit = Exit {
            code: START_ERROR_CODE,
            signal: 0,
            reason: "StartError".into(),
            message,
            started_at: None,
            finished_at: now,
        };
        let failed = Container {
            name: name.to_owned(),
            id: String::new(),
            attempt,
            level,
            image: view.image().to_owned(),
            image_id: String::new(),
            state: ContainerState::Exited(exit),
            stopping_until: None,
            resources: None,
        };
        self.local.failed_starts.retain(|other| other.name != name);
        self.local.failed_starts.truncate(FAILED_STARTS_MAX);
        self.local.failed_starts.push(failed);
    }

    fn post_start(&self, view: &ContainerView<'_>, id: String, observed: &Observed) {
        let Some(hook) = view
            .spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone())
        else {
            return;
        };
        let (context, desired, subject) = (
            self.context.clone(),
            self.desired.clone(),
            self.subject.clone(),
        );
        let (spec, ip) = (
            view.spec.clone(),
            observed.pod_ip.clone().unwrap_or_default(),
        );
        tokio::spawn(async move {
            let asked = Asked {
                uid: &desired.uid,
                id: &id,
                container: &spec,
                ip: &ip,
            };
            if let Err(why) = hooks::run(&context, &asked, &hook, POST_START_TIME_MAX).await {
                context
                    .events
                    .warning(&subject, Some(&spec.name), "FailedPostStartHook", why);
                // The exit that follows wakes the worker.
                if let Err(error) = context
                    .pods
                    .stop(
                        &desired.uid,
                        &id,
                        Duration::from_secs(u64::from(desired.grace_s())),
                    )
                    .await
                {
                    tracing::warn!(pod = %desired.label(), %error, "cannot stop the container whose postStart hook failed");
                }
            }
        });
    }

    fn stop(
        &mut self,
        name: String,
        id: String,
        grace_s: u32,
        why: StopReason,
        observed: &Observed,
    ) -> bool {
        self.context
            .events
            .normal(&self.subject, Some(&name), "Killing", why.message(&name));
        let grace = Duration::from_secs(grace_s.into());
        self.local
            .stopping
            .insert(id.clone(), clock::now().plus(grace));
        let hook = self.desired.container(&name).and_then(|view| {
            Some((
                view.spec.clone(),
                view.spec.lifecycle.as_ref()?.pre_stop.clone()?,
            ))
        });
        let (context, desired, subject, answers) = (
            self.context.clone(),
            self.desired.clone(),
            self.subject.clone(),
            self.answers.clone(),
        );
        let ip = observed.pod_ip.clone().unwrap_or_default();
        tokio::spawn(async move {
            let begun = tokio::time::Instant::now();
            if let Some((spec, hook)) = hook.filter(|_| !grace.is_zero()) {
                let asked = Asked {
                    uid: &desired.uid,
                    id: &id,
                    container: &spec,
                    ip: &ip,
                };
                if let Err(why) = hooks::run(&context, &asked, &hook, grace).await {
                    context
                        .events
                        .warning(&subject, Some(&name), "FailedPreStopHook", why);
                }
            }
            let left = grace.saturating_sub(begun.elapsed());
            // After a long hook the process still gets a moment for its signal.
            let left = if grace.is_zero() {
                grace
            } else {
                left.max(Duration::from_secs(2))
            };
            if let Err(error) = context.pods.stop(&desired.uid, &id, left).await {
                tracing::warn!(pod = %desired.label(), container = %name, %error, "cannot stop the container; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // A worker that has ended needs no answer.
            let _ = answers.send(Answer::Stopped { id }).await;
        });
        true
    }

    async fn resize(&mut self, name: &str, id: &str) -> bool {
        let desired = self.desired.clone();
        let Some(view) = desired.container(name) else {
            return false;
        };
        let level = self.context.pods.get(&desired.uid).and_then(|pod| {
            let found = pod.containers.iter().find(|one| one.id == id)?;
            found.spec.labels.get(spec::LEVEL_LABEL)?.parse().ok()
        });
        let resized = self.context.pods.resize(
            &desired.uid,
            id,
            spec::limits(resources::container_limits(view.spec)),
            spec::limits(resources::pod_limits(desired.spec())),
            spec::labels(&view, level.unwrap_or(0)),
        );
        match resized.await {
            Ok(()) => {
                self.local.resize_failures.remove(name);
            }
            Err(error) => {
                tracing::warn!(pod = %desired.label(), container = name, %error, "cannot resize the container; trying again");
                let failure = ResizeFailure {
                    message: error.to_string(),
                    retry_at: clock::now().plus(RETRY_AFTER),
                };
                self.local.resize_failures.insert(name.to_owned(), failure);
            }
        }
        true
    }

    fn probe(&mut self, name: String, id: String, kind: ProbeKind, observed: &Observed) -> bool {
        let desired = self.desired.clone();
        let Some(view) = desired.container(&name) else {
            return false;
        };
        let Some(probe) = kind.of(view.spec).cloned() else {
            return false;
        };
        self.local
            .probes
            .entry((id.clone(), kind))
            .or_default()
            .in_flight = true;
        let (context, container, answers) = (
            self.context.clone(),
            view.spec.clone(),
            self.answers.clone(),
        );
        let (uid, ip) = (
            self.desired.uid.clone(),
            observed.pod_ip.clone().unwrap_or_default(),
        );
        tokio::spawn(async move {
            let asked = Asked {
                uid: &uid,
                id: &id,
                container: &container,
                ip: &ip,
            };
            let result = probes::ask(&context, &asked, &probe, probe::timeout(&probe)).await;
            // A worker that has ended needs no answer.
            let _ = answers
                .send(Answer::Probed {
                    container: name,
                    id,
                    kind,
                    result,
                })
                .await;
        });
        false
    }

    async fn remove_container(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return false;
        }
        if let Err(error) = self
            .context
            .pods
            .remove_container(&self.desired.uid, id)
            .await
        {
            tracing::warn!(pod = %self.desired.label(), container = %id, %error, "cannot remove the ended container");
        }
        self.local.probes.retain(|(of, _), _| of != id);
        false
    }

    async fn remove_sandbox(&mut self) -> bool {
        let lost = self.local.lost;
        self.context.host_ports.set(&self.desired.uid, vec![]);
        if let Err(error) = super::end::remove(&self.context, &self.desired.uid, !lost).await {
            tracing::warn!(pod = %self.desired.label(), %error, "cannot take the pod's sandbox down; trying again");
            self.retry_at = Some(clock::now().plus(Duration::from_secs(3)));
            return false;
        }
        self.local = Local::default();
        true
    }

    async fn delete_from_api(&mut self) -> bool {
        if !self.removed {
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}",
                self.subject.namespace, self.subject.name
            );
            let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": { "uid": self.desired.uid } });
            match self
                .context
                .client
                .call::<Value>(
                    Method::DELETE,
                    &path,
                    Payload::json(&options),
                    DELETE_DEADLINE,
                )
                .await
            {
                Ok(_) => {}
                // Gone already, or another pod has taken the name.
                Err(error) if error.is_code(404) || error.is_code(409) => {}
                Err(error) => {
                    tracing::warn!(pod = %self.desired.label(), %error, "cannot delete the pod's object; trying again");
                    self.retry_at = Some(retry_soon(clock::now()));
                    return false;
                }
            }
        }
        self.finished = true;
        true
    }
}

fn retry_soon(now: Timestamp) -> Timestamp {
    now.plus(Duration::from_secs(2))
}

/// The id of the running container of a name.
fn running(observed: &Observed, name: &str) -> Option<String> {
    let runs = |container: &&Container| matches!(container.state, ContainerState::Running { .. });
    let mut of_name = observed.containers.iter().filter(runs);
    of_name
        .find(|container| container.name == name)
        .map(|container| container.id.clone())
}

/// The file for a container's last words, and its mount.
fn make_message_file(path: &Path, inside: Option<&str>) -> Result<Mount, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
    }
    std::fs::write(path, b"").map_err(Error::io("write", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .map_err(Error::io("change the mode of", path))?;
    let inside = inside
        .filter(|inside| !inside.is_empty())
        .unwrap_or("/dev/termination-log");
    Ok(Mount {
        host_path: path.to_path_buf(),
        container_path: inside.into(),
        ..Mount::default()
    })
}
