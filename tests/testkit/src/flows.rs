//! The three flows of `crates/flows`, as tests look at them.

use serde_json::Value;

/// A flow.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Its route without the slash, which is also its static id.
    pub name: &'static str,
    /// Its functions, in the order in which `GET /flows/{id}` lists them.
    pub functions: [Function; 3],
    /// The index of the function that takes `work`.
    pub works: usize,
    /// The index of the function that takes `sleep`.
    pub sleeps: usize,
    /// The index of the function that takes `fail`.
    pub fails: usize,
    row: &'static flows::Flow,
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

/// The three flows.
pub const FLOWS: [Flow; 3] =
    [flow_of(&flows::FLOWS[0]), flow_of(&flows::FLOWS[1]), flow_of(&flows::FLOWS[2])];

const fn flow_of(row: &'static flows::Flow) -> Flow {
    let functions = [function_of(row, 0), function_of(row, 1), function_of(row, 2)];
    let (mut works, mut sleeps, mut fails, mut index) = (0, 0, 0, 0);
    while index < row.functions.len() {
        let function = &row.functions[index];
        (works, sleeps, fails) = (
            if function.works { index } else { works },
            if function.sleeps { index } else { sleeps },
            if function.fails { index } else { fails },
        );
        index += 1;
    }
    Flow { name: row.name, functions, works, sleeps, fails, row }
}

const fn function_of(row: &'static flows::Flow, index: usize) -> Function {
    let function = &row.functions[index];
    let caller = match function.caller {
        flows::Caller::Gateway => "gateway",
        flows::Caller::Awaits(caller) | flows::Caller::Detaches(caller) => {
            row.functions[caller].group
        }
    };
    Function { name: function.name, group: function.group, caller }
}

impl Flow {
    /// The `message` that `POST` answers with.
    pub fn message(&self) -> Value {
        self.row.message()
    }

    /// The `message` that a repeated `POST` answers with once the flow has ended well.
    pub fn message_again(&self) -> Value {
        self.row.message_again()
    }

    /// The `result` that `GET /flows/{id}` shows at the end.
    pub fn result(&self) -> Value {
        self.row.result()
    }

    /// The group of the function that takes `work`.
    pub fn working_group(&self) -> &'static str {
        self.functions[self.works].group
    }

    /// Whether `POST` answers before the flow has ended.
    pub fn is_detached(&self) -> bool {
        matches!(self.row.answer, flows::Answer::AtOnce(_))
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
