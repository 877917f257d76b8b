//! One connection without blocking, for the load generator and for the echo that has one thread.
//!
//! Reads what is there, cuts it into frames, writes what fits and keeps the rest.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tenfold::limits;
use tenfold::protocol::frame::Decoder;

/// A connection.
pub(crate) struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    /// Bytes of the preface that are still to come.
    preface: usize,
    unsent: Vec<u8>,
    pub(crate) open: bool,
}

impl Peer {
    /// `preface`: bytes that come before the first frame.
    pub(crate) fn new(stream: TcpStream, preface: usize) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, decoder: Decoder::new(limits::FRAME_BYTES_MAX), preface, unsent: Vec::new(), open: true }
    }

    /// Reads what is there; whether the preface has come with it.
    pub(crate) fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1_024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(bytes) => {
                let skipped = self.preface.min(bytes);
                self.preface -= skipped;
                self.decoder.push(&buffer[skipped..bytes]);
                return skipped > 0 && self.preface == 0;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.open = false,
        }
        false
    }

    /// The body of the next frame.
    pub(crate) fn frame(&mut self) -> Option<&[u8]> {
        self.decoder.next_frame().unwrap()
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

impl AsFd for Peer {
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
