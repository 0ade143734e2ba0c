//! The instruction sets that the CPU's kernels are compiled for. The tests of kernels go over every set that this
//! machine has; of one that it lacks nothing was tested, and that is said.

use super::Outcome;

/// These features of the processor, each with whether it is there.
macro_rules! features {
    ($($feature:tt)*) => {{
        #[cfg(target_arch = "x86_64")]
        let found = vec![$(($feature, is_x86_feature_detected!($feature))),*];
        #[cfg(not(target_arch = "x86_64"))]
        let found = vec![$(($feature, false)),*];
        found
    }};
}

type Features = Vec<(&'static str, bool)>;

/// `IsaChoice::Avx2`: what it takes is said once more here, in `src/isa/mod.rs` first.
pub(super) fn avx2() -> Outcome {
    outcome(&avx2_features())
}

/// `IsaChoice::Avx512`, with VNNI.
pub(super) fn avx512() -> Outcome {
    outcome(&avx512_features())
}

/// `IsaChoice::Avx512Bf16`.
pub(super) fn avx512bf16() -> Outcome {
    outcome(&[avx512_features(), features!("avx512bf16")].concat())
}

fn avx2_features() -> Features {
    features!("avx2" "fma" "f16c")
}

fn avx512_features() -> Features {
    [avx2_features(), features!("avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni")].concat()
}

/// It counts as no test: those that ran on the set were counted where they ran.
fn outcome(features: &[(&'static str, bool)]) -> Outcome {
    let lacking: Vec<&str> = features.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect();
    match lacking[..] {
        [] => Outcome::Passed { count: 0, note: "this processor has it: the tests of kernels go over it".into() },
        _ => Outcome::NotRun { reason: format!("this processor lacks {}", lacking.join(", ")) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_processor_lacks_is_not_run() {
        let said = |features: &[(&'static str, bool)]| match outcome(features) {
            Outcome::Passed { count, .. } => format!("{count} passed"),
            Outcome::NotRun { reason } => reason,
        };
        assert_eq!(said(&[("a", true), ("b", true)]), "0 passed");
        assert_eq!(said(&[("a", false), ("b", true), ("c", false)]), "this processor lacks a, c");
    }
}
