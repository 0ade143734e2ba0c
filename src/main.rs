//! The `vitrum` command. What it does is in [`vitrum::cli`].

use std::process::ExitCode;

use vitrum::cli;
use vitrum::config::Config;

fn main() -> ExitCode {
    cli::run(Config::from_process())
}
