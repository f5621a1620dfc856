//! One process of service-h.

fn main() -> std::process::ExitCode {
    node::main(service_h::service())
}
