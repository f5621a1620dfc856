//! One process of service-b.

fn main() -> std::process::ExitCode {
    node::main(service_b::service())
}
