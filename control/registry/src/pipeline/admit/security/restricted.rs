//! The checks of the level `restricted`, on top of `baseline`: what hardened pods do without. In the order in which Kubernetes
//! tells them. Rules: its Pod Security Standards.

use super::baseline::added_capabilities;
use super::view::{
    PodView, Violation, containers, context_of, flag, plural, quoted, text_at, unique,
};
use crate::strategy::edit::{Members, read_map, read_maps, read_number, read_text, read_texts};

/// All checks, each with the minor version of Kubernetes from which on it is made.
pub const CHECKS: [(u32, super::Check); 6] = [
    (8, privilege_escalation),
    (22, capabilities),
    (0, volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp),
];

/// Since which minor version pods for Windows are let off what Windows does not know.
const WINDOWS_SINCE: u32 = 25;
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn is_exempt(pod: &PodView<'_>, minor: u32) -> bool {
    minor >= WINDOWS_SINCE && pod.is_windows()
}

fn privilege_escalation(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if is_exempt(pod, minor) {
        return None;
    }
    let names = pod.names(|container| {
        let context = context_of(container);
        context.and_then(|context| flag(context, "allowPrivilegeEscalation")) != Some(false)
    });
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            containers(&names)
        );
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if minor >= WINDOWS_SINCE && pod.is_windows() {
        return None;
    }
    let drops_all = |container| {
        let capabilities =
            context_of(container).and_then(|context| read_map(context, "capabilities"));
        capabilities
            .is_some_and(|capabilities| read_texts(capabilities, "drop").any(|name| name == "ALL"))
    };
    let keeping = pod.names(|container| !drops_all(container));
    let mut told = Vec::new();
    if !keeping.is_empty() {
        told.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeping)
        ));
    }
    told.extend(added_capabilities(pod, &["NET_BIND_SERVICE"]));
    (!told.is_empty()).then(|| Violation::new("unrestricted capabilities", told.join("; ")))
}

fn volumes(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for (_, volume) in read_maps(pod.spec, "volumes") {
        let kind = volume
            .iter()
            .find(|(name, value)| *name != "name" && !value.is_null())
            .map_or("unknown", |(name, _)| name.as_str());
        if !VOLUMES.contains(&kind) {
            names.push(read_text(volume, "name"));
            kinds.push(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let kinds = unique(kinds);
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", names.len()),
        quoted(&names),
        if names.len() == 1 { "uses" } else { "use" },
        plural("restricted volume type", kinds.len()),
        quoted(&kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

fn run_as_non_root(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let set = |context: &Members| flag(context, "runAsNonRoot");
    if let Some(setters) = pod.setters(|context| set(context) == Some(false)) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new(REASON, detail));
    }
    if pod.context().and_then(set) == Some(true) {
        return None;
    }
    let names = pod.names(|container| context_of(container).and_then(set).is_none());
    (!names.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            containers(&names)
        );
        Violation::new(REASON, detail)
    })
}

fn run_as_user(pod: &PodView<'_>, _minor: u32) -> Option<Violation> {
    let setters = pod.setters(|context| read_number(context, "runAsUser") == Some(0))?;
    let detail = format!("{setters} must not set runAsUser=0");
    Some(Violation::new("runAsUser=0", detail))
}

fn seccomp(pod: &PodView<'_>, minor: u32) -> Option<Violation> {
    if is_exempt(pod, minor) {
        return None;
    }
    const REASON: &str = "seccompProfile";
    let profile = |context| text_at(context, ["seccompProfile", "type"]);
    let is_good = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let mut bad = Vec::new();
    let setters = pod.setters(|context| {
        let found = profile(context).filter(|kind| !is_good(kind));
        bad.extend(found);
        found.is_some()
    });
    if let Some(setters) = setters {
        let detail = format!(
            "{setters} must not set securityContext.seccompProfile.type to {}",
            quoted(&unique(bad))
        );
        return Some(Violation::new(REASON, detail));
    }
    if pod.context().and_then(profile).is_some() {
        return None;
    }
    let names = pod.names(|container| context_of(container).and_then(profile).is_none());
    (!names.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&names)
        );
        Violation::new(REASON, detail)
    })
}
