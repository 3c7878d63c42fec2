//! Every kind as a row, and the one write pipeline: what an API server does, without HTTP.
//!
//! Pure: never asks a clock, a file or the network; time and ids come through [`Shell`], data through `mvcc::Store`. The rules
//! are Kubernetes' API conventions and its API server's behaviour; each module names its own source.

pub mod aggregation;
pub mod apply;
pub mod custom;
mod decode;
pub mod discovery;
mod faults;
pub mod flow;
mod metadata;
pub mod openapi;
mod pipeline;
pub mod policy;
pub mod rbac;
mod request;
pub mod schema;
mod strategy;
mod table;
pub mod tableprint;
mod webhook;

pub use decode::decode_json;
pub use faults::Faults;
pub use mvcc::At;
pub use pipeline::{Converter, Pipeline, Remarks};
pub use rbac::Access;
pub use request::{
    Caller, DeleteOptions, Deleted, FieldValidation, List, ListOptions, Patch, PatchKind,
    Propagation, Shell, Target, Verb, VersionMatch, WatchEvent, WatchEventKind, WriteOptions,
    Written, parse_resource_version,
};
pub use strategy::{SYSTEM_CLASSES as SYSTEM_PRIORITY_CLASSES, Strategy};
pub use table::{Column, ColumnKind, Registry, ResourceDef, SubresourceDef};
pub use webhook::{WebhookClient, WebhookPlace, Webhooks};
