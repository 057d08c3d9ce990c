//! Free ports on loopback.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port that nothing listened on a moment ago. Another process may take it
/// before the server does, so servers are started again on another one.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

/// Whether something accepts connections there.
pub fn accepts(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
