//! The load generator as an executable of its own: what its image runs.

fn main() -> std::process::ExitCode {
    load::main()
}
