//! What the API wants of a pod: a read view with Kubernetes' defaults filled in. It is never written back.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};
use objects::Timestamp;
use serde_json::Value;

use crate::images::PullPolicy;

/// A pod that the API bound to this node.
#[derive(Clone, Debug)]
pub struct Desired {
    pod: Pod,
    spec: PodSpec,
    /// The ephemeral containers as others, each with the container that it looks into.
    ephemeral: Vec<(Container, Option<String>)>,
    /// The object's UID.
    pub uid: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// Why an object is no pod that can be run.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// It does not have a pod's form.
    #[error("the pod cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field that every stored pod has is missing.
    #[error("the pod has no {0}")]
    Missing(&'static str),
}

/// `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// Unless it is 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// Whether a container that ended with `code` is started again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// An init container with `restartPolicy: Always`: started in its turn, and kept.
    Sidecar,
    /// One of `containers`.
    Main,
    /// Put into a pod that is there, to look around in it: started once, at once, and of no weight for how the pod is.
    Ephemeral,
}

impl Role {
    /// Whether it is one of `initContainers`.
    pub fn is_initial(self) -> bool {
        matches!(self, Role::Init | Role::Sidecar)
    }
}

/// A container of the pod.
#[derive(Clone, Copy, Debug)]
pub struct ContainerView<'a> {
    /// As the API has it.
    pub spec: &'a Container,
    /// What it is.
    pub role: Role,
    /// When it is started again.
    pub restart: RestartPolicy,
}

impl<'a> ContainerView<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// Its image as the pod names it.
    pub fn image(&self) -> &'a str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    /// When its image is pulled.
    pub fn pull_policy(&self) -> PullPolicy {
        PullPolicy::of(self.spec.image_pull_policy.as_deref(), self.image())
    }
}

impl Desired {
    /// Reads a pod's object.
    pub fn parse(object: Value) -> Result<Self, DesiredError> {
        let mut pod: Pod = serde_json::from_value(object)?;
        let spec = pod.spec.take().ok_or(DesiredError::Missing("spec"))?;
        let uid = pod
            .metadata
            .uid
            .clone()
            .ok_or(DesiredError::Missing("metadata.uid"))?;
        let name = pod
            .metadata
            .name
            .clone()
            .ok_or(DesiredError::Missing("metadata.name"))?;
        let namespace = pod
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let as_container = |ephemeral: &EphemeralContainer| {
            // The same fields, and one more that the other kind leaves out.
            let container = serde_json::from_value(serde_json::to_value(ephemeral)?)?;
            Ok::<_, serde_json::Error>((container, ephemeral.target_container_name.clone()))
        };
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(as_container);
        let ephemeral = ephemeral.collect::<Result<_, _>>()?;
        // Nobody here reads who wrote which field, and it is the larger part of many objects.
        pod.metadata.managed_fields = None;
        Ok(Self {
            pod,
            spec,
            ephemeral,
            uid,
            namespace,
            name,
        })
    }

    /// The pod as it is to be treated once its object is gone: deleted, with what grace it asked for.
    #[must_use]
    pub fn removed(mut self, at: Timestamp) -> Self {
        let grace = i64::from(self.grace_s());
        self.pod
            .metadata
            .deletion_grace_period_seconds
            .get_or_insert(grace);
        self.pod
            .metadata
            .deletion_timestamp
            .get_or_insert(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at.0));
        self
    }

    /// The revision of the object; 0 where it has none.
    pub fn revision(&self) -> u64 {
        self.pod
            .metadata
            .resource_version
            .as_deref()
            .and_then(|revision| revision.parse().ok())
            .unwrap_or(0)
    }

    /// The pod's specification.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// The pod's status as the API has it.
    pub fn status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// The pod's metadata.
    pub fn metadata(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        &self.pod.metadata
    }

    /// The object again, without who wrote which field.
    pub fn object(&self) -> Value {
        let pod = Pod {
            spec: Some(self.spec.clone()),
            ..self.pod.clone()
        };
        // Only maps with keys that are no texts cannot be written, and a pod has none.
        serde_json::to_value(pod).unwrap_or_default()
    }

    /// Init containers in order, then the main ones, then the ephemeral ones.
    pub fn containers(&self) -> Vec<ContainerView<'_>> {
        let pod = RestartPolicy::parse(self.spec.restart_policy.as_deref());
        let init = self.spec.init_containers.iter().flatten().map(|spec| {
            match spec.restart_policy.as_deref() {
                Some("Always") => ContainerView {
                    spec,
                    role: Role::Sidecar,
                    restart: RestartPolicy::Always,
                },
                // An init container that succeeded is never run again, whatever the pod's policy.
                _ if pod == RestartPolicy::Always => ContainerView {
                    spec,
                    role: Role::Init,
                    restart: RestartPolicy::OnFailure,
                },
                _ => ContainerView {
                    spec,
                    role: Role::Init,
                    restart: pod,
                },
            }
        });
        let main = self.spec.containers.iter().map(|spec| {
            let own = spec.restart_policy.as_deref();
            ContainerView {
                spec,
                role: Role::Main,
                restart: own.map_or(pod, |own| RestartPolicy::parse(Some(own))),
            }
        });
        let ephemeral = self.ephemeral.iter().map(|(spec, _)| ContainerView {
            spec,
            role: Role::Ephemeral,
            restart: RestartPolicy::Never,
        });
        init.chain(main).chain(ephemeral).collect()
    }

    /// The container whose processes an ephemeral one sees.
    pub fn target_of(&self, ephemeral: &str) -> Option<&str> {
        let (_, target) = self
            .ephemeral
            .iter()
            .find(|(container, _)| container.name == ephemeral)?;
        target.as_deref().filter(|target| !target.is_empty())
    }

    /// A container by its name.
    pub fn container(&self, name: &str) -> Option<ContainerView<'_>> {
        self.containers()
            .into_iter()
            .find(|container| container.name() == name)
    }

    /// Whether the pod is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Seconds that containers get between their signal and SIGKILL.
    pub fn grace_s(&self) -> u32 {
        let asked = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .filter(|_| self.is_deleting());
        let grace = asked
            .or(self.spec.termination_grace_period_seconds)
            .unwrap_or(30);
        u32::try_from(grace.max(0)).unwrap_or(u32::MAX)
    }

    /// Whether the API's status says that the pod has ended.
    pub fn has_ended(&self) -> bool {
        let phase = self.status().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// When `activeDeadlineSeconds` passes.
    pub fn deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        let start = Timestamp(self.status()?.start_time.as_ref()?.0);
        Some(start.plus(Duration::from_secs(seconds)))
    }

    /// Whether the pod shares the node's network.
    pub fn host_network(&self) -> bool {
        self.spec.host_network.unwrap_or(false)
    }

    /// Whether the pod's containers see one another's processes.
    pub fn shares_pids(&self) -> bool {
        self.spec.share_process_namespace.unwrap_or(false)
    }

    /// `name_namespace(uid)`, as the kubelet writes a pod into messages.
    pub fn label(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }
}
