//! Values as people write them: ranges of tasks, durations, and budgets that may be `none`.
//!
//! Pure. A range is half-open, as in Rust; since other tools count the end in, the answer to `create` says in words what
//! was understood. Tested in this file.

use std::time::Duration;

use crate::limits;
use crate::types::Tasks;

/// A value, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

/// Reads `30s`, `5m`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 5m or 1h30m"))
}

/// Reads a duration or `none`.
pub(crate) fn duration_or_none(text: &str) -> Result<OrNone<Duration>, String> {
    or_none(text, duration)
}

/// Reads a number or `none`.
pub(crate) fn count_or_none(text: &str) -> Result<OrNone<u32>, String> {
    or_none(text, |text| match text.parse::<u32>() {
        Ok(0) => Err("must be at least 1, or none".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("a number of 1 to {}, or none", u32::MAX)),
    })
}

fn or_none<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<OrNone<T>, String> {
    if text.eq_ignore_ascii_case("none") { Ok(OrNone(None)) } else { read(text).map(|value| OrNone(Some(value))) }
}

/// Whole milliseconds; an absurdly long time saturates and fails the check of its bound.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `0..1000`: the tasks from the first number on, the second not among them. Digits may be grouped: `0..1_000`.
pub(crate) fn range(text: &str) -> Result<Tasks, String> {
    const FORM: &str = "a range is FIRST..END without its end: 0..1000 is the 1,000 tasks 0 … 999";
    let (first, end) = text.split_once("..").ok_or(FORM)?;
    if end.starts_with('=') {
        return Err(FORM.to_owned());
    }
    let number = |digits: &str| {
        let plain = digits.trim().replace('_', "");
        // `parse` would take a sign.
        if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM.to_owned());
        }
        plain.parse::<u64>().map_err(|_| format!("{digits} is too large: task numbers stay below 2^63"))
    };
    let (first, end) = (number(first)?, number(end)?);
    if end > 1 << 63 {
        return Err(format!("{end} is too large: task numbers stay below 2^63"));
    }
    if end <= first {
        return Err(format!("{text} has no tasks in it; {FORM}"));
    }
    match u32::try_from(end - first) {
        Ok(count) if count <= limits::TASKS_MAX => Ok(Tasks::Range { first, count }),
        Ok(_) | Err(_) => {
            Err(format!("{text} has {} tasks; a campaign has at most {}", end - first, limits::TASKS_MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_their_end_out() {
        assert_eq!(range("0..1000"), Ok(Tasks::Range { first: 0, count: 1_000 }));
        assert_eq!(range("5..1_005"), Ok(Tasks::Range { first: 5, count: 1_000 }));
        assert_eq!(range("0..1_000_000_000"), Ok(Tasks::Range { first: 0, count: 1_000_000_000 }));
        let last = (1_u64 << 63) - 1;
        assert_eq!(range(&format!("{last}..{}", 1_u64 << 63)), Ok(Tasks::Range { first: last, count: 1 }));
        for bad in [
            "",
            "..",
            "1..",
            "..5",
            "5",
            "1-3",
            "0..=9",
            "3..3",
            "5..1",
            "-1..4",
            "+1..4",
            "a..b",
            "0x1..9",
            "0..1e3",
            "0..1_000_000_001",
            "0..99999999999999999999",
            "9223372036854775808..9223372036854775809",
        ] {
            assert!(range(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn durations_need_a_unit_and_may_be_none() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration_or_none("none"), Ok(OrNone(None)));
        assert_eq!(duration_or_none("250ms"), Ok(OrNone(Some(Duration::from_millis(250)))));
        assert!(duration("10").is_err());
        assert!(duration("").is_err());
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn budgets_are_positive_or_none() {
        assert_eq!(count_or_none("3"), Ok(OrNone(Some(3))));
        assert_eq!(count_or_none("NONE"), Ok(OrNone(None)));
        assert!(count_or_none("0").is_err());
        assert!(count_or_none("-1").is_err());
    }
}
