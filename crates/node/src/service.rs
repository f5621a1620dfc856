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
    hands_over: bool,
    functions: Vec<(&'static str, Register)>,
}

impl Service {
    /// A service without functions. Its processes share the name `group`.
    pub fn new(group: &'static str) -> Self {
        Self { group, namespace: "", hands_over: false, functions: Vec::new() }
    }

    /// Names the system that the service is a part of: `service.namespace` of its spans.
    pub fn namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    /// Whether a call that was sent to [`wire::Address::first`] goes to the first process of the
    /// group, the one whose instance is named like the group, for as long as that is healthy. It
    /// costs the other processes a request for each new call. Default: no.
    pub fn hands_over(mut self, hands_over: bool) -> Self {
        self.hands_over = hands_over;
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

    pub(crate) fn get_hands_over(&self) -> bool {
        self.hands_over
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
