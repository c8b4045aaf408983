//! Counts of tests and the closing table.

use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// That passed.
    pub(crate) passed: u64,
    /// That failed.
    pub(crate) failed: u64,
    /// That were passed over.
    pub(crate) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Counts {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
    /// Tests that a filter left out are not counted.
    pub(crate) fn from_result_line(line: &str) -> Option<Counts> {
        let (_, fields) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Counts::default();
        for field in fields.split(';') {
            match field.trim().split_once(' ') {
                Some((number, "passed")) => counts.passed = number.parse().ok()?,
                Some((number, "failed")) => counts.failed = number.parse().ok()?,
                Some((number, "ignored")) => counts.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(counts)
    }
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Well.
    Ok,
    /// Not; in one or more lines.
    Failed(String),
    /// It could not run on this machine.
    Skipped(String),
}

/// A step in the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) counts: Counts,
    pub(super) seconds: f64,
}

impl Row {
    /// The row as text.
    pub(super) fn headline(&self) -> String {
        let (word, detail) = match &self.state {
            State::Ok => ("ok", ""),
            State::Failed(reason) => ("FAILED", reason.lines().next().unwrap_or("")),
            State::Skipped(reason) => ("skipped", reason.lines().next().unwrap_or("")),
        };
        let tests = match self.counts {
            Counts { passed: 0, failed: 0, skipped: 0 } => String::new(),
            counts => format!("{} tests", counts.passed + counts.failed),
        };
        format!("{:<16} {word:<8} {:>7.1} s  {tests:<11} {detail}", self.name, self.seconds).trim_end().to_owned()
    }

    fn counted(&self) -> Counts {
        let mut counts = self.counts;
        match self.state {
            State::Failed(_) if counts.failed == 0 => counts.failed = 1,
            State::Skipped(_) => counts.skipped += 1,
            _ => {}
        }
        counts
    }
}

/// Prints the table and the closing line; returns the sums.
pub(super) fn print(rows: &[Row]) -> Counts {
    println!("\n== summary ==");
    let mut total = Counts::default();
    let mut seconds = 0.0;
    for row in rows {
        println!("{}", row.headline());
        if let State::Failed(reason) = &row.state {
            for line in reason.lines().skip(1) {
                println!("    {line}");
            }
        }
        total += row.counted();
        seconds += row.seconds;
    }
    println!("{:<16} {:<8} {seconds:>7.1} s\n", "all", "");
    println!("{}", closing_line(total));
    total
}

fn closing_line(total: Counts) -> String {
    let mut line = format!("{} passed, {} failed", total.passed, total.failed);
    if total.skipped > 0 {
        line.push_str(&format!(", {} skipped", total.skipped));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Counts, Row, State, closing_line};

    fn check(line: &str, expected: Option<(u64, u64, u64)>) {
        let expected = expected.map(|(passed, failed, skipped)| Counts { passed, failed, skipped });
        assert_eq!(Counts::from_result_line(line), expected);
    }

    #[test]
    fn result_lines_are_read() {
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s",
            Some((12, 0, 1)),
        );
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", Some((3, 2, 0)));
        check("test sample::greedy ... ok", None);
    }

    #[test]
    fn a_failed_step_without_tests_counts_one() {
        let row = Row {
            name: "fmt",
            state: State::Failed("not formatted".into()),
            counts: Counts { passed: 5, failed: 0, skipped: 0 },
            seconds: 0.1,
        };
        assert_eq!(closing_line(row.counted()), "5 passed, 1 failed");
        let row = Row { state: State::Skipped("no root".into()), ..row };
        assert_eq!(closing_line(row.counted()), "5 passed, 0 failed, 1 skipped");
    }
}
