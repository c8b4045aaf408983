//! Sizes and durations as people write and read them.

pub(crate) use biga::size::bytes;

/// Reads `8G`, `512MiB`, `1.5g`, `1000000`: powers of 1024, as memory is counted.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("{text:?} is no size; write a number with K, M, G or T, for example 8G")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?} is no size; write a number with K, M, G or T, for example 8G"))?;
    let bytes = number * (1_u64 << shift) as f64;
    if !(1.0..=(1_u64 << 50) as f64).contains(&bytes) {
        return Err(format!("{text:?} is outside 1 byte to 1024 TiB"));
    }
    Ok(bytes as u64)
}

/// `12.3 GB/s` for 12.3e9 and `B/s`: powers of 1000, as rates are counted.
pub(crate) fn rate(value: f64, unit: &str) -> String {
    let (scaled, prefix) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{scaled:.1} {prefix}{unit}")
}

/// `4.2 ms`.
pub(crate) fn seconds(value: f64) -> String {
    match value.abs() {
        v if v >= 1.0 => format!("{value:.2} s"),
        v if v >= 1e-3 => format!("{:.2} ms", value * 1e3),
        v if v >= 1e-6 => format!("{:.1} us", value * 1e6),
        _ => format!("{:.0} ns", value * 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_bytes, rate, seconds};

    #[test]
    fn sizes_are_read() {
        for (text, value) in [("8G", 8 << 30), ("1.5g", 3 << 29), ("512 MiB", 512 << 20), ("1000000", 1_000_000)] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for text in ["", "G", "-1G", "8X", "nan", "1e9", "0", "99999999T", "1.2.3G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_shown() {
        assert_eq!((rate(1.23e10, "B/s"), rate(5.0, "B/s")), ("12.3 GB/s".to_owned(), "5.0 B/s".to_owned()));
        assert_eq!((seconds(0.0042), seconds(3.0)), ("4.20 ms".to_owned(), "3.00 s".to_owned()));
    }
}
