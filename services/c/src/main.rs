//! One process of service-c.

fn main() -> std::process::ExitCode {
    node::main(service_c::service())
}
