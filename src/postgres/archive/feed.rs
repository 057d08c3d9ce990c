//! The bytes of an archive on their way from the input to whoever stores them, read in between by the decoder.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Reads from a channel of buffers, and passes on each buffer that has been read to its end: only what could be
/// decoded is passed on. Nothing is copied on that way.
pub(super) struct Feed {
    input: mpsc::Receiver<io::Result<Bytes>>,
    output: mpsc::Sender<Bytes>,
    current: Bytes,
    /// How much of `current` has been read.
    read: usize,
    /// Whether what is read is passed on.
    passing: bool,
    /// Bytes read in all.
    position: u64,
    /// The error of the input, kept apart from what decoders make of it.
    failed: Option<io::Error>,
}

impl Feed {
    pub(super) fn new(input: mpsc::Receiver<io::Result<Bytes>>, output: mpsc::Sender<Bytes>) -> Self {
        Self {
            input,
            output,
            current: Bytes::new(),
            read: 0,
            passing: false,
            position: 0,
            failed: None,
        }
    }

    /// Bytes read since the beginning of the input.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// From here on, what is read is passed on.
    pub(super) fn pass_on(&mut self) {
        self.current = self.current.split_off(self.read);
        self.read = 0;
        self.passing = true;
    }

    /// What has been read is passed on; what follows is not.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        let rest = self.current.split_off(self.read);
        let done = std::mem::replace(&mut self.current, rest);
        self.read = 0;
        self.send(done)?;
        self.passing = false;
        Ok(())
    }

    /// The error of the input, if it had one.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// The next byte without reading it, `None` at the end of the input.
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        self.fill()?;
        Ok(self.current.get(self.read).copied())
    }

    fn send(&self, done: Bytes) -> io::Result<()> {
        if !self.passing || done.is_empty() {
            return Ok(());
        }
        self.output
            .blocking_send(done)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Makes sure that `current` has something to read, unless the input has ended.
    fn fill(&mut self) -> io::Result<()> {
        while self.read == self.current.len() {
            let next = match self.input.blocking_recv() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    let kind = error.kind();
                    self.failed = Some(error);
                    return Err(kind.into());
                }
                None => return Ok(()),
            };
            let done = std::mem::replace(&mut self.current, next);
            self.read = 0;
            self.send(done)?;
        }
        Ok(())
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let rest = &self.current[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        self.position += length as u64;
        Ok(length)
    }
}
