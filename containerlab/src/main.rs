//! See the library.

fn main() -> std::process::ExitCode {
    vtep_lab::cli::main()
}
