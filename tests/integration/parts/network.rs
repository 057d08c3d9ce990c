//! Free ports on loopback, and what answers where.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Where servers listen: below the ports that the kernel gives to outgoing connections and to listeners without a wish
/// (`ip_local_port_range`, from 32768), any of which could take a server's port as it starts, or answer in its place;
/// and below the ports of Kubernetes' services.
const PORTS: Range<u16> = 20_000..30_000;

/// A port that nothing listened on a moment ago, and that this process has not given out for long. Another process may
/// take it before the server does, so servers are started again on another one.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(997);
    for _ in PORTS {
        let turn = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(turn).expect("there are fewer ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("loopback has no free port among {PORTS:?}");
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
