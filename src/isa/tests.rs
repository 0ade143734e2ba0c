//! Every method of every instruction set that this machine has, against plain Rust, bit by bit.

use super::portable::Portable;
use super::*;

/// Calls `check::<I>()` for each set that this machine has.
macro_rules! on_every_set {
    ($check:ident) => {{
        check_one!($check, IsaChoice::Portable, Portable);
        #[cfg(target_arch = "x86_64")]
        {
            check_one!($check, IsaChoice::Avx2, avx2::Avx2);
            check_one!($check, IsaChoice::Avx512, avx512::Avx512<false>);
            check_one!($check, IsaChoice::Avx512Bf16, avx512::Avx512<true>);
        }
    }};
}

macro_rules! check_one {
    ($check:ident, $choice:expr, $isa:ty) => {
        if $choice.is_available() {
            // SAFETY: the processor has the set; the checks pass arrays of the lengths that the methods ask for.
            unsafe { $check::<$isa>() }
        }
    };
}

type Lanes = [f32; LANES];

/// A small generator: the tests are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn within(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1) as u64) as i32
    }
    fn lanes(&mut self, scale: f32) -> Lanes {
        std::array::from_fn(|_| (self.next() as f32 / 2f32.powi(30) - 1.0) * scale)
    }
}

unsafe fn lanes<I: Isa>(value: I::F32) -> Lanes {
    let mut out = [0.0; LANES];
    // SAFETY: room for 16 values.
    unsafe { I::store(out.as_mut_ptr(), value) };
    out
}

fn bits(lanes: Lanes) -> [u32; LANES] {
    lanes.map(f32::to_bits)
}

const EDGES: [Lanes; 4] = [
    [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.49, 126.5, -126.5, 127.0, -127.0, 1e-38, -1e-38, 0.999],
    [
        1e-45, -1e-45, 3e38, -3e38, 65504.0, 65519.0, 65520.0, -65520.0, 6e-8, 3e-8, 2.9e-8, 6.1e-5, 1.0, -1.0,
        8388609.0, 2049.0,
    ],
    [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e20,
        -1e20,
        4097.0,
        4099.0,
        1.0039062,
        1.0117188,
        257.0,
        258.0,
        259.0,
        0.1,
        0.2,
    ],
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0],
];

fn samples() -> Vec<Lanes> {
    let mut numbers = Numbers(7);
    let random = [1e-30, 1e-3, 1.0, 100.0, 1e6, 1e30].map(|scale| numbers.lanes(scale));
    EDGES.into_iter().chain(random).collect()
}

unsafe fn arithmetic<I: Isa>() {
    for a in samples() {
        for b in samples() {
            // SAFETY: see `check_one`.
            unsafe {
                let (x, y) = (I::load(a.as_ptr()), I::load(b.as_ptr()));
                let same = |name, got: I::F32, want: Lanes| {
                    let got = lanes::<I>(got);
                    for i in 0..LANES {
                        let equal = got[i].to_bits() == want[i].to_bits() || got[i].is_nan() && want[i].is_nan();
                        assert!(equal, "{} {name}({}, {}): {} and not {}", I::NAME, a[i], b[i], got[i], want[i]);
                    }
                };
                same("add", I::add(x, y), Portable::add(a, b));
                same("sub", I::sub(x, y), Portable::sub(a, b));
                same("mul", I::mul(x, y), Portable::mul(a, b));
                same("div", I::div(x, y), Portable::div(a, b));
                same("min", I::min(x, y), Portable::min(a, b));
                same("max", I::max(x, y), Portable::max(a, b));
                same("fma", I::fma(x, y, x), Portable::fma(a, b, a));
                same("round", I::round(x), Portable::round(a));
                same("splat", I::splat(a[3]), [a[3]; LANES]);
            }
        }
    }
}

#[test]
fn arithmetic_is_the_same() {
    on_every_set!(arithmetic);
}

unsafe fn lane_operations<I: Isa>() {
    for a in samples() {
        // SAFETY: see `check_one`.
        unsafe {
            let x = I::load(a.as_ptr());
            if a.iter().all(|v| v.is_finite()) {
                assert_eq!(I::sum_lanes(x).to_bits(), Portable::sum_lanes(a).to_bits(), "{} sum of {a:?}", I::NAME);
            }
            assert_eq!(I::max_lane(x), Portable::max_lane(a), "{} largest of {a:?}", I::NAME);
            for count in 0..=LANES {
                let kept = lanes::<I>(I::keep_first(x, count, -7.0));
                assert_eq!(bits(kept), bits(Portable::keep_first(a, count, -7.0)), "{} first {count}", I::NAME);
            }
            for first in (-127..=112).step_by(15) {
                let n: Lanes = std::array::from_fn(|i| (first + i as i32) as f32);
                let scaled = lanes::<I>(I::scale_by_power_of_two(x, I::load(n.as_ptr())));
                let expected = Portable::scale_by_power_of_two(a, n);
                for i in 0..LANES {
                    let equal =
                        scaled[i].to_bits() == expected[i].to_bits() || scaled[i].is_nan() && expected[i].is_nan();
                    assert!(equal, "{} {} by 2^{}: {} and not {}", I::NAME, a[i], n[i], scaled[i], expected[i]);
                }
            }
        }
    }
    // SAFETY: see `check_one`.
    let nothing = unsafe { lanes::<I>(I::scale_by_power_of_two(I::splat(1.5), I::splat(-127.0))) };
    assert_eq!(nothing, [0.0; LANES], "{}: 2^-127 counts as 0", I::NAME);
}

#[test]
fn lane_operations_are_the_same() {
    on_every_set!(lane_operations);
}

unsafe fn conversions<I: Isa>() {
    // Every half-precision number but NaN, and every bf16.
    for first in (0..=u16::MAX).step_by(LANES) {
        let words: [u16; LANES] = std::array::from_fn(|i| first + i as u16);
        // SAFETY: see `check_one`.
        unsafe {
            let halves = words.map(|w| if half::f16::from_bits(w).is_nan() { 0 } else { w });
            let loaded = lanes::<I>(I::load_f16(halves.as_ptr()));
            assert_eq!(bits(loaded), bits(Portable::load_f16(halves.as_ptr())), "{} f16 from {first:#x}", I::NAME);
            let mut back = [0; LANES];
            I::store_f16(back.as_mut_ptr(), I::load(loaded.as_ptr()));
            assert_eq!(back, halves, "{} f16 there and back", I::NAME);
            let words = words.map(|w| if half::bf16::from_bits(w).is_nan() { 0 } else { w });
            let loaded = lanes::<I>(I::load_bf16(words.as_ptr()));
            assert_eq!(bits(loaded), bits(Portable::load_bf16(words.as_ptr())), "{} bf16 from {first:#x}", I::NAME);
        }
    }
    for a in samples() {
        // SAFETY: see `check_one`.
        unsafe {
            let x = I::load(a.as_ptr());
            let (mut got, mut want) = ([0; LANES], [0; LANES]);
            I::store_f16(got.as_mut_ptr(), x);
            Portable::store_f16(want.as_mut_ptr(), a);
            assert_eq!(got, want, "{} store_f16 of {a:?}", I::NAME);
            I::store_bf16(got.as_mut_ptr(), x);
            Portable::store_bf16(want.as_mut_ptr(), a);
            assert_eq!(got, want, "{} store_bf16 of {a:?}", I::NAME);
        }
    }
    let mut numbers = Numbers(11);
    for values in [EDGES[0], numbers.lanes(127.0), numbers.lanes(3.0)] {
        // SAFETY: see `check_one`.
        unsafe {
            let (mut got, mut want) = ([0; LANES], [0; LANES]);
            I::store_i8(got.as_mut_ptr(), I::load(values.as_ptr()));
            Portable::store_i8(want.as_mut_ptr(), values);
            assert_eq!(got, want, "{} store_i8 of {values:?}", I::NAME);
        }
    }
}

#[test]
fn conversions_are_the_same() {
    on_every_set!(conversions);
}

/// Activations and weights at their extremes first, then random ones.
fn integer_blocks() -> Vec<([[i8; 32]; 5], [u8; 512])> {
    let mut numbers = Numbers(13);
    let mut blocks: Vec<_> = [(127, 255), (-127, 255), (127, 0x80), (-127, 0x80), (127, 0x7f), (-127, 0x7f), (0, 0x81)]
        .into_iter()
        .map(|(a, w)| ([[a; 32]; 5], [w; 512]))
        .collect();
    for _ in 0..50 {
        let activations = [(); 5].map(|()| [(); 32].map(|()| numbers.within(-127, 127) as i8));
        blocks.push((activations, [(); 512].map(|()| numbers.next() as u8)));
    }
    blocks
}

unsafe fn dots<I: Isa, const M: usize>() {
    for (activations, weights) in integer_blocks() {
        let a: [*const i8; M] = std::array::from_fn(|m| activations[m].as_ptr());
        let sums = std::array::from_fn(|m| activations[m].iter().map(|v| i32::from(*v)).sum());
        let bytes = weights.as_ptr().cast::<i8>();
        // SAFETY: see `check_one`.
        unsafe {
            let nibbles = I::dot_nibbles(weights.as_ptr(), a).map(|d| lanes::<I>(d));
            assert_eq!(nibbles, Portable::dot_nibbles(weights.as_ptr(), a), "{} dot_nibbles, {M} rows", I::NAME);
            let signed = I::dot_bytes(bytes, a, sums).map(|d| lanes::<I>(d));
            assert_eq!(signed, Portable::dot_bytes(bytes, a, sums), "{} dot_bytes, {M} rows", I::NAME);
        }
    }
}

unsafe fn integer_dots<I: Isa>() {
    // SAFETY: see `check_one`.
    unsafe {
        dots::<I, 1>();
        dots::<I, 2>();
        dots::<I, 3>();
        dots::<I, 4>();
        dots::<I, 5>();
    }
}

#[test]
fn integer_dots_are_exact() {
    on_every_set!(integer_dots);
}

#[test]
fn portable_dots_follow_the_layout() {
    let mut weights = [0u8; 512];
    let a: [i8; 32] = std::array::from_fn(|k| k as i8 + 1);
    weights[2 * 64 + 5 * 4 + 3] = 0x90; // row 5, value 16 + 4 * 2 + 3 = 27: nibble 9
    // SAFETY: plain Rust over arrays of the lengths that the methods ask for.
    let [nibbles] = unsafe { Portable::dot_nibbles(weights.as_ptr(), [a.as_ptr()]) };
    assert_eq!(nibbles, std::array::from_fn(|row| if row == 5 { 9.0 * 28.0 } else { 0.0 }));
    // SAFETY: as above. As a byte it is row 5, value 4 * 2 + 3 = 11: −112.
    let [bytes] = unsafe { Portable::dot_bytes(weights.as_ptr().cast(), [a.as_ptr()], [528]) };
    assert_eq!(bytes, std::array::from_fn(|row| if row == 5 { -112.0 * 12.0 } else { 0.0 }));
}

unsafe fn bf16_pairs<I: Isa>() {
    let mut numbers = Numbers(17);
    for _ in 0..50 {
        let weights: [u16; 32] = std::array::from_fn(|_| half::bf16::from_f32(numbers.lanes(2.0)[0]).to_bits());
        let pairs: [[u16; 2]; 3] =
            [(); 3].map(|()| [(); 2].map(|()| half::bf16::from_f32(numbers.lanes(2.0)[0]).to_bits()));
        let acc = [(); 3].map(|()| numbers.lanes(1.0));
        // SAFETY: see `check_one`.
        unsafe {
            let (first, second) = I::load_bf16_pairs(weights.as_ptr());
            let want = Portable::load_bf16_pairs(weights.as_ptr());
            assert_eq!((lanes::<I>(first), lanes::<I>(second)), want, "{} load_bf16_pairs", I::NAME);
            let a = std::array::from_fn(|m| pairs[m].as_ptr());
            let got = I::fma_bf16_pairs(weights.as_ptr(), a, acc.map(|c| I::load(c.as_ptr()))).map(|d| lanes::<I>(d));
            let want = Portable::fma_bf16_pairs(weights.as_ptr(), a, acc);
            for (got, want) in got.into_iter().flatten().zip(want.into_iter().flatten()) {
                // Products of bf16 are exact in f32 and the sum is at most 9: two more roundings at most, in any order.
                assert!((got - want).abs() <= 2.0 * 8.0 * f32::EPSILON, "{}: {got} and not {want}", I::NAME);
            }
        }
    }
}

#[test]
fn bf16_pairs_agree() {
    on_every_set!(bf16_pairs);
}

struct Twice(f32);

impl Body for Twice {
    type Output = f32;
    #[inline(always)]
    unsafe fn run<I: Isa>(self) -> f32 {
        // SAFETY: `enter` was called where the processor has the set.
        unsafe { I::max_lane(I::add(I::splat(self.0), I::splat(self.0))) }
    }
}

unsafe fn entered<I: Isa>() {
    // SAFETY: see `check_one`.
    assert_eq!(unsafe { I::enter(Twice(21.0)) }, 42.0, "{}", I::NAME);
}

#[test]
fn enter_runs_the_body() {
    on_every_set!(entered);
}

#[test]
fn detection_finds_the_best() {
    let best = IsaChoice::detect();
    assert!(best.is_available());
    let better = IsaChoice::ALL.iter().rev().take_while(|isa| **isa != best);
    assert_eq!(better.filter(|isa| isa.is_available()).count(), 0, "something better than {best} is there");
}
