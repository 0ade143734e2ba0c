//! Plain Rust: any processor.

use super::{Body, Isa, LANES};

/// Arrays of 16 values.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> V {
    std::array::from_fn(f)
}

impl Isa for Portable {
    const NAME: &'static str = "portable";
    const INT8_ROWS: usize = 4;
    const F32_ROWS: usize = 4;
    type F32 = V;

    #[inline(never)]
    unsafe fn enter<B: Body>(body: B) -> B::Output {
        // SAFETY: plain Rust asks nothing of the processor; the rest is the caller's.
        unsafe { body.run::<Portable>() }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe { to.cast::<V>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values.
        each(|i| half::f16::from_bits(unsafe { from.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: V) {
        for (i, v) in value.iter().enumerate() {
            // SAFETY: the caller gives room for 16 values.
            unsafe { to.add(i).write_unaligned(half::f16::from_f32(*v).to_bits()) }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values.
        each(|i| half::bf16::from_bits(unsafe { from.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(from: *const u16) -> (V, V) {
        // SAFETY: the caller gives 32 readable values.
        let value = |i: usize| half::bf16::from_bits(unsafe { from.add(i).read_unaligned() }).to_f32();
        (each(|i| value(2 * i)), each(|i| value(2 * i + 1)))
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: V) {
        for (i, v) in value.iter().enumerate() {
            // SAFETY: the caller gives room for 16 values.
            unsafe { to.add(i).write_unaligned(half::bf16::from_f32(*v).to_bits()) }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(a: V, n: V) -> V {
        each(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn keep_first(a: V, count: usize, fill: f32) -> V {
        each(|i| if i < count { a[i] } else { fill })
    }
    #[inline(always)]
    unsafe fn sum_lanes(a: V) -> f32 {
        let mut sum = a;
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                sum[i] += sum[i + width];
            }
        }
        sum[0]
    }
    #[inline(always)]
    unsafe fn max_lane(a: V) -> f32 {
        a.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: V) {
        for (i, v) in value.iter().enumerate() {
            // SAFETY: the caller gives room for 16 values.
            unsafe { to.add(i).write(v.round_ties_even() as i8) }
        }
    }
    #[inline(always)]
    unsafe fn dot_nibbles<const M: usize>(weights: *const u8, a: [*const i8; M]) -> [V; M] {
        a.map(|a| {
            each(|row| {
                let mut sum = 0i32;
                for k in 0..32 {
                    let (j, byte) = (k % 16 / 4, k % 4);
                    // SAFETY: the caller gives 256 bytes of weights and 32 activations.
                    let (pair, x) = unsafe { (*weights.add(j * 64 + row * 4 + byte), *a.add(k)) };
                    let w = if k < 16 { pair & 15 } else { pair >> 4 };
                    sum += i32::from(w) * i32::from(x);
                }
                sum as f32
            })
        })
    }
    #[inline(always)]
    unsafe fn dot_bytes<const M: usize>(weights: *const i8, a: [*const i8; M], _sums: [i32; M]) -> [V; M] {
        a.map(|a| {
            each(|row| {
                let mut sum = 0i32;
                for k in 0..32 {
                    // SAFETY: the caller gives 512 bytes of weights and 32 activations.
                    let (w, x) = unsafe { (*weights.add(k / 4 * 64 + row * 4 + k % 4), *a.add(k)) };
                    sum += i32::from(w) * i32::from(x);
                }
                sum as f32
            })
        })
    }
    #[inline(always)]
    unsafe fn fma_bf16_pairs<const M: usize>(weights: *const u16, a: [*const u16; M], acc: [V; M]) -> [V; M] {
        // SAFETY: the caller gives 32 weights and M pairs.
        let value = |from: *const u16| half::bf16::from_bits(unsafe { from.read_unaligned() }).to_f32();
        std::array::from_fn(|m| {
            each(|row| {
                let product =
                    |i: usize, c: f32| value(weights.wrapping_add(2 * row + i)).mul_add(value(a[m].wrapping_add(i)), c);
                product(0, product(1, acc[m][row]))
            })
        })
    }
}
