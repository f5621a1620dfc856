//! A body whose end is noticed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::pool::Connection;

/// A body that tells its connection when it is dropped: it is complete, or nobody needs it any more.
pub(super) struct Tracked<B> {
    body: B,
    connection: Arc<Connection>,
    at_end: fn(&Connection),
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, connection: &Arc<Connection>, at_end: fn(&Connection)) -> Self {
        Self { body, connection: connection.clone(), at_end }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        (self.at_end)(&self.connection);
    }
}
