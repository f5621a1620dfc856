//! Connections of message streams, which acknowledge at once what they receive.
//!
//! The Resonate Server leaves Nagle's algorithm on: it holds a small message back until the one before is
//! acknowledged. A client that sends nothing itself acknowledges up to 40 ms later. So messages that follow
//! each other closely would be 40 ms apart.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{ServiceExt, util::MapResponse};

/// Makes these connections.
pub(super) type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Acknowledged>;

/// The connector that makes them from those of `tcp`.
pub(super) fn connector(tcp: HttpConnector) -> Connector {
    tcp.map_response(Acknowledged)
}

/// A connection.
pub(super) struct Acknowledged(TokioIo<TcpStream>);

impl Acknowledged {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl Connection for Acknowledged {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}

impl Read for Acknowledged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.as_mut().inner().poll_read(context, buffer);
        #[cfg(target_os = "linux")]
        if read.is_ready() {
            // Once for each read: the kernel forgets it. If it fails, the next message may be late.
            let _ = rustix::net::sockopt::set_tcp_quickack(self.0.inner(), true);
        }
        read
    }
}

impl Write for Acknowledged {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(context)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use hyper::rt::ReadBuf;
    use rustix::net::sockopt::{set_tcp_quickack, tcp_quickack};
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    use tower::Service;

    use super::*;

    /// A connection whose acknowledgements wait, and on which a message is; and its other end.
    async fn connected() -> (TokioIo<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = HttpConnector::new().call(url).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        set_tcp_quickack(client.inner(), false).unwrap();
        server.write_all(b"message").await.unwrap();
        (client, server)
    }

    async fn read(connection: &mut (impl Read + Unpin)) {
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = |context: &mut Context<'_>| {
            Pin::new(&mut *connection).poll_read(context, buffer.unfilled())
        };
        std::future::poll_fn(read).await.unwrap();
        assert_eq!(buffer.filled(), b"message");
    }

    #[tokio::test]
    async fn what_is_read_is_acknowledged_at_once() {
        let (mut plain, _server) = connected().await;
        read(&mut plain).await;
        assert!(!tcp_quickack(plain.inner()).unwrap());
        let (client, _server) = connected().await;
        let mut acknowledged = Acknowledged(client);
        read(&mut acknowledged).await;
        assert!(tcp_quickack(acknowledged.0.inner()).unwrap());
    }
}
