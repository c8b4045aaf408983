//! `strftime_now` for templates: the date in UTC, by the directives that Python has for it.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
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

/// Now, written by a format.
pub(super) fn format_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Date::of(seconds).format(format)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// Of the year, from 1.
    day_of_year: u64,
    weekday: usize,
    second_of_day: u64,
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64) -> [u64; 12] {
    [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

impl Date {
    /// From seconds since 1970; beyond the year 9999 it stays there.
    fn of(seconds: u64) -> Date {
        let days = (seconds / 86_400).min(2_932_896);
        let (mut year, mut rest) = (1970, days);
        loop {
            let year_days = if is_leap(year) { 366 } else { 365 };
            if rest < year_days {
                break;
            }
            rest -= year_days;
            year += 1;
        }
        let day_of_year = rest + 1;
        let mut month = 0;
        for days in month_days(year) {
            if rest < days {
                break;
            }
            rest -= days;
            month += 1;
        }
        let weekday = ((days + 4) % 7) as usize;
        Date { year, month, day: rest + 1, day_of_year, weekday, second_of_day: seconds % 86_400 }
    }

    fn format(&self, format: &str) -> String {
        let mut text = String::with_capacity(format.len());
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            match characters.next() {
                // `%-d` is `%d` without zeros in front.
                Some('-') => {
                    let field = characters.next().map_or(String::new(), |directive| self.field(directive));
                    let short = field.trim_start_matches('0');
                    text.push_str(if short.is_empty() { "0" } else { short });
                }
                Some(directive) => text.push_str(&self.field(directive)),
                None => text.push('%'),
            }
        }
        text
    }

    fn field(&self, directive: char) -> String {
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let day_name = DAYS.get(self.weekday).copied().unwrap_or("");
        let month_name = MONTHS.get(self.month).copied().unwrap_or("");
        let short = |name: &str| name.get(..3).unwrap_or(name).to_owned();
        let hour_12 = if hour % 12 == 0 { 12 } else { hour % 12 };
        match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month + 1),
            'B' => month_name.to_owned(),
            'b' | 'h' => short(month_name),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'A' => day_name.to_owned(),
            'a' => short(day_name),
            'w' => self.weekday.to_string(),
            'H' => format!("{hour:02}"),
            'I' => format!("{hour_12:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => self.format("%Y-%m-%d"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'x' | 'D' => self.format("%m/%d/%y"),
            'R' => self.format("%H:%M"),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, format: &str, expected: &str) {
        assert_eq!(Date::of(seconds).format(format), expected);
    }

    #[test]
    fn dates_as_the_calendar_has_them() {
        check(0, "%A, %d %B %Y %H:%M:%S", "Thursday, 01 January 1970 00:00:00");
        check(951_782_400, "%Y-%m-%d %j %a", "2000-02-29 060 Tue");
        check(1_700_000_000, "%d %b %Y %I:%M %p", "14 Nov 2023 10:13 PM");
        check(1_735_689_599, "%F %T %-j", "2024-12-31 23:59:59 366");
        check(0, "100%% %Q %-d %", "100% %Q 1 %");
        check(u64::MAX, "%Y", "9999");
    }
}
