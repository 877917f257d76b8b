//! The program `tenfold`: hands its arguments to [`tenfold::cli`] and its exit code to the system. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenfold::cli::main(std::env::args_os())
}
