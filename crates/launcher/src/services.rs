//! The list of services. A new service is one more line, here and in the dependencies of this
//! crate.

use node::Service;

/// Every service, in the order in which they are started.
pub fn all() -> Vec<Service> {
    vec![
        service_a::service(),
        service_b::service(),
        service_c::service(),
        service_d::service(),
        service_e::service(),
        service_f::service(),
        service_g::service(),
        service_h::service(),
        service_i::service(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_services_have_exactly_the_functions_of_the_flows() {
        let services: BTreeSet<_> = all()
            .iter()
            .flat_map(|it| it.functions().into_iter().map(|function| (it.group(), function)))
            .collect();
        let flows: BTreeSet<_> = flows::FLOWS
            .iter()
            .flat_map(|flow| flow.functions)
            .map(|function| (function.group, function.name))
            .collect();
        assert_eq!(services, flows);
    }
}
