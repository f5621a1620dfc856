//! One process of service-i.

fn main() -> std::process::ExitCode {
    node::main(service_i::service())
}
