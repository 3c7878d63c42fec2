//! When an image is pulled, and what a container that waits for one says. Rules: `imagePullPolicy` as Kubernetes documents it.

use std::time::Duration;

use objects::Timestamp;

use crate::desired::ContainerView;
use crate::observed::{Observed, PullState};
use crate::restart::back_off;

/// A failed pull is told as itself for so long, then as its back-off.
const FAILURE_SHOWN: Duration = Duration::from_secs(5);

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When it is not on the node.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The policy that is given, or the one that follows from the image's tag.
    pub fn of(given: Option<&str>, image: &str) -> Self {
        match given {
            Some("Always") => PullPolicy::Always,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            Some("Never") => PullPolicy::Never,
            _ if is_latest(image) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

/// No tag and no digest, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// What stands between a container and its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageNeed {
    /// Nothing.
    Ready,
    /// A pull is to be started.
    Pull,
    /// A pull goes on.
    Pulling,
    /// The status says why, and time or an import will help.
    Waiting {
        reason: String,
        message: String,
        wake_at: Option<Timestamp>,
    },
}

/// Looks whether `container` can be started for `attempt`.
pub(crate) fn need(
    container: &ContainerView<'_>,
    attempt: u32,
    observed: &Observed,
    now: Timestamp,
) -> ImageNeed {
    let image = container.image();
    let present = observed
        .images_present
        .iter()
        .any(|present| present == image);
    let policy = container.pull_policy();
    if present && policy != PullPolicy::Always {
        return ImageNeed::Ready;
    }
    if policy == PullPolicy::Never {
        let message =
            format!("Container image \"{image}\" is not present with pull policy of Never");
        return ImageNeed::Waiting {
            reason: "ErrImageNeverPull".into(),
            message,
            wake_at: None,
        };
    }
    let pull = observed
        .pulls
        .get(container.name())
        .filter(|pull| pull.attempt == attempt && pull.image == image);
    match pull.map(|pull| &pull.state) {
        None => ImageNeed::Pull,
        Some(PullState::Running) => ImageNeed::Pulling,
        // What was pulled may have been removed since.
        Some(PullState::Done) if present => ImageNeed::Ready,
        Some(PullState::Done) => ImageNeed::Pull,
        Some(PullState::Failed {
            reason,
            message,
            at,
            failures,
        }) => failed(image, reason, message, *at, *failures, now),
    }
}

fn failed(
    image: &str,
    reason: &str,
    message: &str,
    at: Timestamp,
    failures: u32,
    now: Timestamp,
) -> ImageNeed {
    let retry_at = at.plus(back_off(failures));
    if now >= retry_at {
        return ImageNeed::Pull;
    }
    let told_until = at.plus(FAILURE_SHOWN);
    if reason != "ErrImagePull" || now < told_until {
        let wake_at = Some(if reason == "ErrImagePull" {
            told_until
        } else {
            retry_at
        });
        return ImageNeed::Waiting {
            reason: reason.into(),
            message: message.into(),
            wake_at,
        };
    }
    let message = format!("Back-off pulling image \"{image}\": {reason}: {message}");
    ImageNeed::Waiting {
        reason: "ImagePullBackOff".into(),
        message,
        wake_at: Some(retry_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_follow_the_tag() {
        let policies = ["web", "web:latest", "r:5000/web", "web:1", "web@sha256:00"]
            .map(|image| PullPolicy::of(None, image));
        use PullPolicy::{Always, IfNotPresent};
        assert_eq!(
            policies,
            [Always, Always, Always, IfNotPresent, IfNotPresent]
        );
    }
}
