//! A collector that accepts spans and metrics, and drops them.

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing::post};

/// Starts a collector, and returns its address. It has a thread of its own: processes export while the
/// other thread waits for their end.
pub fn start() -> String {
    let accept = || post(async |_: Bytes| ()).layer(DefaultBodyLimit::disable());
    let routes = Router::new().route("/v1/traces", accept()).route("/v1/metrics", accept());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket of this process");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is one");
            axum::serve(listener, routes).await
        })
    });
    format!("http://{address}")
}
