//! The 422: an id that belongs to something else than what the request asks for.

use flows::{Flow, Options};
use wire::Promise;

use crate::{client, problem::Problem};

/// Checks that the promise `id`, which an earlier request created, is the first one of `flow`, and
/// that the flow was started with every option that this request sets.
///
/// # Errors
/// [`Problem::Conflict`].
pub fn check(promise: &Promise, flow: &Flow, id: &str, requested: &Options) -> Result<(), Problem> {
    let conflict = |detail: String| {
        Err(Problem::Conflict { id: id.to_owned(), detail: format!("{detail}; choose another id") })
    };
    let Some((known, started)) = client::flow_of(promise) else {
        return conflict(format!(
            "id {id:?} already belongs to a promise that this gateway did not create"
        ));
    };
    if known != flow {
        let article = if known.name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        return conflict(format!("id {id:?} already belongs to {article} {} flow", known.name));
    }
    for ((name, requested), (_, started)) in requested.named().into_iter().zip(started.named()) {
        let Some(requested) = requested else { continue };
        match started {
            Some(started) if started == requested => {}
            Some(started) => {
                return conflict(format!(
                    "flow {id:?} was started with {name}={started}, not {name}={requested}"
                ));
            }
            None => {
                return conflict(format!(
                    "flow {id:?} was started without {name}, not {name}={requested}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wire::{Pairs, PromiseState, PromiseValue, call};

    use super::*;

    fn promise(function: &str, arguments: &serde_json::Value) -> Promise<'static> {
        let data = Some(call::encode(function, arguments).into());
        Promise {
            id: "x".into(),
            state: PromiseState::Pending,
            param: PromiseValue { headers: None, data },
            value: PromiseValue::default(),
            tags: Pairs::default(),
            timeout_at: 1,
            created_at: 0,
            settled_at: None,
        }
    }

    fn detail(promise: &Promise, requested: Options) -> Option<String> {
        let flow = Flow::by_name("await-chain").unwrap();
        match check(promise, flow, "x", &requested) {
            Ok(()) => None,
            Err(Problem::Conflict { detail, .. }) => Some(detail),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_id_keeps_its_flow_and_its_options() {
        let work =
            |seconds| Options { work: Some(Duration::from_secs(seconds)), ..Options::default() };
        let start = |flow: &str, options| {
            let flow = Flow::by_name(flow).unwrap();
            promise(flow.first().name, &flow.arguments(&options))
        };
        let plain = start("await-chain", Options::default());
        let works = start("await-chain", work(6));
        assert_eq!(detail(&plain, Options::default()), None);
        assert_eq!(detail(&works, work(6)), None);
        assert_eq!(detail(&works, Options::default()), None);
        for (promise, expected) in [
            (&works, "flow \"x\" was started with work=6s, not work=8s; choose another id"),
            (&plain, "flow \"x\" was started without work, not work=8s; choose another id"),
            (
                &start("detached-chain", work(8)),
                "id \"x\" already belongs to a detached-chain flow; choose another id",
            ),
            (
                &promise("bar", &serde_json::json!([null])),
                "id \"x\" already belongs to a promise that this gateway did not create; choose another id",
            ),
        ] {
            assert_eq!(detail(promise, work(8)).as_deref(), Some(expected));
        }
    }
}
