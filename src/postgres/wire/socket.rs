//! A TCP connection that waits for bulk by the clock.
//!
//! A server sends the rows of COPY in pieces of 8 KiB (`PQ_SEND_BUFFER_SIZE`, pqcomm.c). Where the socket's readiness
//! is waited for, each piece wakes a thread, which costs about a tenth of a backup's processor time. So in the middle of
//! a bulk nothing waits for the socket: it is read every millisecond, and what came meanwhile lies in the kernel's buffer.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_postgres::Config;

/// What comes without a wait between is bulk from this size on, in bytes.
const BULK: usize = 32 * 1024;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(1);

/// Looks that find nothing, before readiness is waited for again.
const LOOKS: u32 = 8;

/// How the next bytes are waited for.
enum Waiting {
    ByReadiness(TcpStream),
    ByClock(std::net::TcpStream),
    /// An error on the way from one to the other.
    Lost,
}

/// A TCP connection to a server.
pub(super) struct BulkSocket {
    waiting: Waiting,
    /// Bytes that came since the last wait.
    came: usize,
    /// Looks that found nothing, one after another.
    looks: u32,
    next_look: Pin<Box<Sleep>>,
    /// Whether the next look is waited for.
    is_at_rest: bool,
}

impl BulkSocket {
    /// Connects, with the settings of sockets that the configuration has.
    pub(super) async fn connect(address: SocketAddr, config: &Config) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        if let Some(timeout) = config.get_tcp_user_timeout() {
            socket.set_tcp_user_timeout(Some(*timeout))?;
        }
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(Self {
            waiting: Waiting::ByReadiness(stream),
            came: 0,
            looks: 0,
            next_look: Box::pin(sleep(Duration::ZERO)),
            is_at_rest: false,
        })
    }

    /// Readiness is waited for from now on.
    fn by_readiness(&mut self) -> io::Result<&mut TcpStream> {
        self.waiting = match std::mem::replace(&mut self.waiting, Waiting::Lost) {
            Waiting::ByClock(stream) => Waiting::ByReadiness(TcpStream::from_std(stream)?),
            waiting => waiting,
        };
        match &mut self.waiting {
            Waiting::ByReadiness(stream) => Ok(stream),
            Waiting::ByClock(_) | Waiting::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The clock is waited for from now on: the socket wakes nobody.
    fn by_clock(&mut self) -> io::Result<()> {
        self.waiting = match std::mem::replace(&mut self.waiting, Waiting::Lost) {
            Waiting::ByReadiness(stream) => Waiting::ByClock(stream.into_std()?),
            waiting => waiting,
        };
        Ok(())
    }

    /// Takes what lies in the kernel's buffer. Where nothing does, readiness wakes whoever waits by it.
    fn take(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match &mut self.waiting {
            Waiting::ByReadiness(stream) => ready!(Pin::new(stream).poll_read(context, into))?,
            Waiting::ByClock(stream) => match stream.read(into.initialize_unfilled()) {
                Ok(bytes) => into.advance(bytes),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            },
            Waiting::Lost => return Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
        self.came += into.filled().len() - before;
        self.looks = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for BulkSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.is_at_rest {
                ready!(this.next_look.as_mut().poll(context));
                this.is_at_rest = false;
            }
            if let Poll::Ready(taken) = this.take(context, into) {
                return Poll::Ready(taken);
            }
            if std::mem::take(&mut this.came) >= BULK {
                this.by_clock()?;
            }
            if let Waiting::ByReadiness(_) = this.waiting {
                return Poll::Pending;
            }
            this.looks += 1;
            if this.looks > LOOKS {
                this.by_readiness()?;
            } else {
                this.next_look.as_mut().reset(Instant::now() + PERIOD);
                this.is_at_rest = true;
            }
        }
    }
}

impl AsyncWrite for BulkSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Waiting::ByClock(stream) = &mut this.waiting {
            match stream.write_vectored(parts) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(this.by_readiness()?).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing is kept back
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.waiting {
            Waiting::ByReadiness(stream) => Pin::new(stream).poll_shutdown(context),
            Waiting::ByClock(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Waiting::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (BulkSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config::new();
        let (ours, theirs) = tokio::join!(BulkSocket::connect(address, &config), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn bulk_is_waited_for_by_the_clock_and_what_comes_seldom_by_readiness() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(b"few").await.unwrap();
        ours.read_exact(&mut [0; 3]).await.unwrap();
        assert!(matches!(ours.waiting, Waiting::ByReadiness(_)));
        let bulk: Vec<u8> = (0..10_000_000_u32).map(|number| number.to_be_bytes()[2]).collect();
        let mut received = vec![0; bulk.len()];
        let mut was_by_clock = false;
        let reading = async {
            for piece in received.chunks_mut(64 * 1024) {
                ours.read_exact(piece).await.unwrap();
                was_by_clock |= matches!(ours.waiting, Waiting::ByClock(_));
            }
        };
        let (sent, ()) = tokio::join!(theirs.write_all(&bulk), reading);
        sent.unwrap();
        assert!(received == bulk);
        assert!(was_by_clock);
        // Both ways go on by the clock, and again by readiness.
        let mut answer = [0; 5];
        ours.write_all(b"query").await.unwrap();
        theirs.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"query");
        let late = async {
            sleep(Duration::from_millis(100)).await; // longer than all looks take
            theirs.write_all(b"reply").await.unwrap();
        };
        let ((), read) = tokio::join!(late, ours.read_exact(&mut answer));
        read.unwrap();
        assert_eq!(&answer, b"reply");
        assert!(matches!(ours.waiting, Waiting::ByReadiness(_)));
    }

    #[tokio::test]
    async fn a_connection_that_ends_in_the_middle_of_bulk_ends_the_reading() {
        let (mut ours, mut theirs) = pair().await;
        let ending = async move {
            theirs.write_all(&vec![1; 1_000_000]).await.unwrap();
            sleep(Duration::from_millis(3)).await; // while the clock is waited for
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(ending, ours.read_to_end(&mut received));
        assert_eq!(read.unwrap(), 1_000_000);
    }

    #[tokio::test]
    async fn more_than_the_other_side_takes_at_once_is_written_as_it_takes_it() {
        let (mut ours, mut theirs) = pair().await;
        ours.by_clock().unwrap();
        let bulk = vec![7; 10_000_000];
        let mut received = vec![0; bulk.len()];
        let (sent, read) = tokio::join!(ours.write_all(&bulk), theirs.read_exact(&mut received));
        sent.unwrap();
        read.unwrap();
        assert!(received == bulk);
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut received).await.unwrap(), 0);
    }
}
