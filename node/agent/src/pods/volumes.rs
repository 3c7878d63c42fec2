//! The volumes of a pod: what they hold is fetched from the API and made by the runtime, again and again for the files that
//! may change; and the mounts of its containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Volume as ApiVolume, VolumeProjection,
};
use lifecycle::{ContainerView, Desired, Observed, env};
use node_runtime::Mount;
use node_runtime::volumes::{self, HostPathKind, Item, Source, Volume, VolumeFile};
use objects::Quantity;

use super::{references, spec};
use crate::context::Context;

const MODE_DEFAULT: u32 = 0o644;

type Files = BTreeMap<String, VolumeFile>;

/// Makes all volumes of the pod, or brings them up to date. The error names the volume.
pub async fn prepare(
    context: &Context,
    desired: &Desired,
    observed: &Observed,
) -> Result<(), String> {
    let folder = context.pods.volumes_folder(&desired.uid);
    let fs_group = desired
        .spec()
        .security_context
        .as_ref()
        .and_then(|context| context.fs_group)
        .and_then(|group| u32::try_from(group).ok());
    for volume in desired.spec().volumes.iter().flatten() {
        let told = |reason: String| {
            format!(
                "MountVolume.SetUp failed for volume {:?} : {reason}",
                volume.name
            )
        };
        let source = source(context, desired, observed, volume)
            .await
            .map_err(told)?;
        let made = Volume {
            name: volume.name.clone(),
            source,
            fs_group,
        };
        volumes::materialise(&folder, made)
            .await
            .map_err(|error| told(error.to_string()))?;
    }
    Ok(())
}

/// Whether there are files that follow changes in the API.
pub fn change(desired: &Desired) -> bool {
    let follows = |volume: &ApiVolume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    };
    desired.spec().volumes.iter().flatten().any(follows)
}

async fn source(
    context: &Context,
    desired: &Desired,
    observed: &Observed,
    volume: &ApiVolume,
) -> Result<Source, String> {
    if let Some(empty) = &volume.empty_dir {
        let size = empty
            .size_limit
            .as_ref()
            .and_then(|size| Quantity::parse(&size.0).ok())
            .and_then(|size| u64::try_from(size.units()).ok());
        return Ok(Source::EmptyDir {
            memory: empty.medium.as_deref() == Some("Memory"),
            size_bytes_max: size.filter(|size| *size > 0),
        });
    }
    if let Some(host_path) = &volume.host_path {
        let word = host_path.type_.as_deref().unwrap_or_default();
        let kind = HostPathKind::parse(word)
            .ok_or_else(|| format!("hostPath type {word:?} is unknown"))?;
        return Ok(Source::HostPath {
            path: PathBuf::from(&host_path.path),
            kind,
        });
    }
    let mut files = Files::new();
    let mut memory = false;
    if let Some(from) = &volume.config_map {
        let (mode, optional) = (mode(from.default_mode), from.optional.unwrap_or(false));
        files = config_map_files(
            context,
            desired,
            &from.name,
            from.items.as_deref(),
            mode,
            optional,
        )
        .await?;
    } else if let Some(from) = &volume.secret {
        let (name, mode, optional) = (
            from.secret_name.as_deref().unwrap_or_default(),
            mode(from.default_mode),
            from.optional.unwrap_or(false),
        );
        files = secret_files(
            context,
            desired,
            name,
            from.items.as_deref(),
            mode,
            optional,
        )
        .await?;
        memory = true;
    } else if let Some(from) = &volume.downward_api {
        files = downward_files(
            context,
            desired,
            observed,
            from.items.as_deref().unwrap_or_default(),
            mode(from.default_mode),
        )?;
    } else if let Some(from) = &volume.projected {
        for projection in from.sources.iter().flatten() {
            files.extend(
                projected_files(
                    context,
                    desired,
                    observed,
                    projection,
                    mode(from.default_mode),
                )
                .await?,
            );
        }
        memory = true;
    } else {
        return Err("this node has emptyDir, hostPath, configMap, secret, downwardAPI and projected volumes only".into());
    }
    Ok(Source::Files { memory, files })
}

fn mode(given: Option<i32>) -> u32 {
    given
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(MODE_DEFAULT)
}

async fn projected_files(
    context: &Context,
    desired: &Desired,
    observed: &Observed,
    projection: &VolumeProjection,
    mode: u32,
) -> Result<Files, String> {
    if let Some(from) = &projection.config_map {
        return config_map_files(
            context,
            desired,
            &from.name,
            from.items.as_deref(),
            mode,
            from.optional.unwrap_or(false),
        )
        .await;
    }
    if let Some(from) = &projection.secret {
        return secret_files(
            context,
            desired,
            &from.name,
            from.items.as_deref(),
            mode,
            from.optional.unwrap_or(false),
        )
        .await;
    }
    if let Some(from) = &projection.downward_api {
        return downward_files(
            context,
            desired,
            observed,
            from.items.as_deref().unwrap_or_default(),
            mode,
        );
    }
    if let Some(from) = &projection.service_account_token {
        let (audience, seconds) = (from.audience.as_deref(), from.expiration_seconds);
        let token = context
            .tokens
            .get(&context.client, desired, audience, seconds)
            .await?;
        let content = token.into_bytes();
        return Ok(Files::from([(
            from.path.clone(),
            VolumeFile { content, mode },
        )]));
    }
    Err("this node projects configMap, secret, downwardAPI and serviceAccountToken only".into())
}

async fn config_map_files(
    context: &Context,
    desired: &Desired,
    name: &str,
    wanted: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Files, String> {
    let found = references::config_map(&context.client, &desired.namespace, name)
        .await
        .map_err(|error| error.to_string())?;
    let Some(found) = found else {
        return absent("configmap", name, optional);
    };
    let text = found
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()));
    let binary = found
        .binary_data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0));
    select(&text.chain(binary).collect(), wanted, mode, optional)
}

async fn secret_files(
    context: &Context,
    desired: &Desired,
    name: &str,
    wanted: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Files, String> {
    let found = references::secret(&context.client, &desired.namespace, name)
        .await
        .map_err(|error| error.to_string())?;
    let Some(found) = found else {
        return absent("secret", name, optional);
    };
    let data = found
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect();
    select(&data, wanted, mode, optional)
}

fn absent(kind: &str, name: &str, optional: bool) -> Result<Files, String> {
    if optional {
        Ok(Files::new())
    } else {
        Err(format!("{kind} {name:?} not found"))
    }
}

fn select(
    data: &BTreeMap<String, Vec<u8>>,
    wanted: Option<&[KeyToPath]>,
    mode_default: u32,
    optional: bool,
) -> Result<Files, String> {
    let item = |item: &KeyToPath| Item {
        key: item.key.clone(),
        path: item.path.clone(),
        mode: item.mode.and_then(|mode| u32::try_from(mode).ok()),
    };
    let items: Vec<Item> = wanted.unwrap_or_default().iter().map(item).collect();
    volumes::select(data, &items, mode_default, optional).map_err(|error| error.to_string())
}

fn downward_files(
    context: &Context,
    desired: &Desired,
    observed: &Observed,
    items: &[DownwardAPIVolumeFile],
    mode_default: u32,
) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => {
                env::field_value(&field.field_path, desired, observed, &context.node)
            }
            (None, Some(resource)) => {
                let name = resource.container_name.as_deref().unwrap_or_default();
                let view = desired
                    .container(name)
                    .ok_or_else(|| format!("container {name:?} is not in the pod"))?;
                let divisor = resource
                    .divisor
                    .as_ref()
                    .and_then(|divisor| Quantity::parse(&divisor.0).ok());
                env::resource_value(
                    &resource.resource,
                    view.spec,
                    divisor,
                    (context.cpu_milli, context.around.memory_bytes),
                )
            }
            (None, None) => return Err(format!("the file {:?} has no source", item.path)),
        };
        let content = content.map_err(|error| error.to_string())?.into_bytes();
        let mode = item
            .mode
            .and_then(|mode| u32::try_from(mode).ok())
            .unwrap_or(mode_default);
        files.insert(item.path.clone(), VolumeFile { content, mode });
    }
    Ok(files)
}

/// The mounts of a container. `env` is its environment, for `subPathExpr`.
pub async fn mounts(
    context: &Context,
    desired: &Desired,
    view: &ContainerView<'_>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let folder = context.pods.volumes_folder(&desired.uid);
    let mut mounts = vec![];
    for mount in view.spec.volume_mounts.iter().flatten() {
        let volume = desired
            .spec()
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
        let path = volume.host_path.as_ref().map_or_else(
            || folder.join(&volume.name),
            |host_path| PathBuf::from(&host_path.path),
        );
        let inside = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(sub_path), _) if !sub_path.is_empty() => Some(sub_path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(env::expand(expression, env)),
            _ => None,
        };
        let host_path = match inside {
            Some(inside) => volumes::sub_path(&folder, &path, &inside)
                .await
                .map_err(|error| error.to_string())?,
            None => path,
        };
        let read_only = mount.read_only.unwrap_or(false)
            || (volume.empty_dir.is_none() && volume.host_path.is_none());
        mounts.push(Mount {
            host_path,
            container_path: PathBuf::from(&mount.mount_path),
            read_only,
            propagation: spec::propagation(mount),
        });
    }
    Ok(mounts)
}
