//! `ghidrah`: the command line. See [`cmm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cmm::cli::main()
}
