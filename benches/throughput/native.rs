//! A client of `tenfold`, for the load generator; and its frames, for both ends.
//!
//! ```text
//!   hello, want ──▶ grants ──▶ report all of them in one message ──▶ answer and grants ──▶ report …
//! ```

use tenfold::limits;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{Decoder, SERVER_PREFACE_BYTES, VERSIONS, client_preface};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireRequest, WireSession};

use crate::load::Client;

/// Cuts what is received into frames, without the preface that comes before the first.
pub(crate) struct Frames {
    decoder: Decoder,
    /// Bytes of the preface that are still to come.
    preface: usize,
}

impl Frames {
    pub(crate) fn after(preface: usize) -> Self {
        Self { decoder: Decoder::new(limits::FRAME_BYTES_MAX), preface }
    }

    /// Takes what was received; whether the preface has come with it.
    pub(crate) fn push(&mut self, received: &mut Vec<u8>) -> bool {
        let skipped = self.preface.min(received.len());
        self.preface -= skipped;
        self.decoder.push(&received[skipped..]);
        received.clear();
        skipped > 0 && self.preface == 0
    }

    /// The body of the next frame.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        self.decoder.next_frame().unwrap()
    }
}

/// One client, a session of its own.
pub(crate) struct Native {
    number: u32,
    batch: u32,
    frames: Frames,
    next: u64,
    lent: Vec<u64>,
}

impl Native {
    pub(crate) fn new(number: u32, batch: u32) -> Self {
        Self { number, batch, frames: Frames::after(SERVER_PREFACE_BYTES), next: 1, lent: Vec::new() }
    }
}

impl Client for Native {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
        session[8..12].copy_from_slice(&self.number.to_le_bytes());
        session[15] = 1;
        let name = format!("load:{}", self.number);
        let session = WireSession { session, instance: [0; 16], attempt: 1, confirmed: 0, name };
        out.extend_from_slice(&client_preface(VERSIONS));
        let hello = ClientMessage::Hello { token: String::new(), session: Some(session) };
        codec::encode_client(&hello, out).unwrap();
        codec::encode_client(&ClientMessage::Want { leases: self.batch, runs: 1, campaigns: Vec::new() }, out).unwrap();
    }

    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) {
        self.frames.push(received);
        while let Some(body) = self.frames.next() {
            match codec::decode_server(body).unwrap() {
                ServerMessage::Grants { grants, .. } => self.lent.extend(grants.iter().map(|grant| grant.lease)),
                ServerMessage::Idle(idle) => panic!("there is nothing left to do: {idle:?}"),
                ServerMessage::Closing { text, .. } => panic!("{text}"),
                ServerMessage::Answers { refusals, .. } => assert!(refusals.is_empty(), "{refusals:?}"),
                ServerMessage::Welcome { .. } | ServerMessage::Heartbeat => {}
                other @ (ServerMessage::UnknownSession { .. }
                | ServerMessage::Lost { .. }
                | ServerMessage::Control { .. }) => panic!("{other:?} was not expected"),
            }
        }
        if self.lent.len() < self.batch as usize {
            return;
        }
        let requests: Vec<WireRequest> =
            self.lent.drain(..).map(|lease| WireRequest::Done { lease, runs: 1 }).collect();
        let (first, count) = (self.next, requests.len());
        codec::encode_client(&ClientMessage::Requests { first, confirmed: first - 1, requests }, out).unwrap();
        self.next += count as u64;
    }

    /// Leases go back at once, so that the next load finds a server at rest.
    fn leave(&mut self, out: &mut Vec<u8>) {
        codec::encode_client(&ClientMessage::Goodbye, out).unwrap();
    }
}
