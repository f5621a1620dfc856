//! The flows as data, and what follows from it: routes, first calls, ids of promises, answers.

use std::{hash::Hasher, time::Duration};

use serde_json::{Value, json};

use settings::duration;

use crate::Options;

/// Every flow.
pub const FLOWS: &[Flow] = &[
    Flow {
        name: "await-chain",
        about: "foo awaits bar, and bar awaits baz. baz returns 1; bar and foo add 1 each.",
        argument: None,
        answer: Answer::Result(3),
        functions: &[
            Function { name: "foo", group: "service-a", ..FUNCTION },
            Function {
                name: "bar",
                group: "service-b",
                caller: Caller::Awaits(0),
                works: true,
                ..FUNCTION
            },
            Function {
                name: "baz",
                group: "service-c",
                caller: Caller::Awaits(1),
                sleeps: true,
                fails: true,
                ..FUNCTION
            },
        ],
    },
    Flow {
        name: "detached-chain",
        about: "Each function starts the next one and ends. Nobody waits: cog prints 3, into the log of service-f.",
        argument: Some(1),
        answer: Answer::AtOnce("detached-chain started"),
        functions: &[
            Function { name: "qux", group: "service-d", ..FUNCTION },
            Function {
                name: "quz",
                group: "service-e",
                caller: Caller::Detaches(0),
                works: true,
                ..FUNCTION
            },
            Function {
                name: "cog",
                group: "service-f",
                caller: Caller::Detaches(1),
                sleeps: true,
                fails: true,
                ..FUNCTION
            },
        ],
    },
    Flow {
        name: "fan-out-workflow",
        about: "zim calls rax and dop at the same time. Each returns 1; zim adds its own 1.",
        argument: Some(1),
        answer: Answer::Result(3),
        functions: &[
            Function { name: "zim", group: "service-g", works: true, ..FUNCTION },
            Function {
                name: "rax",
                group: "service-h",
                caller: Caller::Awaits(0),
                sleeps: true,
                ..FUNCTION
            },
            Function {
                name: "dop",
                group: "service-i",
                caller: Caller::Awaits(0),
                fails: true,
                ..FUNCTION
            },
        ],
    },
];

/// What a row leaves out: the gateway calls the function, and no option applies to it.
const FUNCTION: Function = Function {
    name: "",
    group: "",
    caller: Caller::Gateway,
    works: false,
    sleeps: false,
    fails: false,
};

/// A flow that the gateway can start.
#[derive(Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its route without the slash; also the id of a flow that was started without one.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What the first function takes before its options.
    pub argument: Option<i64>,
    /// What the request that starts it is answered with.
    pub answer: Answer,
    /// Its functions. The gateway calls the first one; callers come before those they call.
    pub functions: &'static [Function],
}

/// What the request that starts a flow is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The result of the first function, which is always this number.
    Result(i64),
    /// This text, as soon as the flow is stored. Nobody waits for the flow to end.
    AtOnce(&'static str),
}

/// A function of a flow, and the options that apply to it. It applies them in this order, before
/// it calls other functions.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// The function's name.
    pub name: &'static str,
    /// The group of the service that has it.
    pub group: &'static str,
    /// Who calls it, and how.
    pub caller: Caller,
    /// It works if the option `work` is set.
    pub works: bool,
    /// It sleeps if the option `sleep` is set.
    pub sleeps: bool,
    /// It fails as often as the option `fail` says.
    pub fails: bool,
}

/// Who calls a function. A number is the caller's place in [`Flow::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The gateway: this is the flow's first function.
    Gateway,
    /// This function calls it and awaits its result.
    Awaits(usize),
    /// This function calls it and does not wait.
    Detaches(usize),
}

/// A promise that an option makes a function create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// A step of `work`, counted from 1.
    Work {
        /// Which one.
        number: usize,
        /// How many there are.
        total: usize,
    },
    /// The durable timer of `sleep`.
    Sleep(Duration),
    /// The step of `fail`: so many attempts fail.
    Fail(u32),
}

impl Checkpoint {
    /// Its name, as logs and traces have it.
    pub fn name(&self) -> String {
        match self {
            Self::Work { number, total } => format!("work {number}/{total}"),
            Self::Sleep(length) => format!("sleep {}", duration::format(*length)),
            Self::Fail(_) => "unreliable".to_owned(),
        }
    }
}

/// One call of a function, with its durable promise.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The function.
    pub function: &'static Function,
    /// The promise's id.
    pub id: String,
}

impl Flow {
    /// The flow with this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        FLOWS.iter().find(|flow| flow.name == name)
    }

    /// The route that starts it.
    pub fn route(&self) -> String {
        format!("/{}", self.name)
    }

    /// The function that the gateway calls.
    pub fn first(&self) -> &'static Function {
        &self.functions[0]
    }

    /// The address that the first call is sent to.
    pub fn target(&self, options: &Options) -> String {
        let Function { group, works, .. } = self.first();
        if *works { options.target(group) } else { wire::Address::any(group).to_string() }
    }

    /// The arguments of the first call, as a list.
    pub fn arguments(&self, options: &Options) -> Value {
        self.argument.map_or_else(|| json!([options]), |argument| json!([argument, options]))
    }

    /// The flow that starts with this call, and its options. None: the call starts no flow.
    pub fn recognize(function: &str, arguments: &Value) -> Option<(&'static Self, Options)> {
        let flow = FLOWS.iter().find(|flow| flow.first().name == function)?;
        let options = arguments.as_array()?.last()?;
        let options: Options = serde_json::from_value(options.clone()).ok()?;
        options.are_allowed().then_some((flow, options))
    }

    /// All calls of the flow `id`, in the order of [`Self::functions`]. The promises that a
    /// function creates are numbered in the order of their creation, so every id is known.
    pub fn invocations(&self, id: &str, options: &Options) -> Vec<Invocation> {
        // How many promises each function has created up to this point.
        let mut created: Vec<_> =
            self.functions.iter().map(|it| it.checkpoints(options).len()).collect();
        let mut number = |caller: usize| {
            created[caller] += 1;
            created[caller] - 1
        };
        let mut invocations: Vec<Invocation> = Vec::with_capacity(self.functions.len());
        for function in self.functions {
            let id = match function.caller {
                Caller::Gateway => id.to_owned(),
                Caller::Awaits(caller) => format!("{}.{}", invocations[caller].id, number(caller)),
                Caller::Detaches(caller) => detached(&invocations[caller].id, number(caller)),
            };
            invocations.push(Invocation { function, id });
        }
        invocations
    }

    /// The `message` that a request is answered with once the flow went well, or was started.
    pub fn message(&self) -> Value {
        match self.answer {
            Answer::Result(number) => number.into(),
            Answer::AtOnce(text) => text.into(),
        }
    }

    /// The `message` that a repeated request is answered with once the flow went well.
    pub fn message_again(&self) -> Value {
        match self.answer {
            Answer::Result(number) => number.into(),
            Answer::AtOnce(_) => format!("{} done", self.name).into(),
        }
    }

    /// The `result` that `GET /flows/{id}` shows once the flow went well.
    pub fn result(&self) -> Value {
        match self.answer {
            Answer::Result(number) => number.into(),
            Answer::AtOnce(_) => Value::Null,
        }
    }
}

impl Function {
    /// What it creates promises for before it calls another function, in this order. The promise of
    /// checkpoint `n` of the function with promise `id` is `id.n`.
    pub fn checkpoints(&self, options: &Options) -> Vec<Checkpoint> {
        let total = if self.works { options.steps().len() } else { 0 };
        let work = (1..=total).map(|number| Checkpoint::Work { number, total });
        let sleep = options.sleep.filter(|_| self.sleeps).map(Checkpoint::Sleep);
        let fail = options.fail.filter(|_| self.fails).map(Checkpoint::Fail);
        work.chain(sleep).chain(fail).collect()
    }
}

/// The id that the SDK gives to promise `number` of the function with promise `id`, if that call is
/// detached.
fn detached(id: &str, number: usize) -> String {
    let mut hash = seahash::SeaHasher::new();
    hash.write(format!("{id}.{number}").as_bytes());
    format!("{id}.{:016x}", hash.finish())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    const OPTIONS: Options = Options {
        work: Some(Duration::from_millis(2_500)),
        sleep: Some(Duration::from_millis(10)),
        fail: Some(1),
    };

    fn flow(name: &str) -> &'static Flow {
        Flow::by_name(name).unwrap()
    }

    #[test]
    fn each_flow_starts_with_one_function_and_callers_come_before_those_they_call() {
        for flow in FLOWS {
            for (n, function) in flow.functions.iter().enumerate() {
                match function.caller {
                    Caller::Gateway => assert_eq!(n, 0, "{function:?}"),
                    Caller::Awaits(caller) | Caller::Detaches(caller) => {
                        assert!(caller < n, "{function:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let flows: BTreeSet<_> = FLOWS.iter().map(|flow| flow.name).collect();
        assert_eq!(flows.len(), FLOWS.len());
        let functions = || FLOWS.iter().flat_map(|flow| flow.functions);
        let names: BTreeSet<_> = functions().map(|function| function.name).collect();
        assert_eq!(names.len(), functions().count());
    }

    #[test]
    fn a_first_call_is_recognized_with_its_options() {
        for flow in FLOWS {
            for options in [OPTIONS, Options::default()] {
                let arguments = flow.arguments(&options);
                let recognized = Flow::recognize(flow.first().name, &arguments);
                assert_eq!(recognized, Some((flow, options)));
            }
        }
        assert_eq!(Flow::recognize("bar", &json!([null])), None);
        assert_eq!(Flow::recognize("zim", &json!([1])), None);
        assert_eq!(Flow::recognize("foo", &Value::Null), None);
        for more in ["{\"work\":\"11m\"}", "{\"sleep\":\"11m\"}", "{\"fail\":11}"] {
            let options: Value = serde_json::from_str(more).unwrap();
            assert_eq!(Flow::recognize("foo", &json!([options])), None, "{more}");
        }
    }

    #[test]
    fn the_first_call_asks_for_the_first_process_only_if_it_works() {
        let target = |name, options| flow(name).target(&options);
        assert_eq!(target("await-chain", OPTIONS), "poll://any@service-a");
        assert_eq!(target("fan-out-workflow", OPTIONS), "poll://any@service-g/~first");
        assert_eq!(target("fan-out-workflow", Options::default()), "poll://any@service-g");
    }

    #[test]
    fn the_promises_of_a_functions_own_steps_come_before_its_calls() {
        let ids = |name, options| {
            let invocations = flow(name).invocations("x", &options);
            invocations.into_iter().map(|invocation| invocation.id).collect::<Vec<_>>()
        };
        assert_eq!(ids("await-chain", Options::default()), ["x", "x.0", "x.0.0"]);
        assert_eq!(ids("await-chain", OPTIONS), ["x", "x.0", "x.0.3"]);
        assert_eq!(ids("fan-out-workflow", Options::default()), ["x", "x.0", "x.1"]);
        assert_eq!(ids("fan-out-workflow", OPTIONS), ["x", "x.3", "x.4"]);
        let quz = detached("x", 0);
        let cog = detached(&quz, 3);
        assert_eq!(ids("detached-chain", OPTIONS), ["x".to_owned(), quz, cog]);
    }

    #[test]
    fn checkpoints_are_named_as_in_the_logs() {
        let names = |function: &Function| {
            function.checkpoints(&OPTIONS).iter().map(Checkpoint::name).collect::<Vec<_>>()
        };
        let functions = flow("await-chain").functions;
        assert_eq!(names(&functions[0]), [""; 0]);
        assert_eq!(names(&functions[1]), ["work 1/3", "work 2/3", "work 3/3"]);
        assert_eq!(names(&functions[2]), ["sleep 10ms", "unreliable"]);
    }

    #[test]
    fn the_answers_are_those_of_the_readme() {
        for (name, message, result) in [
            ("await-chain", json!(3), json!(3)),
            ("detached-chain", json!("detached-chain started"), Value::Null),
            ("fan-out-workflow", json!(3), json!(3)),
        ] {
            assert_eq!((flow(name).message(), flow(name).result()), (message, result), "{name}");
        }
    }
}
