//! The date, as chat templates ask for it: `strftime_now("%d %b %Y")`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The time now in UTC, in the words of C's `strftime`; `None` for a directive that is not known.
pub(super) fn strftime_now(format: &str) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    strftime(format, now)
}

/// A time in seconds since 1970, UTC.
fn strftime(format: &str, unix_s: u64) -> Option<String> {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day, day_of_year) = date(days);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[(days % 7) as usize]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let hour_of_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let written = match letters.next()? {
            'Y' => write!(out, "{year}"),
            'y' => write!(out, "{:02}", year % 100),
            'm' => write!(out, "{month:02}"),
            'd' => write!(out, "{day:02}"),
            'e' => write!(out, "{day:2}"),
            'j' => write!(out, "{day_of_year:03}"),
            'B' => write!(out, "{month_name}"),
            'b' | 'h' => write!(out, "{}", &month_name[..3]),
            'A' => write!(out, "{day_name}"),
            'a' => write!(out, "{}", &day_name[..3]),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{hour_of_12:02}"),
            'p' => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            'F' => write!(out, "{year}-{month:02}-{day:02}"),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'Z' => write!(out, "UTC"),
            'z' => write!(out, "+0000"),
            '%' => write!(out, "%"),
            '-' => match letters.next()? {
                'd' => write!(out, "{day}"),
                'm' => write!(out, "{month}"),
                'H' => write!(out, "{hour}"),
                'I' => write!(out, "{hour_of_12}"),
                _ => return None,
            },
            _ => return None,
        };
        written.ok()?;
    }
    Some(out)
}

/// Year, month, day, day of the year of a day since 1970.
fn date(days: u64) -> (u64, usize, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(is_leap(year)) {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = rest + 1;
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month + 1, rest + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "%A %d %B %Y %H:%M:%S", "Thursday 01 January 1970 00:00:00"),
            (951_782_400, "%d %b %Y %j", "29 Feb 2000 060"),
            (1_735_689_599, "%F %T %p %I", "2024-12-31 23:59:59 PM 11"),
            (1_735_689_600, "%a %-d/%-m/%y 100%%", "Wed 1/1/25 100%"),
        ];
        for (unix_s, format, expected) in table {
            assert_eq!(strftime(format, unix_s).as_deref(), Some(expected), "{format} at {unix_s}");
        }
        assert_eq!(strftime("%Q", 0), None);
    }
}
