//! Ports of this machine.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A port that nobody else gets as long as it is held, and at which nobody answers as long as nobody [listens](Self::listen).
///
/// To listen, to stop, and to hope that the port is free later does not do: another test may get it, and a process that another
/// test starts inherits the socket for a moment.
#[derive(Debug)]
pub struct Held(TcpSocket);

impl Held {
    /// Takes a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn take() -> Self {
        Self(bound((Ipv4Addr::LOCALHOST, 0).into()))
    }

    /// Returns its address.
    ///
    /// # Panics
    /// Never: it has one.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// Listens there, also another time once the listener before was dropped.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn listen(&self) -> TcpListener {
        bound(self.address()).listen(1024).expect("nobody else has the port")
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Who holds it and who listens have one port; both are of this process.
    socket.set_reuseport(true).expect("ports can be shared");
    socket.bind(address).expect("a free port");
    socket
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn nobody_answers_but_while_somebody_listens_and_nobody_else_gets_it() {
        let port = Held::take();
        let refused = TcpStream::connect(port.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(port.address()).await.unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let listener = port.listen();
        let (client, accepted) = tokio::join!(TcpStream::connect(port.address()), listener.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        drop(listener);
        port.listen();
    }
}
