//! Containers, images, cgroups, volumes and logs of one node.
//!
//! `Images` keeps images, `Pods` runs pods, each through a shim of its own (`node/shim`) so that containers outlive the
//! agent. Volumes are made by `volumes`, logs read by `logs`. This crate decides nothing: when to pull, restart, probe or evict is
//! the agent's and `lifecycle`'s. It never calls libcontainer, and never speaks to the API.
//!
//! ```no_run
//! # async fn example() -> node_runtime::Result<()> {
//! use node_runtime::{ContainerSpec, Images, ImagesConfig, PodSpec, Pods, PodsConfig};
//! let images = Images::open(ImagesConfig::new("/var/lib/trireme/images"))?;
//! images.pull("busybox", Default::default()).await?;
//! let pods = Pods::open(PodsConfig::new("/var/lib/trireme/run"), images).await?;
//! pods.create(PodSpec { uid: "a".into(), hostname: Some("web-0".into()), ..Default::default() }).await?;
//! let spec = ContainerSpec { name: "web".into(), image: "busybox".into(), args: vec!["true".into()], ..Default::default() };
//! let id = pods.start_container("a", spec).await?;
//! println!("{}", pods.wait("a", &id).await?.code);
//! pods.remove("a").await
//! # }
//! ```

mod cgroup;
mod clock;
mod error;
mod files;
pub mod image;
pub mod logs;
mod machine;
mod mounts;
mod netdev;
mod pods;
mod seal;
mod seccomp;
mod shim;
mod spec;
mod stream;
mod types;
mod user;
pub mod volumes;

pub use error::{Error, Result};
pub use image::{
    Image, ImageConfig, Images, ImagesConfig, Progress, PullOptions, Reference, RegistryCredentials,
};
pub use netdev::interfaces;
pub use pods::{Captured, ExecOptions, Pods, PodsConfig};
pub use spec::{command_line, environment};
pub use stream::{Input, Output, Process};
pub use types::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, Event, Exit, Interface, Limits,
    LogLimits, Measured, Mount, PidNamespace, PodSpec, PodStatus, PodUid, Propagation, Qos, Rlimit,
    Seccomp, Security, Stats,
};
