//! The one table of flows that all system tests use.

use serde_json::{Value, json};

/// A flow.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Its route without the slash, which is also its static id.
    pub name: &'static str,
    message: fn() -> Value,
    result: fn() -> Value,
    /// Its functions, in the order in which `GET /flows/{id}` lists them.
    pub functions: [Function; 3],
    /// The index of the function that takes `work`.
    pub works: usize,
    /// The index of the function that takes `sleep`.
    pub sleeps: usize,
    /// The index of the function that takes `fail`.
    pub fails: usize,
}

/// A function of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The group that runs it.
    pub group: &'static str,
    /// The group that calls it, or `gateway`.
    pub caller: &'static str,
}

const fn function(name: &'static str, group: &'static str, caller: &'static str) -> Function {
    Function { name, group, caller }
}

/// The three flows.
pub const FLOWS: [Flow; 3] = [
    Flow {
        name: "await-chain",
        message: || json!(3),
        result: || json!(3),
        functions: [
            function("foo", "service-a", "gateway"),
            function("bar", "service-b", "service-a"),
            function("baz", "service-c", "service-b"),
        ],
        works: 1,
        sleeps: 2,
        fails: 2,
    },
    Flow {
        name: "detached-chain",
        message: || json!("detached-chain started"),
        result: || Value::Null,
        functions: [
            function("qux", "service-d", "gateway"),
            function("quz", "service-e", "service-d"),
            function("cog", "service-f", "service-e"),
        ],
        works: 1,
        sleeps: 2,
        fails: 2,
    },
    Flow {
        name: "fan-out-workflow",
        message: || json!(3),
        result: || json!(3),
        functions: [
            function("zim", "service-g", "gateway"),
            function("rax", "service-h", "service-g"),
            function("dop", "service-i", "service-g"),
        ],
        works: 0,
        sleeps: 1,
        fails: 2,
    },
];

impl Flow {
    /// The `message` that `POST` answers with.
    pub fn message(&self) -> Value {
        (self.message)()
    }

    /// The `result` that `GET /flows/{id}` shows at the end.
    pub fn result(&self) -> Value {
        (self.result)()
    }

    /// The group of the function that takes `work`.
    pub fn working_group(&self) -> &'static str {
        self.functions[self.works].group
    }

    /// Whether `POST` answers before the flow has ended.
    pub fn is_detached(&self) -> bool {
        self.message() != self.result()
    }
}

/// The flow with this name.
///
/// # Panics
/// There is none.
pub fn flow(name: &str) -> Flow {
    FLOWS.into_iter().find(|flow| flow.name == name).unwrap_or_else(|| panic!("no flow {name}"))
}

/// All nine functions.
pub fn functions() -> impl Iterator<Item = Function> {
    FLOWS.into_iter().flat_map(|flow| flow.functions)
}

/// The function with this name.
///
/// # Panics
/// There is none.
pub fn find(name: &str) -> Function {
    functions()
        .find(|function| function.name == name)
        .unwrap_or_else(|| panic!("no function {name}"))
}

/// The nine groups of services.
pub fn groups() -> impl Iterator<Item = &'static str> {
    functions().map(|function| function.group)
}
