//! Free ports on loopback, and what answers where.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
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
    connects(Ipv4Addr::LOCALHOST.into(), port)
}

/// The same of an address that is not loopback.
pub fn accepts_at(address: &str, port: u16) -> bool {
    address.parse().is_ok_and(|address| connects(address, port))
}

fn connects(address: IpAddr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(1)).is_ok()
}

/// Whether a process is in another network namespace than this one.
pub fn is_apart(pid: u32) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    network(&pid.to_string()).is_some_and(|other| Some(other) != network("self"))
}
