//! One process of the gateway.

fn main() -> std::process::ExitCode {
    gateway::main()
}
