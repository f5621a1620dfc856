//! One process of service-d.

fn main() -> std::process::ExitCode {
    node::main(service_d::service())
}
