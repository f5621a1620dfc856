//! A service: the name of a group, and the functions that its processes run.

use resonate_sdk::{
    error::Result,
    prelude::{Durable, Resonate},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::guard::Guarded;

type Register = Box<dyn Fn(&Resonate) -> Result<()> + Send + Sync>;

/// A group and its functions.
pub struct Service {
    group: &'static str,
    namespace: &'static str,
    functions: Vec<(&'static str, Register)>,
}

impl Service {
    /// A service without functions. Its processes share the name `group`.
    pub fn new(group: &'static str) -> Self {
        Self { group, namespace: "", functions: Vec::new() }
    }

    /// Names the system that the service is a part of: `service.namespace` of its spans.
    pub fn namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    /// Adds a function that was written with `#[resonate_sdk::function]`.
    pub fn function<D, Args, T>(mut self, function: D) -> Self
    where
        D: Durable<Args, T> + Copy,
        Args: DeserializeOwned + Send + 'static,
        T: Serialize + Send + 'static,
    {
        let guarded = Guarded::new(function);
        self.functions.push((D::NAME, Box::new(move |resonate| resonate.register(guarded))));
        self
    }

    /// The name that all its processes share.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The names of its functions.
    pub fn functions(&self) -> Vec<&'static str> {
        self.functions.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn get_namespace(&self) -> &'static str {
        self.namespace
    }

    /// Registers each function with the SDK.
    ///
    /// # Errors
    /// Two functions have the same name.
    pub(crate) fn register(&self, resonate: &Resonate) -> Result<()> {
        self.functions.iter().try_for_each(|(_, register)| register(resonate))
    }
}
