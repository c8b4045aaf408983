//! When and under which uuid a package is made.

use std::time::SystemTime;

use xclbin_tools::{axlf::Uuid, package::Stamp};

use super::exit::usage;

/// The uuid that was given, else a random one, and the time of [`seconds`].
///
/// # Errors
/// As [`seconds`].
pub(crate) fn stamp(given: Option<Uuid>) -> anyhow::Result<Stamp> {
    Ok(Stamp { uuid: given.unwrap_or_else(random), time: seconds()? })
}

/// A uuid that no other package has.
pub(crate) fn random() -> Uuid {
    Uuid(uuid::Uuid::new_v4().into_bytes())
}

/// SOURCE_DATE_EPOCH where it is set (<https://reproducible-builds.org/docs/source-date-epoch/>), else the clock,
/// in seconds since 1970.
///
/// # Errors
/// A variable that is no number.
pub(crate) fn seconds() -> anyhow::Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            text.parse().map_err(|_| usage(format!("SOURCE_DATE_EPOCH is {text:?}: seconds since 1970 are expected")))
        }
        _ => Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    }
}

/// For options of the command line.
///
/// # Errors
/// What is no uuid.
pub(crate) fn parse_uuid(text: &str) -> Result<Uuid, String> {
    Uuid::parse(text).ok_or_else(|| "32 hexadecimal digits are expected".to_owned())
}
