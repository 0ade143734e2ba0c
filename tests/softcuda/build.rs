//! Compiles kernels for the host, through the headers in simt/: csrc/*.cu to one library, the crate's own kernels, with
//! which the emulation is tested, to another. The crate opens them at run time, by the paths that it gets from here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let csrc = here.join("../../csrc").canonicalize().expect("csrc");
    for (name, folder) in [("kernels", &csrc), ("probes", &here.join("probes"))] {
        let library = build_library(&here.join("simt"), folder, &out.join(name));
        println!("cargo:rustc-env=SOFTCUDA_{}={}", name.to_uppercase(), library.display());
    }
    for folder in ["simt", "probes", "../../csrc"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}

/// The library of all `.cu` files of a folder.
fn build_library(simt: &Path, sources: &Path, out: &Path) -> PathBuf {
    fs::create_dir_all(out).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
    let entries = fs::read_dir(sources).unwrap_or_else(|error| panic!("{}: {error}", sources.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "cu"));
    files.sort();
    let units = files.iter().map(|file| registering_unit(simt, file, out)).collect::<Vec<_>>();
    let mut watched = compiler(simt);
    // The accesses that kernels make are calls of functions in races.cc, not of the sanitiser's own.
    watched.flags(["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]);
    let mut objects = watched.out_dir(out).files(units).compile_intermediates();
    let runtime = ["runtime.cc", "ptx.cc", "races.cc", "global_memory.cc"].map(|name| simt.join(name));
    objects.extend(compiler(simt).out_dir(out).files(runtime).compile_intermediates());
    let library = out.join("libkernels.so");
    let mut link = compiler(simt).get_compiler().to_command();
    link.args(["-shared", "-o"]).arg(&library).args(objects);
    run(&mut link);
    // `cargo xtask soak` builds it again, with single kernels changed.
    write_command(&out.join("compile.txt"), &watched.get_compiler().to_command());
    write_command(&out.join("link.txt"), &link);
    library
}

/// Writes a command line, one argument a line.
fn write_command(path: &Path, command: &Command) {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    let text: String = all.map(|argument| format!("{}\n", argument.to_str().expect("paths are UTF-8"))).collect();
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// g++, with what all files need.
fn compiler(simt: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).debug(false).warnings(true).extra_warnings(true).pic(true);
    // Symbols of one library stay out of the other: both hold the emulation's state.
    build.flags(["-fvisibility=hidden", "-fno-gnu-unique", "-Wno-unknown-pragmas"]);
    build.include(simt).cargo_metadata(false);
    build
}

/// A file that includes a `.cu` file and names its kernels to the emulation.
fn registering_unit(simt: &Path, source: &Path, out: &Path) -> PathBuf {
    let mut list = compiler(simt).get_compiler().to_command();
    list.args(["-E", "-P", "-DSIMT_LIST_KERNELS", "-x", "c++", "-include"]).arg(simt.join("simt.h")).arg(source);
    let text = run(&mut list);
    let mut unit = format!("#include \"simt.h\"\n#include \"{}\"\n\n", source.display());
    for after in text.split("simt_kernel_begins").skip(1) {
        let name: String = after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        assert!(!name.is_empty(), "{}: a kernel without a name", source.display());
        unit += &format!("SIMT_REGISTER({name});\n");
    }
    let stem = source.file_stem().and_then(|stem| stem.to_str()).expect("names are UTF-8");
    let path = out.join(format!("{stem}.host.cc"));
    fs::write(&path, unit).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// What a command prints. It has to succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("sources are UTF-8")
}
