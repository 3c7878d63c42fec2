//! When a container that ended is started again. Rule: Kubernetes' back-off: the first restart at once, then 10 s doubling
//! to 5 min, forgotten after 10 min of running.

use std::time::Duration;

use objects::Timestamp;

use crate::observed::Exit;

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// At this level the back-off has reached its greatest value.
const LEVEL_MAX: u32 = 6;

/// The `n`th back-off, from 1.
pub(crate) fn back_off(n: u32) -> Duration {
    (FIRST * 2_u32.pow(n.saturating_sub(1).min(LEVEL_MAX))).min(MAX)
}

/// The next start of a container that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Not before.
    pub at: Timestamp,
    /// How long it waits from its end.
    pub delay: Duration,
    /// The level of that start.
    pub level: u32,
}

/// `level` is that of the start that ended with `exit`.
pub(crate) fn next(level: u32, exit: &Exit) -> Next {
    let ran = exit.started_at.map_or(Duration::ZERO, |started_at| {
        exit.finished_at.since(started_at)
    });
    if level == 0 || ran > FORGOTTEN_AFTER {
        return Next {
            at: exit.finished_at,
            delay: Duration::ZERO,
            level: 1,
        };
    }
    let delay = back_off(level);
    Next {
        at: exit.finished_at.plus(delay),
        delay,
        level: (level + 1).min(LEVEL_MAX),
    }
}

/// `10s`, `2m40s`, `5m0s`, as Go prints a duration.
pub(crate) fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(ran_s: i64) -> Exit {
        let at = Timestamp::from_unix;
        Exit {
            code: 1,
            signal: 0,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(at(0)),
            finished_at: at(ran_s),
        }
    }

    #[test]
    fn doubles_to_five_minutes() {
        let mut level = 0;
        let delays: Vec<String> = std::iter::from_fn(|| {
            let next = next(level, &exit(1));
            level = next.level;
            Some(go_duration(next.delay))
        })
        .take(8)
        .collect();
        assert_eq!(
            delays,
            ["0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]
        );
    }

    #[test]
    fn ten_minutes_of_running_forgive() {
        assert_eq!(next(5, &exit(601)).level, 1);
        assert_eq!(next(5, &exit(601)).delay, Duration::ZERO);
    }
}
