//! The project's tasks, run as `cargo xtask TASK`.

mod bindings;

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
    /// Generate src/device/params.rs from csrc/params.h
    Bindings(bindings::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Bindings(args) => bindings::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
