//! What came of the cases.

use std::fmt;

/// A case that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The case.
    pub case: String,
    /// What was seen and what was wanted.
    pub cause: String,
}

/// What came of the cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Cases that agreed.
    pub passed: Vec<String>,
    /// Cases that the device says it cannot run, each with its words.
    pub unsupported: Vec<(String, String)>,
    /// Cases that went wrong.
    pub failed: Vec<Failure>,
}

impl Report {
    /// Takes another report's cases in.
    pub fn append(&mut self, mut other: Report) {
        self.passed.append(&mut other.passed);
        self.unsupported.append(&mut other.unsupported);
        self.failed.append(&mut other.failed);
    }

    /// Enters the outcome of a case.
    pub(crate) fn enter(&mut self, case: impl Into<String>, outcome: Result<(), String>) {
        let case = case.into();
        match outcome {
            Ok(()) => self.passed.push(case),
            Err(cause) => self.failed.push(Failure { case, cause }),
        }
    }

    /// Prints the report and panics unless every case agreed or is not supported, and at least one agreed.
    ///
    /// # Panics
    /// If a case failed, or none passed.
    pub fn assert_passed(&self) {
        println!("{self}");
        assert!(self.failed.is_empty(), "{} of {} cases failed", self.failed.len(), self.total());
        assert!(!self.passed.is_empty(), "no case ran: {} unsupported", self.unsupported.len());
    }

    fn total(&self) -> usize {
        self.passed.len() + self.unsupported.len() + self.failed.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failure { case, cause } in &self.failed {
            writeln!(f, "failed       {case}: {cause}")?;
        }
        for (case, cause) in &self.unsupported {
            writeln!(f, "unsupported  {case}: {cause}")?;
        }
        let (passed, unsupported, failed) = (self.passed.len(), self.unsupported.len(), self.failed.len());
        write!(f, "{passed} passed, {unsupported} unsupported, {failed} failed")
    }
}
