//! Which instructions the kernels have to hold in the end, and whether they do.
//!
//! A kernel that computes the right thing without tensor cores, or that waits for nobody, passes every other test.

/// The architecture whose instructions are looked at.
pub(super) const ARCH: &str = "sm_90a";

/// Products of int8 and of 16-bit floats on tensor cores.
const INT8: &str = "IMMA";
const FLOAT16: &str = "HMMA";

/// For each beginning of kernels' names, the instruction that does its work, if that is a product on tensor cores. A
/// kernel that none of these begins is an error: it has no entry yet.
const WORK: &[(&str, Option<&str>)] = &[
    ("embed", None),
    ("norm_qkv_bf16", Some(FLOAT16)),
    ("norm_qkv_int8", Some(INT8)), // and int8x2
    ("qk_norm", None),
    ("attention_f16", Some(FLOAT16)),
    ("linear_residual_bf16", Some(FLOAT16)),
    ("linear_residual_int8", Some(INT8)),
    ("norm_residual", None),
    ("norm_gate_up_bf16", Some(FLOAT16)),
    ("norm_gate_up_int8", Some(INT8)),
    ("norm_lm_head_bf16", Some(FLOAT16)),
    ("norm_lm_head_int8", Some(INT8)),
    ("sample", None),
    ("peak_read", None),
    ("peak_copy", None),
    ("peak_bf16", Some(FLOAT16)),
    ("peak_int8", Some(INT8)),
    ("probe_node", None),
    ("probe_clock", None),
    ("device_clock", None),
];

/// Kernels, by the begin of their names, that are launched alone, in no chain.
const ALONE: &[&str] = &["device_clock", "probe_clock", "peak_"];

/// Every kernel of the chain lets the next one start (griddepcontrol.launch_dependents) and waits for the one before
/// (griddepcontrol.wait).
const CHAIN: &[(&str, &str)] = &[("PREEXIT", "lets no other kernel start"), ("ACQBULK", "waits for no other kernel")];

/// What is wrong with the kernels of a listing, as `cuobjdump -sass` prints it.
pub(super) fn check(listing: &str) -> Vec<String> {
    functions(listing).iter().flat_map(|(kernel, code)| check_kernel(kernel, code)).collect()
}

/// The names of the kernels of a listing.
pub(super) fn kernels(listing: &str) -> Vec<&str> {
    functions(listing).into_iter().map(|(kernel, _)| kernel).collect()
}

fn check_kernel(kernel: &str, code: &str) -> Vec<String> {
    let Some((_, work)) = WORK.iter().find(|(begin, _)| kernel.starts_with(begin)) else {
        return vec![format!("{kernel}: has no entry in xtask/src/kernels/sass.rs: which instruction does its work?")];
    };
    let mut wrong = Vec::new();
    if let Some(work) = work.filter(|work| count(code, work) == 0) {
        wrong.push(format!("{kernel}: its work is done without {work}"));
    }
    if ALONE.iter().any(|begin| kernel.starts_with(begin)) {
        return wrong;
    }
    let absent = CHAIN.iter().filter(|(instruction, _)| count(code, instruction) == 0);
    wrong.extend(absent.map(|(instruction, fault)| format!("{kernel}: {fault} ({instruction} is missing)")));
    wrong
}

/// Instructions of one operation: `HMMA` is `HMMA.16816.F32.BF16`, not `HMMAX`, also behind a predicate.
fn count(code: &str, operation: &str) -> usize {
    let is_operation = |line: &&str| {
        let instruction = line.split_once("*/").map_or("", |(_, rest)| rest.trim_start());
        let mut words = instruction.split_whitespace().skip_while(|word| word.starts_with('@'));
        words.next().is_some_and(|word| word.split(['.', ';']).next() == Some(operation))
    };
    code.lines().filter(is_operation).count()
}

fn functions(listing: &str) -> Vec<(&str, &str)> {
    let pieces = listing.split("Function : ").skip(1);
    pieces.map(|piece| piece.split_once('\n').unwrap_or((piece, ""))).map(|(name, code)| (name.trim(), code)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of cuobjdump 13.2.
    fn listing(kernel: &str, instructions: &[&str]) -> String {
        let line = |text: &&str| format!("        /*0090*/                   {text}    /* 0x000000000000782d */\n");
        let code: String = instructions.iter().map(line).collect();
        format!("\n\tcode for sm_90a\n\t\tFunction : {kernel}\n\t.headerflags\t@\"EF_CUDA_SM90\"\n{code}")
    }

    #[test]
    fn each_kernel_needs_its_instruction_and_the_pair() {
        let pair = ["PREEXIT ;", "ACQBULK ;"];
        let hmma = "HMMA.16816.F32.BF16 R4, R8, R4, RZ ;";
        let good = [
            listing("norm_qkv_bf16_t8", &[pair[0], pair[1], hmma]),
            listing("linear_residual_int8x2_t32", &[pair[0], "@!P0 IMMA.16832.S8.S8 R4, R8 ;", "@P1 ACQBULK ;"]),
            listing("embed", &pair),
            listing("device_clock", &pair[1..]),
        ];
        assert_eq!(check(&good.concat()), [""; 0]);
        let names = ["norm_qkv_bf16_t8", "linear_residual_int8x2_t32", "embed", "device_clock"];
        assert_eq!(kernels(&good.concat()), names);
        let bad = [
            listing("norm_qkv_int8_t8", &[pair[0], pair[1], hmma]),
            listing("sample", &[pair[0], "NOP ; /* ACQBULK */"]),
            listing("embed", &["PREEXITED ;", pair[1]]),
            listing("rotate", &pair),
        ];
        let wrong = check(&bad.concat());
        let words = ["without IMMA", "waits for no", "lets no other", "rotate: has no entry"];
        assert_eq!(wrong.len(), words.len(), "{wrong:?}");
        assert!(wrong.iter().zip(words).all(|(fault, word)| fault.contains(word)), "{wrong:?}");
    }
}
