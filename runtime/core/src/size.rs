//! Sizes of memory as people read them. Errors and tables for people use it; JSON has bytes.

/// `93.5 MiB`: powers of 1024, as memory is counted.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `12.5 MiB needed, 11.5 MiB more than the 1.0 MiB available`: two sizes that differ by little look the same
/// when rounded.
pub(crate) fn shortage(needed_bytes: u64, available_bytes: u64) -> String {
    let more = bytes(needed_bytes.saturating_sub(available_bytes));
    format!("{} needed, {more} more than the {} available", bytes(needed_bytes), bytes(available_bytes))
}

#[cfg(test)]
mod tests {
    use super::{bytes, shortage};

    #[test]
    fn sizes_are_shown() {
        assert_eq!((bytes(1023), bytes(98 << 20)), ("1023 B".to_owned(), "98.0 MiB".to_owned()));
        assert_eq!(bytes(5 << 39), "2.5 TiB");
        assert_eq!(shortage((8 << 30) + (1 << 20), 8 << 30), "8.0 GiB needed, 1.0 MiB more than the 8.0 GiB available");
    }
}
