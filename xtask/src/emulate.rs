//! `cargo xtask emulate`: runs the kernel tests on an emulated processor that has AVX-512 with VNNI and with the bf16
//! dot product, so that this code is run on machines without it too.
//!
//! The emulator is Bochs, built from Debian's source: a whole PC, the only free one with these instructions. It boots
//! Debian's kernel from a disc made here: a boot loader, the kernel, and an initial file system of the test binaries,
//! their libraries and a script that runs them. What they print comes out of the emulated serial port.

mod disc;
mod initramfs;
mod needs;
mod report;

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Group, output};
use crate::tree;
use report::{END, Report};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run all tests of these binaries, not only the quick ones: very slow
    #[arg(long)]
    all: bool,
    /// End the emulator after so many seconds
    #[arg(long, default_value_t = 1200, value_name = "SECONDS")]
    limit: u64,
}

/// What the tests must go over, by the names that they print.
const SETS: [&str; 2] = ["avx512", "avx512bf16"];

/// A test binary and those of its tests that are quick enough to be emulated. Each prints the sets that it goes over.
const BINARIES: [(&str, &[&str]); 4] = [
    (
        "lib",
        &[
            "isa::tests::arithmetic_is_the_same",
            "isa::tests::bf16_pairs_agree",
            "isa::tests::conversions_are_the_same",
            "isa::tests::enter_runs_the_body",
            "isa::tests::integer_dots_are_exact",
            "isa::tests::lane_operations_are_the_same",
        ],
    ),
    (
        "kernels_linear",
        &[
            "embedding_reads_packed_rows_back",
            "extreme_8_bit_weights_are_exact",
            "gate_and_up_match",
            "instruction_sets_agree",
            "logits_of_gathered_rows_match",
            "qkv_are_rotated_and_cached",
            "residual_matches_at_extremes",
        ],
    ),
    ("kernels_attention", &["the_largest_head", "an_empty_step_writes_nothing"]),
    (
        "kernels_sample",
        &[
            "a_row_draws_the_same_alone_in_a_batch_and_on_every_instruction_set",
            "greedy_takes_the_largest_and_the_lowest_id_on_a_tie",
            "log_probabilities_are_always_finite",
            "log_probabilities_are_of_the_logits_as_they_are",
        ],
    ),
];

/// The processor: Intel's first with both extensions. Not as it comes: this kernel with five-level page tables does not
/// survive this BIOS's system management mode, nor the emulator's short `rep movsb`.
const MODEL: &str = "sapphire_rapids";
const KERNEL_ARGS: &str = "console=ttyS0 loglevel=1 panic=0 no5lvl clearcpuid=fsrm lsm=capability mitigations=off \
                           nokaslr tsc=reliable lpj=1000000 random.trust_cpu=on";

/// Why there can be no emulated machine here, if so.
pub(crate) fn cannot_be_had() -> Option<&'static str> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Some("the emulated machine runs this machine's test binaries, which are not for x86-64 Linux");
    }
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_debian = system.lines().any(|line| line == "ID=debian") && Path::new(needs::APT_HELPER).exists();
    (!is_debian).then_some("the emulator and its kernel come from Debian's packages, and this is not Debian")
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if let Some(reason) = cannot_be_had() {
        return Err(reason.into());
    }
    let folder = tree::target().join("xtask-emulate");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let needs = needs::get(&folder)?;
    let binaries = test_binaries()?;
    let tests = |name: &str| {
        let known = BINARIES.iter().find(|(binary, _)| *binary == name);
        known.filter(|_| !args.all || name == "lib").map_or(&[][..], |(_, tests)| *tests)
    };
    let runs: Vec<_> = binaries.iter().map(|(name, path)| (*name, path.as_path(), tests(name))).collect();
    let disc = disc::make(&folder, &needs, &runs, KERNEL_ARGS)?;
    let start = Instant::now();
    let lines = boot(&folder, &needs, &disc, Duration::from_secs(args.limit))?;
    let report = Report::of(&lines);
    report.print();
    for (name, wanted) in BINARIES {
        report.judge(name, wanted, &SETS)?;
    }
    println!(
        "{} tests on emulated {}, {:.0} s in the emulator",
        report.passed(),
        SETS.join(" and "),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The test binaries, built as `cargo xtask test` builds them.
fn test_binaries() -> Result<Vec<(&'static str, PathBuf)>, String> {
    let mut args = vec!["test", "--no-run", "-p", "vitrum", "--features", "profiling", "--message-format", "json"];
    for (name, _) in BINARIES {
        args.extend(if name == "lib" { vec!["--lib"] } else { vec!["--test", name] });
    }
    eprintln!("building the tests");
    let messages = output("cargo test --no-run", &mut tree::cargo(&args))?;
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let path = |name: &str| {
        let is_it = |message: &&Value| {
            let target = &message["target"];
            let of_kind = |kind: &str| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind));
            of_kind(if name == "lib" { "lib" } else { "test" }) && (name == "lib" || target["name"] == name)
        };
        let executables = messages.iter().filter(is_it).filter_map(|message| message["executable"].as_str());
        executables.map(PathBuf::from).next_back().ok_or(format!("cargo built no test binary {name}"))
    };
    BINARIES.iter().map(|(name, _)| Ok((*name, path(name)?))).collect()
}

/// Runs the emulator until the script's last line; returns what came out of the serial port.
fn boot(folder: &Path, needs: &needs::Needs, disc: &Path, limit: Duration) -> Result<Vec<String>, Box<dyn Error>> {
    let settings = folder.join("bochsrc");
    let log = folder.join("bochs.log");
    // The serial port is the emulator's own standard output: its lines come as they are printed.
    let text = format!(
        "config_interface: textconfig\ndisplay_library: nogui\nmegs: 512\nboot: cdrom\n\
         romimage: file={}\nvgaromimage: file={}\n\
         cpu: model={MODEL}, count=1, ips=50000000, ignore_bad_msrs=1, reset_on_triple_fault=0\n\
         clock: sync=none, time0=utc\nata0-master: type=cdrom, path={}, status=inserted\n\
         com1: enabled=1, mode=file, dev=/dev/stdout\nlog: {}\n\
         panic: action=fatal\nerror: action=report\ninfo: action=report\ndebug: action=ignore\n",
        needs.bios.display(),
        needs.vga_bios.display(),
        disc.display(),
        log.display(),
    );
    fs::write(&settings, text).map_err(|error| format!("{}: {error}", settings.display()))?;
    let serial = folder.join("serial.log");
    let file = File::create(&serial).map_err(|error| format!("{}: {error}", serial.display()))?;
    eprintln!("booting the emulated machine; it prints to {}", serial.display());
    let mut command = Command::new(&needs.bochs);
    command.args(["-q", "-f"]).arg(&settings);
    let mut bochs = Group::spawn(command, file).map_err(|error| format!("{}: {error}", needs.bochs.display()))?;
    let (start, mut lines) = (Instant::now(), Vec::new());
    let ended = loop {
        match bochs.line(limit.saturating_sub(start.elapsed()), |line| Some(line.to_owned()), |_| {}) {
            Some(line) if line == END => break Ok(()),
            Some(line) if line.contains("Kernel panic") => break Err(format!("the emulated kernel gave up: {line}")),
            Some(line) => lines.push(line),
            None if start.elapsed() >= limit => break Err(format!("not done after {} s", limit.as_secs())),
            None => break Err(format!("the emulator ended early; its log is {}", log.display())),
        }
    };
    ended.map_err(|error| format!("{error}. The last that came out of the serial port:\n{}", bochs.tail()))?;
    Ok(lines)
}
