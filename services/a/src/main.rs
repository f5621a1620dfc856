//! One process of service-a.

fn main() -> std::process::ExitCode {
    node::main(service_a::service())
}
