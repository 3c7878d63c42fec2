//! When a snapshot is due, when a failed one is tried again, and which ones go. Pure: the present is an argument.
//!
//! Moments are counted from 1970 rather than from the last run, so that every master knows the same ones, whoever leads.

use anyhow::{Result, bail, ensure};
use objects::Timestamp;
use objects::snapshots::{SavedSnapshot, SnapshotSchedule};
use std::time::Duration;

const DAY_S: i64 = 24 * 3600;
/// More often than this a snapshot would overtake the one before it.
const EVERY_SECONDS_MIN: u64 = 5;
const EVERY_SECONDS_MAX: u64 = 366 * 24 * 3600;
const TIMES_MAX: usize = 24;
const KEEP_MAX: u32 = 10_000;
/// Kept by a schedule that says nothing.
pub const KEEP_LAST_DEFAULT: u32 = 7;
/// A failed run is tried again after this, then after twice as long each time,
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Whether the times and the retention can be used.
pub fn check(schedule: &SnapshotSchedule) -> Result<()> {
    ensure!(
        schedule.every_seconds.is_some() || !schedule.at.is_empty(),
        "the schedule has no time: give --every 6h, or --at 03:00"
    );
    if let Some(every) = schedule.every_seconds {
        ensure!(
            (EVERY_SECONDS_MIN..=EVERY_SECONDS_MAX).contains(&every),
            "every {every} s cannot be: it must be between {EVERY_SECONDS_MIN} s and a year"
        );
    }
    ensure!(
        schedule.at.len() <= TIMES_MAX,
        "a schedule has at most {TIMES_MAX} times a day"
    );
    for text in &schedule.at {
        second_of_day(text)?;
    }
    for keep in [schedule.keep_last, schedule.keep_days]
        .into_iter()
        .flatten()
    {
        ensure!(
            (1..=KEEP_MAX).contains(&keep),
            "keeping {keep} cannot be: it must be between 1 and {KEEP_MAX}"
        );
    }
    Ok(())
}

/// The latest moment of the schedule that is not after `now`.
fn latest(schedule: &SnapshotSchedule, now: Timestamp) -> Option<Timestamp> {
    moments(schedule, now).filter(|moment| *moment <= now).max()
}

/// The first moment of the schedule after `now`.
pub fn next(schedule: &SnapshotSchedule, now: Timestamp) -> Option<Timestamp> {
    moments(schedule, now).filter(|moment| *moment > now).min()
}

/// The moments around `now`: among them the nearest before and after.
fn moments(schedule: &SnapshotSchedule, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let now_s = now.0.as_second();
    let every = schedule
        .every_seconds
        .and_then(|every| i64::try_from(every).ok())
        .into_iter();
    let periodic = every.flat_map(move |every| {
        let before = now_s.div_euclid(every) * every;
        [before, before + every]
    });
    let daily = schedule
        .at
        .iter()
        .filter_map(|text| second_of_day(text).ok());
    let midnight = now_s.div_euclid(DAY_S) * DAY_S;
    let daily: Vec<i64> = daily
        .flat_map(|second| [-1, 0, 1].map(|day| midnight + day * DAY_S + second))
        .collect();
    periodic.chain(daily).map(Timestamp::from_unix)
}

/// The moment for which a snapshot must be made now, if one must: the latest one, when nothing was made for it. What was missed
/// before that is not made up for. `done` is the last moment that was served, or when the schedule was made.
pub fn due(
    schedule: &SnapshotSchedule,
    done: Timestamp,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    if retry_at.is_some_and(|retry_at| now < retry_at) {
        return None;
    }
    latest(schedule, now).filter(|moment| *moment > done)
}

/// When a run that failed for the `failures`th time in a row is tried again.
pub fn retry_at(failures: u32, now: Timestamp) -> Timestamp {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    now.plus(doubled.min(RETRY_MAX))
}

/// Those of a schedule's snapshots that may go: neither among the newest nor young. The newest is always kept.
pub fn expired<'a>(
    schedule: &SnapshotSchedule,
    snapshots: &'a [SavedSnapshot],
    now: Timestamp,
) -> Vec<&'a SavedSnapshot> {
    let keep_last = match (schedule.keep_last, schedule.keep_days) {
        (None, None) => KEEP_LAST_DEFAULT,
        (last, _) => last.unwrap_or(1),
    };
    let keep_for = schedule.keep_days.map_or(Duration::ZERO, |days| {
        Duration::from_secs(u64::from(days) * 24 * 3600)
    });
    let place = schedule.target.place();
    let mut own: Vec<&SavedSnapshot> = snapshots
        .iter()
        .filter(|snapshot| snapshot.schedule == schedule.name && snapshot.place == place)
        .collect();
    own.sort_by(|one, other| {
        other
            .saved
            .cmp(&one.saved)
            .then_with(|| other.name.cmp(&one.name))
    });
    let old = own.into_iter().skip(keep_last as usize);
    old.filter(|snapshot| now.since(snapshot.saved) >= keep_for)
        .collect()
}

/// The name of the snapshot for `due`: the same whoever makes it.
pub fn name(cluster_id: &str, schedule: &str, due: Timestamp) -> String {
    let cluster: String = cluster_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    let moment: String = due
        .to_string()
        .chars()
        .filter(|letter| !matches!(letter, '-' | ':'))
        .collect();
    format!("trireme-{cluster}-{schedule}-{moment}.snapshot")
}

fn second_of_day(text: &str) -> Result<i64> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        Some(two_digits(hour, 24)? * 3600 + two_digits(minute, 60)? * 60)
    });
    match parsed {
        Some(second) => Ok(second),
        None => bail!("{text:?} is no time of day: write it as 03:00, in UTC"),
    }
}

fn two_digits(text: &str, below: i64) -> Option<i64> {
    let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_plain && *number < below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::snapshots::{SnapshotSeal, SnapshotTarget};

    fn schedule(every_seconds: Option<u64>, at: &[&str]) -> SnapshotSchedule {
        SnapshotSchedule {
            name: "s".into(),
            every_seconds,
            at: at.iter().map(|text| (*text).to_owned()).collect(),
            keep_last: None,
            keep_days: None,
            target: SnapshotTarget::Folder { path: "/b/".into() },
            verify: false,
            seal: SnapshotSeal::LeftOut,
        }
    }

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    #[test]
    fn every_six_hours_is_four_times_a_day() {
        let schedule = schedule(Some(6 * 3600), &[]);
        let now = time("2026-11-28T07:00:00Z");
        assert_eq!(next(&schedule, now), Some(time("2026-11-28T12:00:00Z")));
        let six = Some(time("2026-11-28T06:00:00Z"));
        assert_eq!(due(&schedule, time("2026-11-28T00:00:00Z"), None, now), six);
        assert_eq!(
            due(&schedule, time("2026-11-20T00:00:00Z"), None, now),
            six,
            "what was missed is made once"
        );
        assert_eq!(
            due(&schedule, time("2026-11-28T06:00:00Z"), None, now),
            None,
            "and not twice"
        );
        assert_eq!(
            due(&schedule, time("2026-11-28T06:30:00Z"), None, now),
            None,
            "a new schedule waits"
        );
        let later = Some(time("2026-11-28T07:00:01Z"));
        assert_eq!(
            due(&schedule, time("2026-11-28T00:00:00Z"), later, now),
            None,
            "a failed one waits"
        );
    }

    #[test]
    fn times_of_day_are_found_over_midnight() {
        let schedule = schedule(None, &["03:00", "22:30"]);
        assert_eq!(
            next(&schedule, time("2026-12-31T23:00:00Z")),
            Some(time("2027-01-01T03:00:00Z"))
        );
        let done = time("2026-12-31T03:00:00Z");
        let due = |now| due(&schedule, done, None, time(now));
        assert_eq!(due("2026-12-31T22:29:59Z"), None);
        assert_eq!(
            due("2027-01-01T01:00:00Z"),
            Some(time("2026-12-31T22:30:00Z"))
        );
    }

    #[test]
    fn wrong_times_are_told() {
        for at in ["3:00", "24:00", "03:60", "0300", "", "-1:00"] {
            assert!(check(&schedule(None, &[at])).is_err(), "{at}");
        }
        assert!(check(&schedule(None, &[])).is_err());
        assert!(check(&schedule(Some(4), &[])).is_err());
        assert!(check(&schedule(Some(3600), &["23:59"])).is_ok());
    }

    #[test]
    fn a_failure_is_tried_again_ever_later() {
        let now = time("2026-11-28T00:00:00Z");
        let waits =
            [1, 2, 3, 6, 7, 40].map(|failures| retry_at(failures, now).since(now).as_secs());
        assert_eq!(waits, [60, 120, 240, 1920, 3600, 3600]);
    }

    fn snapshots(times: &[&str]) -> Vec<SavedSnapshot> {
        let snapshot = |text: &&str| SavedSnapshot {
            name: (*text).to_owned(),
            schedule: "s".into(),
            place: "/b".into(),
            on: None,
            saved: time(&format!("2026-11-{text}T00:00:00Z")),
            cluster_id: "c".into(),
            revision: 1,
            bytes: 1,
            verified: false,
            keys: "left out".into(),
        };
        times.iter().map(snapshot).collect()
    }

    #[test]
    fn what_is_neither_new_nor_young_goes() {
        let mut schedule = schedule(Some(3600), &[]);
        let now = time("2026-11-28T00:00:00Z");
        let mut all = snapshots(&["20", "27", "21", "26", "25"]);
        let mut gone = |last, days| {
            (schedule.keep_last, schedule.keep_days) = (last, days);
            let gone = expired(&schedule, &all, now);
            gone.iter()
                .map(|snapshot| snapshot.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(gone(None, None), "");
        assert_eq!(gone(Some(2), None), "25 21 20");
        assert_eq!(
            gone(Some(2), Some(5)),
            "21 20",
            "young ones stay beyond the count"
        );
        assert_eq!(gone(Some(4), Some(1)), "20", "new ones stay beyond the age");
        assert_eq!(
            gone(None, Some(2)),
            "26 25 21 20",
            "no longer young at two days sharp"
        );
        all.retain(|snapshot| snapshot.name == "20");
        schedule.keep_days = Some(1);
        assert!(
            expired(&schedule, &all, now).is_empty(),
            "the last one stays"
        );
        schedule.target = SnapshotTarget::Folder {
            path: "/elsewhere".into(),
        };
        schedule.keep_last = Some(1);
        assert!(
            expired(&schedule, &snapshots(&["20", "27"]), now).is_empty(),
            "another place is not ours"
        );
    }

    #[test]
    fn a_name_tells_cluster_schedule_and_moment() {
        let name = name(
            "ccfaa8b8-83ed-4deb",
            "nightly",
            time("2026-11-28T03:00:00Z"),
        );
        assert_eq!(name, "trireme-ccfaa8b8-nightly-20261128T030000Z.snapshot");
    }
}
