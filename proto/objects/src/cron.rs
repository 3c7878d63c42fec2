//! The schedules of CronJobs: five fields, or a word with `@`. Always in UTC; never asks for the present.
//! Rule: the format of `cron(5)` as Kubernetes takes it: lists, ranges, steps, names, and days of month and week of which
//! either suffices when both are given.

use crate::Timestamp;
use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A schedule: when something is due, minute by minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month, and of the week, were left open.
    any_day: bool,
    any_weekday: bool,
}

/// A text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write minute, hour, day of month, month and day of week, such as \"*/5 * * * *\"")]
pub struct ScheduleError(String);

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// Days that are looked at for the next time: a leap day comes at least every eight years.
const DAYS_MAX: i32 = 366 * 9;

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let word = WORDS.iter().find(|(word, _)| *word == text.trim());
        let text = word.map_or(text, |(_, fields)| fields);
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(ScheduleError(format!(
                "expected exactly 5 fields, found {}",
                fields.len()
            )));
        };
        let weekdays = field(weekday, 0, 7, &WEEKDAYS, 0)?;
        Ok(Schedule {
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            any_day: is_open(day),
            any_weekday: is_open(weekday),
        })
    }

    /// The first time after `time`; None when there is none within nine years, as on 30 February.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let zone = TimeZone::UTC;
        let start = time.0.to_zoned(zone.clone()).datetime();
        let start = start.with().second(0).subsec_nanosecond(0).build().ok()?;
        let start = start.checked_add(1.minute()).ok()?;
        let mut day = start;
        for _ in 0..DAYS_MAX {
            if self.takes_day(day)
                && let Some(found) = self.first_in_day(day)
            {
                return Some(Timestamp(found.to_zoned(zone).ok()?.timestamp()));
            }
            day = day.date().tomorrow().ok()?.at(0, 0, 0, 0);
        }
        None
    }

    fn takes_day(&self, time: DateTime) -> bool {
        let day = has(self.days, i64::from(time.day()));
        let weekday = has(
            self.weekdays,
            i64::from(time.weekday().to_sunday_zero_offset()),
        );
        let fits = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        fits && has(self.months, i64::from(time.month()))
    }

    /// The first time of the day at `from` or later.
    fn first_in_day(&self, from: DateTime) -> Option<DateTime> {
        let hours = (from.hour()..24).filter(|hour| has(self.hours, i64::from(*hour)));
        for hour in hours {
            let first = if hour == from.hour() {
                from.minute()
            } else {
                0
            };
            let minute = (first..60).find(|minute| has(self.minutes, i64::from(*minute)));
            if let Some(minute) = minute {
                return Some(from.date().at(hour, minute, 0, 0));
            }
        }
        None
    }
}

fn has(set: u64, number: i64) -> bool {
    set >> number & 1 == 1
}

fn is_open(text: &str) -> bool {
    matches!(text, "*" | "?")
}

/// The numbers of a field as bits.
fn field(
    text: &str,
    least: u32,
    most: u32,
    names: &[&str],
    first: u32,
) -> Result<u64, ScheduleError> {
    let wrong = |part: &str| ScheduleError(format!("failed to parse {part:?}"));
    let number = |word: &str| -> Result<u32, ScheduleError> {
        let named = names
            .iter()
            .position(|name| word.eq_ignore_ascii_case(name));
        let number = match named {
            Some(at) => u32::try_from(at).ok().map(|at| at + first),
            None => word.parse().ok(),
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| wrong(word))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (start, end) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (least, most),
            Some((start, end)) => (number(start)?, number(end)?),
            None if step.is_some() => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        let step = match step {
            None => 1,
            Some(step) => step.parse().map_err(|_| wrong(part))?,
        };
        if start > end || step == 0 {
            return Err(wrong(part));
        }
        for number in (start..=end).step_by(step) {
            set |= 1 << number;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let after = Timestamp::parse(after).expect("a time");
        schedule
            .next_after(after)
            .map_or("never".to_owned(), |time| time.to_string())
    }

    #[test]
    fn the_next_time_is_the_first_that_fits() {
        let cases = [
            (
                "*/5 * * * *",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:05:00Z",
            ),
            (
                "*/5 * * * *",
                "2026-01-01T00:04:59Z",
                "2026-01-01T00:05:00Z",
            ),
            ("0 0 * * *", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            (
                "30 6 * * MON-FRI",
                "2026-01-02T07:00:00Z",
                "2026-01-05T06:30:00Z",
            ),
            (
                "0 12 1,15 * *",
                "2026-01-02T00:00:00Z",
                "2026-01-15T12:00:00Z",
            ),
            // Either day suffices: the 13th, and every Friday.
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 feb *", "2026-01-01T00:00:00Z", "never"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            (
                "10-20/5 22 31 12 ?",
                "2026-01-01T00:00:00Z",
                "2026-12-31T22:10:00Z",
            ),
            ("@hourly", "2026-01-01T23:10:00Z", "2026-01-02T00:00:00Z"),
            ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@often",
            "* * * * * *",
            "-1 * * * *",
            "1- * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn times_only_go_forward(minute in 0u8..60, step in 1u8..60, hour in 0u8..24, seconds in 0i64..4_000_000_000) {
            let schedule = Schedule::parse(&format!("{minute},*/{step} {hour} * * *")).expect("a schedule");
            let after = Timestamp::from_unix(seconds);
            let next = schedule.next_after(after).expect("a time");
            prop_assert!(next > after);
            prop_assert!(next.since(after).as_secs() <= 25 * 3600);
            prop_assert_eq!(next.unix_ms() % 60_000, 0);
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = Schedule::parse(&text);
        }
    }
}
