//! Logarithm, exponential and noise whose every bit is the same on every device: sums and products of f32 in a
//! fixed order, none of them fused, and no subnormal among them.
//!
//! The polynomials are those of the Cephes library's `logf` and `expf` (Moshier, 1989).

/// Natural logarithm of a positive, normal number.
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = m · 2^e with m from 1/2 on below 1, then from √½ on below √2.
    let m = f32::from_bits((bits & 0x007F_FFFF) | 0x3F00_0000);
    let e = (bits >> 23) as i32 - 126;
    let (e, f) = if m < std::f32::consts::FRAC_1_SQRT_2 { ((e - 1) as f32, m + m - 1.0) } else { (e as f32, m - 1.0) };
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let z = f * f;
    let p = P.iter().skip(1).fold(P[0], |p, c| p * f + c);
    let y = p * f * z + e * -2.121_944_4e-4 - 0.5 * z;
    f + y + e * 0.693_359_4
}

/// The exponential of a number up to 0; below -87 that of -87.
pub(super) fn exp(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    const P: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let p = P.iter().skip(1).fold(P[0], |p, c| p * r + c);
    let y = p * (r * r) + r + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output of SplitMix64 from a state (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
const fn mix(state: u64) -> u64 {
    let value = state.wrapping_add(GOLDEN);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The noise of all tokens at one position: numbers of the standard Gumbel distribution, each a function of
/// seed, position and token, so that a retried or speculated position draws the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    /// More than any noise.
    pub(super) const MAX: f32 = 16.75;

    pub(super) fn new(seed: u64, position: u32) -> Noise {
        Noise(mix(mix(seed) ^ u64::from(position).wrapping_mul(GOLDEN)))
    }

    pub(super) fn of(self, token: u32) -> f32 {
        let bits = mix(self.0.wrapping_add(u64::from(token).wrapping_mul(GOLDEN)));
        // 23 bits and a half are exact, and neither 0 nor 1.
        let uniform = ((bits >> 41) as f32 + 0.5) * (1.0 / 8_388_608.0);
        -ln(-ln(uniform))
    }
}

#[cfg(test)]
mod tests {
    use super::{Noise, exp, ln, mix};

    #[test]
    fn the_mixer_is_splitmix64() {
        // First output of the published generator seeded with 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn logarithm_and_exponential_are_right_to_the_last_bits() {
        let near = |seen: f32, expected: f64, ulps: f64| {
            let bound = ulps * f64::from(f32::EPSILON) * expected.abs();
            assert!((f64::from(seen) - expected).abs() <= bound, "{seen} where {expected:e} was expected");
        };
        for i in 0..200_000_u32 {
            let x = f32::from_bits(0x0080_0000 + i * 10_000);
            near(ln(x), f64::from(x).ln(), 1.5);
            let x = (i as f32 + 0.5) / 200_000.0;
            near(ln(x), f64::from(x).ln(), 1.5);
            near(exp(-87.0 * x), f64::from(-87.0 * x).exp(), 1.5);
        }
        assert_eq!((ln(1.0), exp(0.0)), (0.0, 1.0));
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
    }

    #[test]
    fn noise_has_the_distribution_of_gumbel() {
        const N: u32 = 200_000;
        let noise = Noise::new(3, 9);
        let mut below = [0_u32; 9];
        let mut sum = 0.0;
        for token in 0..N {
            let drawn = noise.of(token);
            assert!(drawn.is_finite() && drawn < Noise::MAX);
            sum += f64::from(drawn);
            let first = (f64::from(drawn) + 2.0).max(0.0).ceil() as usize;
            below.iter_mut().skip(first).for_each(|n| *n += 1);
        }
        for (i, &n) in below.iter().enumerate() {
            let expected = (-(-(i as f64 - 2.0)).exp()).exp();
            let seen = f64::from(n) / f64::from(N);
            assert!(
                (seen - expected).abs() < 0.004,
                "P(noise <= {}) is {seen}, {expected} was expected",
                i as f64 - 2.0
            );
        }
        // Euler's constant is the mean.
        assert!((sum / f64::from(N) - 0.577).abs() < 0.01);
    }

    #[test]
    fn the_largest_noise_is_below_its_bound() {
        // One less than half a step below 1.
        let most = -ln(-ln(1.0 - 0.5 / 8_388_608.0));
        assert!(most > 16.6 && most < Noise::MAX, "{most}");
    }
}
