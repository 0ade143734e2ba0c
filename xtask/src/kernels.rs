//! `cargo xtask kernels`: compiles every csrc/*.cu and prints what each kernel takes of a multiprocessor.
//!
//! It fails if a kernel spills registers, does not say how many threads a block has, does not fit a multiprocessor, or
//! lacks the instructions that it is written for.

mod elf;
mod occupancy;
mod ptxas;
mod sass;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use crate::nvcc::{self, ARCH_DEFAULT, ARCH_PTX, Image, Nvcc};
use crate::process::output;
use crate::{cuda_toolchain, tree};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures, like sm_80,sm_90a
    #[arg(long, default_value = ARCH_DEFAULT)]
    archs: String,
    /// Every architecture that a release is built for
    #[arg(long, conflicts_with = "archs")]
    all: bool,
}

/// A kernel on an architecture.
struct Row {
    usage: ptxas::Usage,
    arch: &'static str,
    threads: u32,
    blocks: u32,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let archs = nvcc::archs(if args.all { "all" } else { &args.archs })?;
    let root = cuda_toolchain::install()?;
    let nvcc = Nvcc::at(root.join("bin/nvcc"))?;
    let jobs = available_parallelism().map_or(1, usize::from);
    let cache = tree::target().join("cuda-images");
    let images = nvcc.images(&tree::root().join("csrc"), &cache, &archs, jobs)?;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for image in images.iter().filter(|image| image.arch != ARCH_PTX) {
        let found = kernels(image)?;
        wrong.extend(found.iter().flat_map(faults).map(|fault| format!("{}.cu: {fault}", image.file)));
        if image.arch == sass::ARCH {
            let names: Vec<&str> = found.iter().map(|row| row.usage.kernel.as_str()).collect();
            let faults = instructions(&root, image, &names)?;
            wrong.extend(faults.into_iter().map(|fault| format!("{}.cu: {fault}", image.file)));
        }
        rows.extend(found);
    }
    if rows.is_empty() {
        return Err("no kernel was compiled to machine code: of PTX alone there is nothing to see".into());
    }
    println!("{}", table(&rows));
    if !wrong.is_empty() {
        return Err(wrong.join("\n  ").into());
    }
    println!("{} kernels are as they have to be, for {}", rows.len(), archs.join(", "));
    Ok(())
}

/// The kernels of an image, by name.
fn kernels(image: &Image) -> Result<Vec<Row>, String> {
    let said = |path: &Path, error| format!("{}: {error}", path.display());
    let log = fs::read(&image.log).map_err(|error| said(&image.log, error))?;
    let threads = elf::kernels(&fs::read(&image.path).map_err(|error| said(&image.path, error))?)?;
    let mut rows = Vec::new();
    for usage in ptxas::parse(&String::from_utf8_lossy(&log))? {
        let (_, threads) = *threads
            .iter()
            .find(|(kernel, _)| *kernel == usage.kernel)
            .ok_or_else(|| format!("{}: {} is not in the image", image.file, usage.kernel))?;
        let blocks = occupancy::blocks(image.arch, threads, usage.registers, usage.shared)
            .ok_or_else(|| format!("xtask/src/kernels/occupancy.rs does not know {}", image.arch))?;
        rows.push(Row { usage, arch: image.arch, threads, blocks });
    }
    if rows.len() != threads.len() {
        return Err(format!("{}: the image has {} kernels, ptxas names {}", image.file, threads.len(), rows.len()));
    }
    rows.sort_by(|a, b| a.usage.kernel.cmp(&b.usage.kernel));
    Ok(rows)
}

/// What is wrong with a kernel, whatever it computes.
fn faults(row: &Row) -> Vec<String> {
    let Row { usage, arch, threads, blocks } = row;
    let kernel = &usage.kernel;
    let mut faults = Vec::new();
    if usage.spilled > 0 {
        faults.push(format!("{kernel} on {arch}: {} bytes of registers are spilled", usage.spilled));
    }
    if *threads == 0 {
        faults.push(format!("{kernel} on {arch}: has no __launch_bounds__"));
    } else if *blocks == 0 {
        faults.push(format!("{kernel} on {arch}: one block does not fit a multiprocessor"));
    }
    faults
}

/// What is wrong with the instructions of an image's kernels.
fn instructions(root: &Path, image: &Image, names: &[&str]) -> Result<Vec<String>, String> {
    let mut disassemble = Command::new(root.join("bin/cuobjdump"));
    let listing = output("cuobjdump", disassemble.arg("-sass").arg(&image.path))?;
    let mut listed = sass::kernels(&listing);
    listed.sort_unstable();
    if listed != names {
        return Err(format!("{}: cuobjdump lists {listed:?}, ptxas {names:?}", image.file));
    }
    Ok(sass::check(&listing))
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.usage.kernel.len()).max().unwrap_or(0).max("kernel".len());
    let mut table = format!(
        "{:width$}  {:<7} {:>7} {:>9} {:>7} {:>6} {:>7} {:>6}\n",
        "kernel", "arch", "threads", "registers", "shared", "stack", "spilled", "blocks"
    );
    for Row { usage, arch, threads, blocks } in rows {
        let ptxas::Usage { kernel, registers, shared, stack, spilled } = usage;
        table += &format!(
            "{kernel:width$}  {arch:<7} {threads:>7} {registers:>9} {shared:>7} {stack:>6} {spilled:>7} {blocks:>6}\n"
        );
    }
    table + "shared, stack, spilled: bytes; blocks: on a multiprocessor at once, by static shared memory alone"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        let row = |spilled, threads, blocks| Row {
            usage: ptxas::Usage { kernel: "embed".to_owned(), registers: 40, shared: 0, stack: 0, spilled },
            arch: "sm_90a",
            threads,
            blocks,
        };
        assert_eq!(faults(&row(0, 256, 4)), [""; 0]);
        let wrong = [row(8, 256, 4), row(0, 0, 32), row(0, 1024, 0)].map(|row| faults(&row));
        let words = ["8 bytes of registers", "no __launch_bounds__", "does not fit"];
        assert!(wrong.iter().zip(words).all(|(faults, word)| faults.len() == 1 && faults[0].contains(word)));
        let table = table(&[row(0, 256, 4)]);
        assert!(table.contains("\nembed   sm_90a      256        40       0      0       0      4\n"), "{table}");
    }
}
