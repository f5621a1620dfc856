//! One process of service-f.

fn main() -> std::process::ExitCode {
    node::main(service_f::service())
}
