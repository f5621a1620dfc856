//! Which flow comes next, and what is asked of it.

use flows::{FLOWS, Flow, Options};
use rand::{Rng, RngExt, seq::IndexedRandom};

use crate::{
    Settings,
    plan::{ATTEMPTS, Plan},
};

/// How often each flow is started in relation to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights(Vec<(&'static Flow, u32)>);

/// Reads flows with weights, such as `await-chain=3,fan-out-workflow=1`; empty is all flows alike.
///
/// # Errors
/// What is expected.
pub fn weights(text: &str) -> Result<Weights, String> {
    if text.is_empty() {
        return Ok(Weights(FLOWS.iter().map(|flow| (flow, 1)).collect()));
    }
    let weight = |part: &str| {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let weight = weight.parse().ok().filter(|weight| (1..=1_000).contains(weight))?;
        Some((Flow::by_name(name)?, weight))
    };
    let weights: Option<Vec<_>> = text.split(',').map(weight).collect();
    weights.map(Weights).ok_or_else(|| {
        let names = FLOWS.iter().map(|flow| format!("{}=1", flow.name)).collect::<Vec<_>>();
        format!("expected flows with weights from 1 to 1000, such as {}", names.join(","))
    })
}

/// What is started: an endless sequence of plans.
pub struct Mix<'a> {
    settings: &'a Settings,
    /// What the ids begin with: another run on the same server has others.
    prefix: String,
    started: u64,
}

impl<'a> Mix<'a> {
    /// The mix that the settings ask for. Ids begin with `load-` and a random number.
    pub fn new(settings: &'a Settings, random: &mut impl Rng) -> Self {
        let prefix = format!("load-{:08x}", random.random::<u32>());
        Self { settings, prefix, started: 0 }
    }

    /// The next flow.
    pub fn next(&mut self, random: &mut impl Rng) -> Plan {
        let Self { settings, prefix, started } = self;
        let Weights(weights) = &settings.flows;
        // It fails only for an empty list, which nobody can ask for.
        let flow = weights.choose_weighted(random, |(_, weight)| *weight);
        let flow = flow.map_or(&FLOWS[0], |(flow, _)| flow);
        let mut one_of = |percent: usize| random.random_range(0..100) < percent;
        let options = Options {
            work: one_of(settings.work).then_some(settings.work_time),
            sleep: one_of(settings.sleep).then_some(settings.sleep_time),
            fail: one_of(settings.fail).then(|| if one_of(50) { 2 * ATTEMPTS } else { 1 }),
        };
        *started += 1;
        Plan { flow, id: format!("{prefix}-{started}"), options }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clap::{Args, FromArgMatches};
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// 10,000 plans with these options.
    fn plans(arguments: &[&str]) -> Vec<Plan> {
        let command = Settings::augment_args(clap::Command::new("load"));
        let matches = command.get_matches_from(["load"].iter().chain(arguments));
        let settings = Settings::from_arg_matches(&matches).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut mix = Mix::new(&settings, &mut random);
        (0..10_000).map(|_| mix.next(&mut random)).collect()
    }

    fn share(plans: &[Plan], is: impl Fn(&Plan) -> bool) -> f64 {
        plans.iter().filter(|plan| is(plan)).count() as f64 / plans.len() as f64
    }

    #[test]
    fn flows_are_started_as_often_as_their_weights_say() {
        let plans = plans(&["--flows", "await-chain=3,fan-out-workflow"]);
        let mut counts = BTreeMap::new();
        plans.iter().for_each(|plan| *counts.entry(plan.flow.name).or_insert(0) += 1);
        assert_eq!(counts.keys().collect::<Vec<_>>(), [&"await-chain", &"fan-out-workflow"]);
        assert!((7_300..7_700).contains(&counts["await-chain"]), "{counts:?}");
    }

    #[test]
    fn options_have_their_share() {
        let plans = plans(&["--work=50", "--work-time=3s", "--sleep=0", "--fail=100"]);
        assert!((0.48..0.52).contains(&share(&plans, |plan| plan.options.work.is_some())));
        assert_eq!(share(&plans, |plan| plan.options.sleep.is_some()), 0.0);
        assert_eq!(share(&plans, |plan| plan.options.fail.is_some()), 1.0);
        assert!((0.48..0.52).contains(&share(&plans, Plan::fails)));
        let works = plans.iter().find(|plan| plan.options.work.is_some()).unwrap();
        assert!(works.path().contains("&work=3s"), "{}", works.path());
    }

    #[test]
    fn without_options_all_flows_take_part() {
        let plans = plans(&[]);
        for flow in FLOWS {
            assert!((0.3..0.37).contains(&share(&plans, |plan| plan.flow == flow)), "{flow:?}");
        }
        let ids: BTreeSet<_> = plans.iter().map(|plan| &plan.id).collect();
        assert_eq!(ids.len(), plans.len());
    }

    #[test]
    fn other_lists_are_refused() {
        for text in ["await", "await-chain=0", "await-chain=x", "await-chain,", "=1"] {
            assert!(
                weights(text).unwrap_err().starts_with("expected flows with weights"),
                "{text}"
            );
        }
    }
}
