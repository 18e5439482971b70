//! `tidegate-device`: see `tidegate-device --help`.

fn main() -> std::process::ExitCode {
    tidegate_client::cli::main()
}
