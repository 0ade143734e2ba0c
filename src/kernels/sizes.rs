//! The sizes of a model that its ops can be made with, on a device whose kernels have limits of their own.
//!
//! Asked once, before weights are read: what passes, no op and no kernel refuses later for its size.

use super::attention::MAX_HEAD_DIM;

/// Sizes of a model. None is zero, heads are a multiple of those of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
}

/// Which of the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// [`ModelSizes::hidden`]
    Hidden,
    /// [`ModelSizes::ffn`]
    Ffn,
    /// [`ModelSizes::heads`]
    Heads,
    /// [`ModelSizes::head_dim`]
    HeadDim,
    /// [`ModelSizes::vocab`]
    Vocab,
}

/// A size that there is no kernel for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which.
    pub size: Size,
    /// How large it is.
    pub value: usize,
    /// What it has to be.
    pub expected: String,
}

/// The sizes that a device's kernels take, where not all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLimits {
    /// Widths of a head; `None`: any.
    pub head_dims: Option<&'static [usize]>,
    /// The most query heads that share a head of keys and values.
    pub heads_per_kv_head_max: usize,
    /// What the inputs of every matrix are a multiple of, and the values of the query heads that share a head of keys
    /// and values.
    pub inputs_multiple: usize,
    /// The largest vocabulary.
    pub vocab_max: usize,
}

impl KernelLimits {
    /// Of kernels that take any.
    pub const NONE: KernelLimits =
        KernelLimits { head_dims: None, heads_per_kv_head_max: usize::MAX, inputs_multiple: 1, vocab_max: usize::MAX };
}

/// Whether the ops can be made with these sizes, for a device with these limits.
pub fn check(sizes: &ModelSizes, limits: &KernelLimits) -> Result<(), Unfit> {
    let &ModelSizes { hidden, ffn, heads, kv_heads, head_dim, vocab } = sizes;
    let require = |holds: bool, size, value, expected: &dyn Fn() -> String| match holds {
        true => Ok(()),
        false => Err(Unfit { size, value, expected: expected() }),
    };
    let is_width = head_dim.is_multiple_of(16) && (1..=MAX_HEAD_DIM).contains(&head_dim);
    require(is_width, Size::HeadDim, head_dim, &|| format!("a multiple of 16 and at most {MAX_HEAD_DIM}"))?;
    if let Some(known) = limits.head_dims {
        let list = || known.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        require(known.contains(&head_dim), Size::HeadDim, head_dim, &|| {
            format!("one of {}: the device has no attention kernel for other widths of a head", list())
        })?;
    }
    let (group, most) = (heads / kv_heads, limits.heads_per_kv_head_max);
    require(group <= most, Size::Heads, heads, &|| format!("at most {most} for each of {kv_heads} KV heads"))?;
    let multiple = limits.inputs_multiple;
    for (size, value) in [(Size::Hidden, hidden), (Size::Ffn, ffn)] {
        let expected = || format!("a multiple of {multiple}: the device's kernels read rows in such blocks");
        require(value.is_multiple_of(multiple), size, value, &expected)?;
    }
    require((group * head_dim).is_multiple_of(multiple), Size::Heads, heads, &|| {
        format!("so many that those of each of {kv_heads} KV heads have a multiple of {multiple} values")
    })?;
    let most = limits.vocab_max;
    require(vocab <= most, Size::Vocab, vocab, &|| format!("at most {most}: the device draws from no more tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: ModelSizes = ModelSizes { hidden: 96, ffn: 160, heads: 6, kv_heads: 2, head_dim: 32, vocab: 331 };

    const LIMITS: KernelLimits =
        KernelLimits { head_dims: Some(&[16, 32]), heads_per_kv_head_max: 8, inputs_multiple: 32, vocab_max: 1000 };

    fn refused(limits: &KernelLimits, change: impl FnOnce(&mut ModelSizes)) -> (Size, usize) {
        assert_eq!(check(&SIZES, limits), Ok(()));
        let mut sizes = SIZES;
        change(&mut sizes);
        let unfit = check(&sizes, limits).expect_err("a size that does not fit");
        (unfit.size, unfit.value)
    }

    #[test]
    fn every_limit_is_a_limit() {
        let none = KernelLimits::NONE;
        for head_dim in [0, 8, 24, 272, 512, 1 << 24] {
            assert_eq!(refused(&none, |sizes| sizes.head_dim = head_dim), (Size::HeadDim, head_dim));
        }
        for head_dim in (16..=MAX_HEAD_DIM).step_by(16) {
            assert_eq!(check(&ModelSizes { head_dim, hidden: 7, ffn: 1, vocab: 1 << 24, ..SIZES }, &none), Ok(()));
        }
        assert_eq!(refused(&LIMITS, |sizes| sizes.head_dim = 64), (Size::HeadDim, 64));
        assert_eq!(refused(&LIMITS, |sizes| sizes.heads = 18), (Size::Heads, 18));
        assert_eq!(refused(&LIMITS, |sizes| sizes.head_dim = 16), (Size::Heads, 6), "3 × 16 values");
        assert_eq!(refused(&LIMITS, |sizes| sizes.hidden = 48), (Size::Hidden, 48));
        assert_eq!(refused(&LIMITS, |sizes| sizes.ffn = 33), (Size::Ffn, 33));
        assert_eq!(refused(&LIMITS, |sizes| sizes.vocab = 1001), (Size::Vocab, 1001));
    }
}
