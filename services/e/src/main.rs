//! One process of service-e.

fn main() -> std::process::ExitCode {
    node::main(service_e::service())
}
