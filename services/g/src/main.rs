//! One process of service-g.

fn main() -> std::process::ExitCode {
    node::main(service_g::service())
}
