//! A TCP proxy between one process and a server, to be cut as a network is: without FIN or RST.
//!
//! A cut is made by the kernel: a socket filter drops each packet that reaches the proxy's own
//! sockets. So nothing is acknowledged, TCP keep-alive gets no answer, and new connections time out.
//! After [`Cable::heal`], the kernels of both sides send again what was lost. Linux only.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use socket2::{SockFilter, SockRef};

/// `return 0`: the program of a filter that drops every packet.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// How long the proxy tries to reach a server, which may be frozen.
const CONNECT: Duration = Duration::from_secs(1);

/// A cable. It is unplugged on drop.
pub struct Cable {
    /// The address at which the process finds the server.
    address: SocketAddr,
    listener: TcpListener,
    ends: Arc<Mutex<Ends>>,
}

struct Ends {
    /// The address of the server.
    server: SocketAddr,
    cut: bool,
    /// Both sockets of each connection that has not ended.
    connections: Vec<Arc<[TcpStream; 2]>>,
    /// Connections that a healed cable does not carry any more.
    forgotten: Vec<Arc<[TcpStream; 2]>>,
}

impl Cable {
    /// A cable to the server at this address.
    pub fn to(server: SocketAddr) -> Self {
        // Below the ports of outgoing connections, like the server's own.
        let port = crate::free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let ends = Ends { server, cut: false, connections: Vec::new(), forgotten: Vec::new() };
        let cable = Self {
            address: listener.local_addr().unwrap(),
            listener: listener.try_clone().unwrap(),
            ends: Arc::new(Mutex::new(ends)),
        };
        let ends = cable.ends.clone();
        thread::spawn(move || {
            // It fails once the cable is dropped.
            while let Ok((client, _)) = listener.accept() {
                connect(&ends, client);
            }
        });
        cable
    }

    /// The URL at which the process finds the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts the cable: no packet passes, in either direction.
    pub fn cut(&self) {
        let mut ends = self.ends.lock().unwrap();
        ends.cut = true;
        SockRef::from(&self.listener).attach_filter(&DROP_ALL).unwrap();
        ends.connections.iter().flat_map(|it| it.iter()).for_each(drop_packets);
    }

    /// Heals the cable: its connections continue.
    pub fn heal(&self) {
        self.ends.lock().unwrap().heal(&self.listener);
    }

    /// Heals the cable for new connections. Packets of the old ones are still dropped, as by a
    /// firewall that has lost its state.
    pub fn heal_forgetting(&self) {
        let mut ends = self.ends.lock().unwrap();
        ends.connections.iter().flat_map(|it| it.iter()).for_each(drop_packets);
        let old = std::mem::take(&mut ends.connections);
        ends.forgotten.extend(old);
        ends.heal(&self.listener);
    }

    /// Closes the connections that were forgotten: the server sees their end.
    pub fn close_forgotten(&self) {
        for socket in self.ends.lock().unwrap().forgotten.iter().flat_map(|it| it.iter()) {
            // It fails if the connection has ended.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Connections from now on go to the server at another address.
    pub fn move_to(&self, server: SocketAddr) {
        self.ends.lock().unwrap().server = server;
    }
}

impl Ends {
    fn heal(&mut self, listener: &TcpListener) {
        if std::mem::take(&mut self.cut) {
            SockRef::from(listener).detach_filter().unwrap();
            for socket in self.connections.iter().flat_map(|it| it.iter()) {
                SockRef::from(socket).detach_filter().unwrap();
            }
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Wakes the threads, which end at that. It fails for connections that have ended.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let ends = self.ends.lock().unwrap();
        for socket in ends.connections.iter().chain(&ends.forgotten).flat_map(|it| it.iter()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Connects `client` to the server, until one of them closes the connection.
fn connect(ends: &Arc<Mutex<Ends>>, client: TcpStream) {
    let server = ends.lock().unwrap().server;
    // A client whose server is away sees its connection closed.
    let Ok(server) = TcpStream::connect_timeout(&server, CONNECT) else { return };
    let connection = {
        let mut ends = ends.lock().unwrap();
        let sockets = [client, server];
        for socket in &sockets {
            socket.set_nodelay(true).unwrap();
            if ends.cut {
                drop_packets(socket);
            }
        }
        let connection = Arc::new(sockets);
        ends.connections.push(connection.clone());
        connection
    };
    for (from, to) in [(0, 1), (1, 0)] {
        let (connection, ends) = (connection.clone(), ends.clone());
        thread::spawn(move || {
            let (from, to) = (&connection[from], &connection[to]);
            let (mut reader, mut writer) = (from, to);
            match io::copy(&mut reader, &mut writer) {
                Ok(_) => drop(to.shutdown(Shutdown::Write)),
                // Both directions end.
                Err(_) => [from, to].into_iter().for_each(|it| drop(it.shutdown(Shutdown::Both))),
            }
            let mut ends = ends.lock().unwrap();
            // The other direction has ended before if only the list still has the connection.
            if Arc::strong_count(&connection) == 2 {
                ends.connections.retain(|it| !Arc::ptr_eq(it, &connection));
                ends.forgotten.retain(|it| !Arc::ptr_eq(it, &connection));
            }
            // Before the lock is.
            drop(connection);
        });
    }
}

fn drop_packets(socket: &TcpStream) {
    SockRef::from(socket).attach_filter(&DROP_ALL).unwrap();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    /// A server that greets with its name and sends back what it receives.
    fn server(name: u8) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let (mut reader, mut writer) = (&client, &client);
                    writer.write_all(&[name]).and_then(|()| io::copy(&mut reader, &mut writer))
                });
            }
        });
        address
    }

    fn client(cable: &Cable) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&cable.address, SHORT)
    }

    /// The next byte within `patience`.
    fn byte(mut client: &TcpStream, patience: Duration) -> io::Result<u8> {
        client.set_read_timeout(Some(patience)).unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).map(|()| byte[0])
    }

    #[test]
    fn a_cut_cable_carries_nothing_and_a_healed_one_what_was_lost() {
        let cable = Cable::to(server(1));
        let old = client(&cable).unwrap();
        assert_eq!(byte(&old, crate::DEADLINE).unwrap(), 1);
        cable.cut();
        (&old).write_all(&[42]).unwrap();
        assert_eq!(byte(&old, SHORT).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(client(&cable).unwrap_err().kind(), io::ErrorKind::TimedOut);
        cable.heal();
        assert_eq!(byte(&old, crate::DEADLINE).unwrap(), 42);

        cable.cut();
        (&old).write_all(&[43]).unwrap();
        cable.heal_forgetting();
        cable.move_to(server(2));
        let new = client(&cable).unwrap();
        assert_eq!(byte(&new, crate::DEADLINE).unwrap(), 2);
        assert_eq!(byte(&old, 4 * SHORT).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(cable);
        assert_eq!(byte(&new, crate::DEADLINE).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
