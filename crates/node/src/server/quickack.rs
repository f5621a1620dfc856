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
    use std::{net::SocketAddr, time::Duration};

    use hyper::rt::ReadBuf;
    use tokio::{
        io::AsyncWriteExt,
        net::TcpListener,
        time::{Instant, sleep},
    };
    use tower::Service;

    use super::*;

    const MESSAGES: usize = 1_500;
    const MESSAGE: [u8; 120] = [b'x'; 120];

    /// Sends many small messages to whoever connects, with Nagle's algorithm.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..MESSAGES / 5 {
                for _ in 0..5 {
                    stream.write_all(&MESSAGE).await.unwrap();
                    tokio::task::yield_now().await;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        address
    }

    /// How often the next message took as long as a late acknowledgement, for a client that is busy.
    async fn stalls(mut connection: impl Read + Unpin) -> usize {
        let (mut bytes, mut received, mut stalls) = (vec![0; 65_536], 0, 0);
        for busy in (0..3_000).step_by(700).cycle() {
            if received == MESSAGES * MESSAGE.len() {
                break;
            }
            let (start, mut buffer) = (Instant::now(), ReadBuf::new(&mut bytes));
            let read = |context: &mut Context<'_>| {
                Pin::new(&mut connection).poll_read(context, buffer.unfilled())
            };
            std::future::poll_fn(read).await.unwrap();
            received += buffer.filled().len();
            stalls += usize::from(start.elapsed() > Duration::from_millis(30));
            sleep(Duration::from_micros(busy)).await;
        }
        stalls
    }

    #[tokio::test]
    async fn a_busy_client_does_not_hold_messages_up() {
        let url = |address| format!("http://{address}").parse().unwrap();
        let plain = HttpConnector::new().call(url(server().await)).await.unwrap();
        let plain = stalls(plain).await;
        let acknowledged = connector(HttpConnector::new()).call(url(server().await)).await.unwrap();
        let acknowledged = stalls(acknowledged).await;
        assert!(acknowledged * 2 < plain, "{acknowledged} stalls instead of {plain}");
    }
}
