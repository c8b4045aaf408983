//! Reads the list of claims: Markdown tables, one per `## area`.
//!
//! ```text
//! ## main
//!
//! | name | claim | bound | command | last figure | date, machine |
//! |---|---|---|---|---|---|
//! | decode-speed | ... | `>= 0.6` | `cargo xtask claim ...` | not yet run | |
//! ```

use std::fmt;

use anyhow::{Context, Result, bail};

/// A row of the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    /// The heading above.
    pub(super) area: String,
    /// Unique in the list.
    pub(super) name: String,
    /// In words.
    pub(super) claim: String,
    /// What the value must keep to.
    pub(super) bound: Bound,
    /// How the value is measured.
    pub(super) command: String,
}

/// A comparison with a number, and the unit of both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    relation: Relation,
    limit: f64,
    unit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    Exactly,
}

impl Bound {
    /// Reads `>= 0.6`, `<= 0.5 %` or `= 0`.
    fn parse(text: &str) -> Result<Bound> {
        let text = text.trim();
        let forms = [(">=", Relation::AtLeast), ("<=", Relation::AtMost), ("=", Relation::Exactly)];
        for (sign, relation) in forms {
            if let Some(rest) = text.strip_prefix(sign) {
                let rest = rest.trim();
                let (number, unit) = rest.split_once(' ').unwrap_or((rest, ""));
                let limit = number.parse().with_context(|| format!("bound `{text}` has no number"))?;
                return Ok(Bound { relation, limit, unit: unit.trim().to_owned() });
            }
        }
        bail!("bound `{text}` starts with none of >=, <=, =")
    }

    /// True if the value keeps to it. A value that is no number keeps to nothing.
    pub(super) fn holds(&self, value: f64) -> bool {
        match self.relation {
            Relation::AtLeast => value >= self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::Exactly => value == self.limit,
        }
    }

    /// The unit that a value is shown with.
    pub(super) fn unit(&self) -> &str {
        &self.unit
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::AtLeast => ">=",
            Relation::AtMost => "<=",
            Relation::Exactly => "=",
        };
        f.pad(format!("{sign} {} {}", self.limit, self.unit).trim_end())
    }
}

/// Reads the whole list.
///
/// # Errors
/// If a row has the wrong number of cells, a bound is unreadable or a name is used twice.
pub(super) fn parse(text: &str) -> Result<Vec<Claim>> {
    let mut claims: Vec<Claim> = Vec::new();
    let mut area = String::new();
    let mut in_list = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            area = heading.trim().trim_matches('`').to_owned();
        }
        let cells = cells(line);
        match cells.as_deref() {
            None => in_list = false,
            Some([first, ..]) if first == "name" => in_list = true,
            Some([first, ..]) if !in_list || first.starts_with("--") => {}
            Some([name, claim, bound, command, _, _]) => {
                let row = || format!("claims list, line {}", index + 1);
                if claims.iter().any(|known| known.name == *name) {
                    bail!("{}: `{name}` is there twice", row());
                }
                claims.push(Claim {
                    area: area.clone(),
                    name: name.clone(),
                    claim: claim.clone(),
                    bound: Bound::parse(bound).with_context(row)?,
                    command: command.clone(),
                });
            }
            Some(cells) => bail!("claims list, line {}: {} cells, expected 6", index + 1, cells.len()),
        }
    }
    Ok(claims)
}

/// The cells of a table row, code marks removed, or `None` for another line.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().trim_matches('`').trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::{Bound, parse};

    fn check(bound: &str, value: f64, holds: bool) {
        assert_eq!(Bound::parse(bound).unwrap().holds(value), holds, "{bound} {value}");
    }

    #[test]
    fn bounds_compare() {
        check(">= 0.6", 0.6, true);
        check(">= 0.6", 0.59, false);
        check("<= 0.5 %", 0.5, true);
        check("= 0", 0.0, true);
        check("= 0", 1.0, false);
        check("<= 1", f64::NAN, false);
    }

    #[test]
    fn a_bound_is_shown_as_written() {
        assert_eq!(Bound::parse("<=  0.5 %").unwrap().to_string(), "<= 0.5 %");
        assert!(Bound::parse("0.5").is_err());
        assert!(Bound::parse(">= many").is_err());
    }

    #[test]
    fn rows_belong_to_the_heading_above() {
        let text = "# Claims\n\n| field | meaning |\n|---|---|\n| a | b |\n\n## main\n\n\
            | name | claim | bound | command | last figure | date, machine |\n|---|---|---|---|---|---|\n\
            | fast | It is fast | `>= 0.6` | `cargo xtask claim bench` | not yet run | |\n\n## vulkan\n";
        let claims = parse(text).unwrap();
        assert_eq!(claims.len(), 1);
        assert_eq!((claims[0].area.as_str(), claims[0].name.as_str()), ("main", "fast"));
        assert_eq!(claims[0].command, "cargo xtask claim bench");
        assert!(parse(&text.replace("| not yet run ", "")).is_err());
    }

    #[test]
    fn the_projects_own_list_is_readable() {
        let text = std::fs::read_to_string(crate::workspace::root().join("docs/src/claims.md")).unwrap();
        assert!(parse(&text).unwrap().iter().any(|claim| claim.area == "main"));
    }
}
