//! What the emulated tests printed, and whether it is what was wanted.

use std::collections::BTreeSet;

/// The script's last line.
pub(super) const END: &str = "== all binaries have run";
/// What a test prints before the names of the instruction sets that it goes over.
const SETS: &str = "instruction sets: ";
const RUN: &str = "== run ";
const STATUS: &str = "exit status ";

/// The line before a binary runs.
pub(super) fn run_line(name: &str) -> String {
    format!("{RUN}{name}")
}

#[derive(Default)]
struct Test {
    name: String,
    sets: BTreeSet<String>,
    passed: bool,
}

#[derive(Default)]
struct Binary {
    name: String,
    status: Option<String>,
    tests: Vec<Test>,
    lines: Vec<String>,
}

/// Every binary that was run.
pub(super) struct Report {
    binaries: Vec<Binary>,
}

impl Report {
    /// Reads what `--test-threads 1 --nocapture` prints: `test NAME ... `, what the test prints, `ok`.
    pub(super) fn of(lines: &[String]) -> Report {
        let mut binaries: Vec<Binary> = Vec::new();
        for line in lines {
            if let Some(name) = line.strip_prefix(RUN) {
                binaries.push(Binary { name: name.to_owned(), ..Binary::default() });
                continue;
            }
            let Some(binary) = binaries.last_mut() else { continue };
            binary.lines.push(line.clone());
            if let Some(status) = line.strip_prefix(STATUS) {
                binary.status = Some(status.to_owned());
            }
            let mut rest = line.as_str();
            if let Some((name, after)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
                binary.tests.push(Test { name: name.to_owned(), ..Test::default() });
                rest = after;
            } else if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ...")) {
                binary.tests.push(Test { name: name.to_owned(), ..Test::default() });
                continue;
            }
            if let Some(test) = binary.tests.last_mut() {
                if let Some((_, sets)) = rest.split_once(SETS) {
                    test.sets.extend(sets.split_whitespace().map(str::to_owned));
                }
                test.passed |= rest == "ok";
            }
        }
        Report { binaries }
    }

    /// Every test that went over instruction sets, with them.
    pub(super) fn print(&self) {
        for (binary, test) in self.binaries.iter().flat_map(|binary| binary.tests.iter().map(move |t| (binary, t))) {
            let sets: Vec<_> = test.sets.iter().map(String::as_str).collect();
            println!("{} {}: {}", binary.name, test.name, if sets.is_empty() { "any".into() } else { sets.join(" ") });
        }
    }

    /// How many tests passed.
    pub(super) fn passed(&self) -> usize {
        self.binaries.iter().flat_map(|binary| &binary.tests).filter(|test| test.passed).count()
    }

    /// The binary ran to its end, and all these tests passed and went over all these sets.
    pub(super) fn judge(&self, name: &str, tests: &[&str], sets: &[&str]) -> Result<(), String> {
        let binary = self.binaries.iter().find(|binary| binary.name == name).ok_or(format!("{name} was not run"))?;
        let text = || binary.lines.join("\n");
        match binary.status.as_deref() {
            Some("0") => {}
            Some(status) => return Err(format!("{name} ended with exit status {status}:\n{}", text())),
            None => return Err(format!("{name} did not end:\n{}", text())),
        }
        for wanted in tests {
            let test = binary.tests.iter().find(|test| test.name == *wanted);
            let test = test.ok_or_else(|| format!("{name} has no test {wanted}:\n{}", text()))?;
            if !test.passed {
                return Err(format!("{name}: {wanted} did not pass:\n{}", text()));
            }
            if let Some(missing) = sets.iter().find(|set| !test.sets.contains(**set)) {
                return Err(format!("{name}: {wanted} did not go over {missing}:\n{}", text()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "== run a\n\nrunning 2 tests\n\
                        test x::one ... instruction sets: portable avx2 avx512 avx512bf16\nok\n\
                        test two ... instruction sets: avx512\ninstruction sets: avx512bf16\nok\n\
                        test three ... ok\n\
                        test result: ok. 3 passed; 0 failed;\nexit status 0";

    fn judge(text: &str) -> Result<(), String> {
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        Report::of(&lines).judge("a", &["x::one", "two"], &["avx512", "avx512bf16"])
    }

    #[test]
    fn what_ran_on_all_sets_passes() {
        judge(GOOD).unwrap();
    }

    #[test]
    fn what_did_not_run_or_not_on_every_set_fails() {
        for (from, to, says) in [
            ("== run a", "== run b", "was not run"),
            ("avx2 avx512 avx512bf16", "avx2 avx512", "did not go over avx512bf16"),
            ("test x::one", "test x::other", "has no test x::one"),
            ("avx512bf16\nok\ntest two", "avx512bf16\nFAILED\ntest two", "did not pass"),
            ("exit status 0", "exit status 101", "exit status 101"),
            ("exit status 0", "", "did not end"),
        ] {
            assert!(GOOD.contains(from));
            let error = judge(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
