//! Bounds of what a file may say of a model. They are far above every published model and far below what
//! would overflow or allocate out of proportion.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use biga_hal::Heads;

use super::{Family, LoadError};

pub(super) const MAX_LAYERS: u64 = 1 << 10;
pub(super) const MAX_WIDTH: u64 = 1 << 20;
pub(super) const MAX_HEADS: u64 = 1 << 10;
pub(super) const MAX_HEAD_DIM: u64 = 1 << 10;
pub(super) const MAX_VOCAB: u64 = 1 << 22;
pub(super) const MAX_CONTEXT: u64 = 1 << 27;

pub(super) fn out_of_bounds(key: &str, value: impl ToString, bound: impl Into<String>) -> LoadError {
    LoadError::OutOfBounds { key: key.to_owned(), value: value.to_string(), bound: bound.into() }
}

pub(super) fn unsupported(what: &str, value: impl ToString, supported: &str) -> LoadError {
    LoadError::Unsupported { what: what.to_owned(), value: value.to_string(), supported: supported.to_owned() }
}

pub(super) fn unknown_family(found: &str) -> LoadError {
    let supported = Family::ALL.map(Family::name).join(", ");
    LoadError::UnknownFamily { found: found.to_owned(), supported }
}

/// A count from 1 to `max`.
pub(super) fn count(key: &str, value: u64, max: u64) -> Result<usize, LoadError> {
    match usize::try_from(value) {
        Ok(count) if (1..=max).contains(&value) => Ok(count),
        _ => Err(out_of_bounds(key, value, format!("must be from 1 to {max}"))),
    }
}

/// A finite number above zero that stays so as f32.
pub(super) fn positive(key: &str, value: f64) -> Result<f32, LoadError> {
    within(key, value, f64::from(f32::MIN_POSITIVE), 1e30)
}

/// A rotary base. Below 1 the frequencies would grow instead of falling, at last to infinity.
pub(super) fn rope_base(key: &str, value: f64) -> Result<f32, LoadError> {
    within(key, value, 1.0, 1e12)
}

/// A divisor of frequencies.
pub(super) fn rope_factor(key: &str, value: f64) -> Result<f32, LoadError> {
    within(key, value, 1e-3, 1e6)
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<f32, LoadError> {
    if (low..=high).contains(&value) {
        return Ok(value as f32);
    }
    Err(out_of_bounds(key, format!("{value:?}"), format!("must be from {low:?} to {high:?}")))
}

/// Head geometry, each part already within its own bounds.
pub(super) fn heads(
    (n_heads_key, n_heads): (&str, usize),
    (n_kv_heads_key, n_kv_heads): (&str, usize),
    (head_dim_key, head_dim): (&str, usize),
) -> Result<Heads, LoadError> {
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(out_of_bounds(
            n_kv_heads_key,
            n_kv_heads,
            format!("must divide {n_heads_key}, which is {n_heads}"),
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(out_of_bounds(head_dim_key, head_dim, "must be even, as rotation works on pairs"));
    }
    Ok(Heads { n_heads, n_kv_heads, head_dim })
}

/// The head size that follows from the width where the file states none.
pub(super) fn implied_head_dim(
    (hidden_key, hidden): (&str, usize),
    (n_heads_key, n_heads): (&str, usize),
) -> Result<usize, LoadError> {
    match hidden.checked_div(n_heads) {
        Some(head_dim) if head_dim > 0 && hidden.is_multiple_of(n_heads) => Ok(head_dim),
        _ => Err(out_of_bounds(n_heads_key, n_heads, format!("must divide {hidden_key}, which is {hidden}"))),
    }
}
