//! Functions of 16 lanes at once.

use crate::isa::Isa;

/// eˣ, to 2 units in the last place. 0 below −87.7; the value at 88 above 88.
#[inline(always)]
pub(in crate::kernels) unsafe fn exp<I: Isa>(x: I::F32) -> I::F32 {
    // eˣ = 2ⁿ·eʳ with n = round(x / ln 2) and |r| <= ln 2 / 2; ln 2 in two parts, so that r keeps its low bits.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // eʳ = 1 + r + r²·P(r): P interpolates at Chebyshev nodes, relative error of eʳ 1e-8.
    const P: [f32; 5] = [0.5, 0.166_665_78, 0.041_666_556, 0.008_363_173, 0.001_392_617_6];
    // SAFETY: the caller runs where the processor has the set.
    unsafe {
        let x = I::min(I::max(x, I::splat(-88.0)), I::splat(88.0));
        let n = I::round(I::mul(x, I::splat(std::f32::consts::LOG2_E)));
        let r = I::fma(n, I::splat(-LN_2_LOW), I::fma(n, I::splat(-LN_2_HIGH), x));
        let mut p = I::splat(P[4]);
        p = I::fma(p, r, I::splat(P[3]));
        p = I::fma(p, r, I::splat(P[2]));
        p = I::fma(p, r, I::splat(P[1]));
        p = I::fma(p, r, I::splat(P[0]));
        let tail = I::fma(I::mul(r, r), p, r);
        I::scale_by_power_of_two(I::add(tail, I::splat(1.0)), n)
    }
}

/// x / (1 + e⁻ˣ)
#[inline(always)]
pub(in crate::kernels) unsafe fn silu<I: Isa>(x: I::F32) -> I::F32 {
    // SAFETY: the caller runs where the processor has the set.
    unsafe { I::div(x, I::add(I::splat(1.0), exp::<I>(I::sub(I::splat(0.0), x)))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{LANES, portable::Portable};

    fn lanes_of(f: impl Fn([f32; LANES]) -> [f32; LANES], x: f32) -> f64 {
        f64::from(f([x; LANES])[5])
    }

    #[test]
    fn exp_is_close_over_its_range() {
        for step in -8766..8800 {
            let x = step as f32 / 100.0 + 0.001_7;
            // SAFETY: plain Rust.
            let got = lanes_of(|v| unsafe { exp::<Portable>(v) }, x);
            let want = f64::from(x).exp();
            // Half a unit each from the polynomial's last operations, one from r.
            assert!((got / want - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "exp({x}) = {got}, not {want}");
        }
    }

    #[test]
    fn exp_ends_in_zero_and_is_one_at_zero() {
        for (x, want) in [(f32::NEG_INFINITY, 0.0), (-1e30, 0.0), (-88.0, 0.0), (0.0, 1.0)] {
            // SAFETY: plain Rust.
            assert_eq!(lanes_of(|v| unsafe { exp::<Portable>(v) }, x), want, "exp({x})");
        }
        // SAFETY: plain Rust.
        assert!(lanes_of(|v| unsafe { exp::<Portable>(v) }, 1e30).is_finite());
    }

    #[test]
    fn silu_is_close() {
        for step in -1000..1000 {
            let x = step as f32 / 10.0;
            // SAFETY: plain Rust.
            let got = lanes_of(|v| unsafe { silu::<Portable>(v) }, x);
            let want = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            // Below −87 the divisor is cut at e^88; the value there is under 1e-36.
            assert!(
                (got - want).abs() <= 4.0 * f64::from(f32::EPSILON) * want.abs() + 1e-35,
                "silu({x}) = {got}, not {want}"
            );
        }
    }
}
