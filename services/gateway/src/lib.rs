//! The HTTP gateway: it starts flows as durable promises, waits for their results, and shows their
//! state. It stores nothing: a restart loses no flow, and nothing is kept for a flow once nobody
//! waits for it.
//!
//! | module | what it does |
//! | --- | --- |
//! | `settings` | the `GATEWAY_` settings |
//! | `process` | the process from start to stop |
//! | `app` | what all requests share |
//! | `routes` | the routes, and `POST`: start a flow, wait for its result |
//! | `page` | what a browser loads: pages, scripts, styles, and their headers |
//! | `timeline` | what happened in a flow, for its page |
//! | `events` | `GET /flows/{id}/events`: the same, whenever it changes |
//! | `inspect` | `GET /flows/{id}`: the state of a flow and of its invocations |
//! | `cancel` | `DELETE /flows/{id}`: cancel a flow |
//! | `crash` | `POST /instances/{group}/{instance}/crash`: kill a process by a message |
//! | `held` | the process that holds a call, and how to kill it |
//! | `openapi` | writes `openapi.json`, the description of this interface; only in tests |
//! | `access` | the 401 for clients without a token |
//! | `limit` | the 429 for clients that send too many requests |
//! | `origin`, `hosts` | the 403 for pages of other sites, and for names that are not the gateway's |
//! | `span` | the span of a request |
//! | `request` | query parameters, headers and bodies, checked |
//! | `conflict` | the 422 for an id that belongs to something else |
//! | `client` | the requests to the Resonate Server |
//! | `waiters` | who waits for which promise |
//! | `follow` | how a flow ends that no request waits for |
//! | `measured` | the metrics of requests |
//! | `stats` | `GET /stats`: how many flows there were in the last minutes |
//! | `problem` | errors as HTTP clients see them |
//! | `trace_link` | the trace of a flow, for answers |

mod access;
mod app;
mod cancel;
mod client;
mod conflict;
mod crash;
mod events;
mod follow;
mod held;
mod hosts;
mod inspect;
mod limit;
mod measured;
#[cfg(test)]
mod openapi;
mod origin;
mod page;
mod problem;
mod process;
mod request;
mod routes;
mod settings;
mod span;
mod stats;
mod timeline;
mod trace_link;
mod waiters;

pub use self::settings::Settings;
pub use process::{Gateway, main, run};

/// The group of the gateway's connections, and the default name of its process.
pub const GROUP: &str = "gateway";
