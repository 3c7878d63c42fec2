//! How fast a scale may change: stabilisation by what was recommended lately, and limits by what was changed lately.
//! Rules: autoscaling/v2's `behavior`, and Kubernetes' own for an autoscaler that says nothing.

use super::metrics::{ceil, float_of};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use objects::Timestamp;
use std::time::Duration;

/// For how long a higher recommendation holds the scale up, where nothing is said.
const DOWN_WINDOW: Duration = Duration::from_secs(300);
/// Nothing that any rule asks for is older.
const KEPT: Duration = Duration::from_secs(3600);
/// Without rules a scale at most doubles at a time, and may always reach this.
const UP_MIN: i64 = 4;

/// What an autoscaler recommended and changed lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// When the metrics were last looked at.
    pub looked: Option<Timestamp>,
    /// What the metrics asked for, before any limit.
    recommended: Vec<(Timestamp, i64)>,
    /// By how much the scale was changed.
    changed: Vec<(Timestamp, i64)>,
    /// A change that was asked for and not seen yet: when, from, to.
    asked: Option<(Timestamp, i64, i64)>,
}

impl History {
    /// Begins with the scale as it is, so that what a predecessor recommended is not undone at once; notes whether the last
    /// change was made; forgets what is old.
    pub fn begin(&mut self, replicas: i64, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, replicas));
        }
        if let Some((at, from, to)) = self.asked.take()
            && to == replicas
        {
            self.changed.push((at, to - from));
        }
        self.recommended.retain(|(at, _)| at.plus(KEPT) > now);
        self.changed.retain(|(at, _)| at.plus(KEPT) > now);
    }

    /// A change was asked for.
    pub fn ask(&mut self, from: i64, to: i64, now: Timestamp) {
        self.asked = Some((now, from, to));
    }

    /// Replicas that were added and taken within a time.
    fn within(&self, period: Duration, now: Timestamp) -> (i64, i64) {
        let recent = self.changed.iter().filter(|(at, _)| at.plus(period) > now);
        recent.fold((0, 0), |(added, taken), (_, by)| {
            (added + (*by).max(0), taken + (-by).max(0))
        })
    }
}

/// A scale within its limits, with what is said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limited {
    /// The replicas.
    pub replicas: i64,
    /// Reason and message of the condition AbleToScale.
    pub able: (&'static str, &'static str),
    /// Whether a limit was reached; reason and message of the condition ScalingLimited.
    pub limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABLE: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABLE: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: (&str, &str) = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FEW: (&str, &str) = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: (&str, &str) = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const UP_LIMIT: (&str, &str) = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// The least and the most replicas.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// `minReplicas`
    pub min: i64,
    /// `maxReplicas`
    pub max: i64,
}

/// Brings what the metrics ask for within the rules, and notes it.
pub fn limit(
    history: &mut History,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    range: Range,
    current: i64,
    desired: i64,
    now: Timestamp,
) -> Limited {
    let (stable, able) = match behavior {
        Some(behavior) => stable_by_rules(history, behavior, current, desired, now),
        None => stable(history, desired, now),
    };
    history.recommended.push((now, desired));
    let (replicas, (reason, message)) = match behavior {
        Some(behavior) => by_rules(history, behavior, range, current, stable, now),
        None => by_default(range, current, stable),
    };
    Limited {
        replicas,
        able: if stable == desired { READY } else { able },
        limited: (replicas != stable, reason, message),
    }
}

type Told = (&'static str, &'static str);

/// The highest of the last minutes.
fn stable(history: &History, desired: i64, now: Timestamp) -> (i64, Told) {
    let recent = history.recommended.iter();
    let recent = recent.filter(|(at, _)| at.plus(DOWN_WINDOW) >= now);
    let highest = recent.map(|(_, replicas)| *replicas).max();
    (highest.map_or(desired, |it| it.max(desired)), DOWN_STABLE)
}

/// Up to the lowest of one window, down to the highest of the other.
fn stable_by_rules(
    history: &History,
    behavior: &HorizontalPodAutoscalerBehavior,
    current: i64,
    desired: i64,
    now: Timestamp,
) -> (i64, Told) {
    let window = |rules: Option<&HPAScalingRules>, unsaid: Duration| {
        let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or(unsaid, Duration::from_secs)
    };
    let within = |window: Duration| {
        let recent = history.recommended.iter();
        recent
            .filter(move |(at, _)| at.plus(window) > now)
            .map(|(_, replicas)| *replicas)
    };
    let up_window = window(behavior.scale_up.as_ref(), Duration::ZERO);
    let down_window = window(behavior.scale_down.as_ref(), DOWN_WINDOW);
    let up = within(up_window).fold(desired, i64::min);
    let down = within(down_window).fold(desired, i64::max);
    let stable = current.max(up).min(down);
    let told = if desired >= current {
        UP_STABLE
    } else {
        DOWN_STABLE
    };
    (stable, told)
}

fn by_default(range: Range, current: i64, desired: i64) -> (i64, Told) {
    let fastest = current.saturating_mul(2).max(UP_MIN);
    let (most, told) = match range.max > fastest {
        true => (fastest, UP_LIMIT),
        false => (range.max, TOO_MANY),
    };
    if desired < range.min {
        (range.min, TOO_FEW)
    } else if desired > most {
        (most, told)
    } else {
        (desired, WITHIN)
    }
}

fn by_rules(
    history: &History,
    behavior: &HorizontalPodAutoscalerBehavior,
    range: Range,
    current: i64,
    desired: i64,
    now: Timestamp,
) -> (i64, Told) {
    if desired > current {
        let fastest = up_limit(history, behavior.scale_up.as_ref(), current, now).max(current);
        let (most, told) = match range.max > fastest {
            true => (fastest, UP_LIMIT),
            false => (range.max, TOO_MANY),
        };
        if desired > most {
            return (most, told);
        }
    } else if desired < current {
        let down = behavior.scale_down.as_ref();
        let fastest = down_limit(history, down, current, now).min(current);
        let (least, told) = match range.min < fastest {
            true => (fastest, DOWN_LIMIT),
            false => (range.min, TOO_FEW),
        };
        if desired < least {
            return (least, told);
        }
    }
    (desired, WITHIN)
}

fn up_limit(
    history: &History,
    rules: Option<&HPAScalingRules>,
    current: i64,
    now: Timestamp,
) -> i64 {
    let limits = limits(history, rules, current, now, |begun, policy| match policy {
        Policy::Pods(pods) => begun.saturating_add(pods),
        Policy::Percent(percent) => ceil(float_of(begun) * (1.0 + float_of(percent) / 100.0)),
    });
    match select(rules) {
        "Disabled" => current,
        "Min" => limits.into_iter().min().unwrap_or(i64::MAX),
        // What is unsaid in an object that was stored without its defaults.
        _ if limits.is_empty() => current.saturating_mul(2).max(current + UP_MIN),
        _ => limits.into_iter().max().unwrap_or(current),
    }
}

fn down_limit(
    history: &History,
    rules: Option<&HPAScalingRules>,
    current: i64,
    now: Timestamp,
) -> i64 {
    let limits = limits(history, rules, current, now, |begun, policy| match policy {
        Policy::Pods(pods) => begun - pods,
        Policy::Percent(percent) => begun.saturating_mul(100 - percent).div_euclid(100),
    });
    match select(rules) {
        "Disabled" => current,
        "Min" => limits.into_iter().max().unwrap_or(0),
        _ => limits.into_iter().min().unwrap_or(0),
    }
}

fn select(rules: Option<&HPAScalingRules>) -> &str {
    let chosen = rules.and_then(|rules| rules.select_policy.as_deref());
    chosen.unwrap_or("Max")
}

enum Policy {
    Pods(i64),
    Percent(i64),
}

/// What each policy allows, counted from the scale at its period's begin.
fn limits(
    history: &History,
    rules: Option<&HPAScalingRules>,
    current: i64,
    now: Timestamp,
    allowed: impl Fn(i64, Policy) -> i64,
) -> Vec<i64> {
    let policies = rules.and_then(|rules| rules.policies.as_ref());
    let limit = |policy: &k8s_openapi::api::autoscaling::v2::HPAScalingPolicy| {
        let seconds = u64::try_from(policy.period_seconds).unwrap_or(0);
        let (added, taken) = history.within(Duration::from_secs(seconds), now);
        let begun = current - added + taken;
        let value = i64::from(policy.value);
        allowed(
            begun,
            match &*policy.type_ {
                "Pods" => Policy::Pods(value),
                _ => Policy::Percent(value),
            },
        )
    };
    policies.into_iter().flatten().map(limit).collect()
}
