//! The project's tasks, run as `cargo xtask TASK`. One file per task; what several need is in `process`, `tree`,
//! `http`, `served` and `tools`.

mod attack;
mod bindings;
mod compare;
mod cuda_toolchain;
mod features;
mod http;
mod kernels;
#[path = "../../build/nvcc.rs"]
mod nvcc;
mod process;
mod profile_cost;
mod profile_serve;
mod served;
mod soak;
mod software_gpu;
mod summary;
mod test;
mod tools;
mod tree;
mod verify_off;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, serve, load, record, and print where the time went
    ProfileServe(profile_serve::Args),
    /// Measure what recording a server costs: throughput, time to stop, bytes, memory
    ProfileCost(profile_cost::Args),
    /// Run every check that needs no GPU
    Test(test::Args),
    /// Attack a release build with hostile clients, models, templates, files and environments
    Attack(attack::Args),
    /// Prove that a build without feature `profiling` has no trace of the recorder
    VerifyOff,
    /// Write features.md: what there is, where, and the test that proves it
    Features(features::Args),
    /// Measure against llama-bench on the same file, in turns
    Compare(compare::Args),
    /// Generate src/kernels/params.rs from csrc/params.h
    Bindings(bindings::Args),
    /// Install NVIDIA's compiler under the target folder, and print where it is
    CudaToolchain,
    /// Compile the CUDA kernels, print what each takes, and check what they are made of
    Kernels(kernels::Args),
    /// Remove each synchronisation of the CUDA kernels in turn, and see which test notices
    Soak(soak::Args),
}

fn main() -> ExitCode {
    process::end_children_on_signals();
    let result = match Args::parse().task {
        Task::ProfileServe(args) => profile_serve::run(&args),
        Task::ProfileCost(args) => profile_cost::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Attack(args) => attack::run(&args),
        Task::VerifyOff => verify_off::run(),
        Task::Features(args) => features::run(&args),
        Task::Compare(args) => compare::run(&args),
        Task::Bindings(args) => bindings::run(&args),
        Task::CudaToolchain => cuda_toolchain::run(),
        Task::Kernels(args) => kernels::run(&args),
        Task::Soak(args) => soak::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
