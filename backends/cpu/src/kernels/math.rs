//! Elementary functions that the compiler can turn into vector code: no calls, no branches.

/// `a * b + c`, fused where the instruction set has it; without it a fused product is a slow call.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Added to a number below 2²² it leaves the nearest integer in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `e^x` within 2 units in the last place; 0 below -87, infinity above 88.7.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let shifted = fma::<FUSED>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FUSED>(n, -LN2_HIGH, clamped);
    let r = fma::<FUSED>(n, -LN2_LOW, r);
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<FUSED>(p, r, c);
    }
    // The integer stands in the low bits of `shifted`; as an exponent it multiplies by 2ⁿ.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    let y = p * power;
    let y = if x < -87.0 { 0.0 } else { y };
    if x > 88.0 { f32::INFINITY } else { y }
}

/// `tanh(x)`.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    // Near zero the quotient would lose digits: the odd Taylor terms are exact enough there.
    let square = x * x;
    let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (exp::<FUSED>(2.0 * x) + 1.0);
    if square < 0.04 { near } else { far }
}

/// An IEEE half, from its bits.
#[inline(always)]
pub(crate) fn half(bits: u16) -> f32 {
    let magnitude = (u32::from(bits) & 0x7FFF) << 13;
    // Moves the exponent from a bias of 15 to one of 127; exact for subnormal halves too.
    let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let value = if magnitude >= 0x0F80_0000 { magnitude | 0x7F80_0000 } else { finite };
    f32::from_bits(value | (u32::from(bits) & 0x8000) << 16)
}

/// Largest of sixteen.
#[inline(always)]
pub(crate) fn largest(mut x: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            x[i] = if x[i] > x[i + width] { x[i] } else { x[i + width] };
        }
    }
    x[0]
}

/// Sum of sixteen.
#[inline(always)]
pub(crate) fn sum(mut x: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            x[i] += x[i + width];
        }
    }
    x[0]
}

#[cfg(test)]
mod tests {
    use super::{exp, half, tanh};

    #[test]
    fn exp_and_tanh_are_close_to_the_library() {
        for i in -100_000..100_000_i32 {
            let x = i as f32 * 9e-4;
            let (e, t) = (exp::<false>(x), tanh::<false>(x));
            let wanted = if x < -87.0 { 0.0 } else { x.exp() };
            assert!((e - wanted).abs() <= 3e-7 * wanted || e == wanted || x > 88.0, "exp({x}) = {e}, not {wanted}");
            assert!((t - x.tanh()).abs() <= 1e-6 * x.tanh().abs(), "tanh({x}) = {t}, not {}", x.tanh());
        }
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<false>(0.0), 1.0);
    }

    #[test]
    fn every_half_converts_exactly() {
        for bits in 0..=u16::MAX {
            let wanted = half::f16::from_bits(bits).to_f32();
            let seen = half(bits);
            assert!(seen == wanted || seen.is_nan() && wanted.is_nan(), "{bits:#06x}: {seen}, not {wanted}");
        }
    }
}
