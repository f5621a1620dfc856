//! The interface of the bottom layer.

use std::io;

use axum::body::Bytes;
use futures_util::stream::BoxStream;
use wire::{Exchange, ExchangeError};

/// The text of server-sent events, in pieces as they come.
pub type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// What carries requests and messages between a process and the Resonate Server.
#[async_trait::async_trait]
pub trait Transport: Exchange {
    /// The server's address, without credentials.
    fn server(&self) -> &str;

    /// Opens the message stream of the connection `id` of `group`.
    ///
    /// # Errors
    /// There is no stream.
    async fn open_stream(&self, group: &str, id: &str) -> Result<Chunks, ExchangeError>;

    /// Completes when the server refuses the token of this process: an open message stream does not
    /// tell.
    async fn refused(&self) {
        std::future::pending::<()>().await;
    }
}
