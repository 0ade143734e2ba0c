//! Pieces of heads: the rotary embedding's turn, and the place of 16 values in the KV cache.

use crate::isa::{Isa, LANES};
use crate::kernels::params::*;

/// Rotates 8 pairs of neighbours by angles whose (cos, sin) are at `rope`.
///
/// # Safety
/// There are 8 pairs at `rope`.
#[inline(always)]
pub(in crate::kernels) unsafe fn rotate(rope: *const f32, values: &mut [f32; LANES]) {
    // SAFETY: the caller gives 8 pairs.
    let rope = unsafe { rope.cast::<[f32; LANES]>().read_unaligned() };
    let x = *values;
    for i in (0..LANES).step_by(2) {
        let (cos, sin) = (rope[i], rope[i + 1]);
        values[i] = x[i] * cos - x[i + 1] * sin;
        values[i + 1] = x[i] * sin + x[i + 1] * cos;
    }
}

/// Where 16 values of one head and position are in the cache.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct CachePlace<'a> {
    kv: &'a KvCacheRef,
    /// Of the head's part of the page: (head_dim, 16) of keys, (16, head_dim) of values.
    first: usize,
    head_dim: usize,
    dim: usize,
    offset: usize,
}

impl<'a> CachePlace<'a> {
    /// Of the values from `dim` on of a head, in a slot of the cache.
    #[inline(always)]
    pub(in crate::kernels) fn of(
        kv: &'a KvCacheRef,
        slot: u32,
        (kv_heads, head): (usize, usize),
        (head_dim, dim): (usize, usize),
    ) -> CachePlace<'a> {
        let (page, offset) = ((slot / PAGE_TOKENS) as usize, (slot % PAGE_TOKENS) as usize);
        let first = (page * kv_heads + head) * head_dim * PAGE_TOKENS as usize;
        CachePlace { kv, first, head_dim, dim, offset }
    }

    /// Writes a part of a key.
    ///
    /// # Safety
    /// The cache has such a page, and the caller runs where the processor has the set.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn store_key<I: Isa>(self, values: I::F32) {
        let at = self.first + self.dim * PAGE_TOKENS as usize + self.offset;
        // SAFETY: the caller's.
        unsafe {
            if self.kv.format == FORMAT_F16 {
                let mut lanes = [0u16; LANES];
                I::store_f16(lanes.as_mut_ptr(), values);
                scatter(&lanes, self.kv.k.cast::<u16>().as_mut_ptr().add(at));
            } else {
                let mut lanes = [0f32; LANES];
                I::store(lanes.as_mut_ptr(), values);
                scatter(&lanes, self.kv.k.cast::<f32>().as_mut_ptr().add(at));
            }
        }
    }

    /// Writes a part of a value.
    ///
    /// # Safety
    /// As for keys.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn store_value<I: Isa>(self, values: I::F32) {
        let at = self.first + self.offset * self.head_dim + self.dim;
        // SAFETY: the caller's.
        unsafe {
            match self.kv.format == FORMAT_F16 {
                true => I::store_f16(self.kv.v.cast::<u16>().as_mut_ptr().add(at), values),
                false => I::store(self.kv.v.cast::<f32>().as_mut_ptr().add(at), values),
            }
        }
    }
}

/// A column of a K page: its positions are neighbours, its dimensions PAGE_TOKENS apart.
#[inline(always)]
unsafe fn scatter<T: Copy>(lanes: &[T; LANES], to: *mut T) {
    for (i, value) in lanes.iter().enumerate() {
        // SAFETY: the caller gives a page with room for 16 dimensions.
        unsafe { to.add(i * PAGE_TOKENS as usize).write(*value) }
    }
}
