//! Random numbers without state: a hash of (seed, position).
//!
//! The mixer is SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", 2014), which 64-bit and paired 32-bit arithmetic on any device can compute alike.

/// A number in `0.0..1.0` with 24 random bits, the same for the same arguments everywhere.
pub fn uniform(seed: u64, position: u64) -> f32 {
    let bits = mix(mix(seed) ^ position.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (bits >> 40) as f32 / (1u64 << 24) as f32
}

const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{mix, uniform};

    #[test]
    fn the_mixer_is_splitmix64() {
        // First output of the published generator seeded with 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn numbers_fill_the_interval_evenly() {
        let mut counts = [0u32; 10];
        for position in 0..100_000 {
            let drawn = uniform(3, position);
            assert!((0.0..1.0).contains(&drawn));
            counts[(drawn * 10.0) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}
