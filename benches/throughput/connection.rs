//! One connection without blocking, for the load generator and for the echo that has one thread.
//!
//! Reads what is there, writes what fits and keeps the rest. What the bytes mean is for others to say.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and nobody has taken yet.
    pub(crate) received: Vec<u8>,
    unsent: Vec<u8>,
    pub(crate) open: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, received: Vec::new(), unsent: Vec::new(), open: true }
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 16 * 1_024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(bytes) => self.received.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.open = false,
        }
    }

    /// Writes all of it, at once or as it fits.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(bytes) => drop(self.unsent.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Who can be read, by number.
pub(crate) struct Readiness {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self { epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(), events: Vec::with_capacity(1_024) }
    }

    pub(crate) fn add(&self, source: impl AsFd, number: u64) {
        epoll::add(&self.epoll, source, EventData::new_u64(number), EventFlags::IN).unwrap();
    }

    #[allow(dead_code, reason = "only servers lose clients")]
    pub(crate) fn remove(&self, source: impl AsFd) {
        epoll::delete(&self.epoll, source).unwrap();
    }

    /// Waits for at least one.
    pub(crate) fn wait(&mut self) -> Vec<u64> {
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), None).unwrap();
        self.events.iter().map(|event| event.data.u64()).collect()
    }
}
