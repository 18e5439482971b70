//! The `tidegate-gate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_gate::cli::main()
}
