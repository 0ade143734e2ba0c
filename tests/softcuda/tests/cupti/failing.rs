//! Failures on request, by the environment.

use crate::collect::{Cupti, MEMSET};
use crate::process::{Cuda, Program, in_process};
use crate::told;

/// The statuses of some calls of CUPTI.
fn statuses(cuda: &Cuda) -> String {
    let mut out = 0u64;
    let calls = [
        cuda.status("cuptiGetVersion", &[&raw mut out as u64]),
        Cupti(cuda).register(),
        cuda.status("cuptiActivityEnable", &[MEMSET]),
        cuda.status("cuptiActivityDisable", &[MEMSET]),
    ];
    calls.map(|status| status.to_string()).join(" ")
}

fn expected() -> String {
    std::env::var("EXPECTED").expect("given")
}

#[test]
fn one_call_or_all_of_a_name_can_be_made_to_fail() {
    let test = "failing::one_call_or_all_of_a_name_can_be_made_to_fail";
    for (fail, expected, words) in [
        ("1", "999 0 0 0", &[][..]),
        ("3", "0 0 999 0", &[]),
        ("2:35", "0 35 7 0", &["no callbacks"]),
        ("0", "0 0 0 0", &["4 cupti calls"]),
        ("cuptiActivityEnable", "0 0 999 0", &[]),
        ("cuptiActivityDisable:8", "0 0 0 8", &["still enabled: MEMSET"]),
    ] {
        let variables = [("SOFTCUDA_CUPTI_FAIL_CALL", fail), ("EXPECTED", expected)];
        told(&in_process(test, &variables, |cuda| assert_eq!(statuses(cuda), self::expected())), words);
    }
}

#[test]
fn calls_that_are_not_counted_fail_by_name() {
    let test = "failing::calls_that_are_not_counted_fail_by_name";
    for (fail, expected) in [("cuptiActivityGetNextRecord:21", "21 0"), ("cuptiGetResultString", "12 999")] {
        let variables = [("SOFTCUDA_CUPTI_FAIL_CALL", fail), ("EXPECTED", expected)];
        let lines = in_process(test, &variables, |cuda| {
            let cupti = Cupti::begin(cuda, &[MEMSET]);
            let p = Program::begin(cuda);
            let addr = p.alloc(4);
            cuda.call("cuMemsetD8Async", &[addr, 0, 4, p.stream]);
            cuda.call("cuStreamSynchronize", &[p.stream]);
            let returned = cupti.flush(true);
            let mut text = 0u64;
            let string = cuda.status("cuptiGetResultString", &[1, &raw mut text as u64]);
            assert_eq!(format!("{} {string}", returned[0].status), self::expected());
            cupti.disable(MEMSET);
            p.free(addr);
            p.end();
        });
        told(&lines, &[]);
    }
}

#[test]
fn a_file_says_it_anew_at_each_question_for_the_version() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("softcuda-cupti-fails");
    let file = format!("@{}", path.display());
    let test = "failing::a_file_says_it_anew_at_each_question_for_the_version";
    let lines = in_process(test, &[("SOFTCUDA_CUPTI_FAIL_CALL", &file)], |cuda| {
        for (text, expected) in [
            ("4\n", "0 0 0 999"),
            ("1:35\n", "35 0 0 0"),
            ("cuptiActivityRegisterCallbacks:39\n", "0 39 0 0"),
            ("0\n", "0 0 0 0"),
        ] {
            std::fs::write(&path, text).expect("it can be written");
            assert_eq!(statuses(cuda), expected, "{text}");
        }
    });
    told(&lines, &["4 cupti calls"]);
}

#[test]
fn another_tool_may_have_it() {
    let lines = in_process("failing::another_tool_may_have_it", &[("SOFTCUDA_CUPTI_TAKEN", "1")], |cuda| {
        assert_eq!(statuses(cuda), "0 39 39 0");
    });
    told(&lines, &[]);
}
