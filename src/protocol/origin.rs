//! The origin's dialect: text between a start and an end token. Clients send Python dictionaries of whole numbers,
//! servers whole numbers.
//!
//! ```text
//! crrrazy_msg_START{11: 2}crrrazy_msg_END      client: two units of task 11 are done; {} only asks
//! crrrazy_msg_START12crrrazy_msg_END           server: work on task 12; -1: all settled; -2: wait and ask again
//! ```
//!
//! The origin executed what its clients sent. This parser takes what a Python dictionary of decimal literals may look
//! like (any white space, a comma at the end, signs, underscores between digits; of equal keys the last wins, in the
//! place of the first) and refuses everything else: other bases, expressions, names, strings, comments. No client
//! writes those, since `str()` of a dictionary does not.
//!
//! **Invariants.** However the bytes are split, the messages are the same, and the cost is proportional to the bytes. At
//! most one message of [`limits::ORIGIN_MESSAGE_BYTES_MAX`] is kept. Before the first message only white space may
//! precede the start token (whoever begins otherwise is no client of the origin); later on, bytes before it are skipped.
//! Whether tasks exist and units are in their range is decided elsewhere. Tested here.

use std::collections::HashMap;

use crate::limits;

/// Begins every message.
pub const START: &[u8] = b"crrrazy_msg_START";

/// Ends every message.
pub const END: &[u8] = b"crrrazy_msg_END";

/// Why a connection of the origin's dialect cannot go on. Nothing of the message is to be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The connection does not begin with a start token.
    #[error("the connection begins with neither a known protocol nor {:?}", START.escape_ascii().to_string())]
    NoStart,
    /// A message without an end, or bytes without a start.
    #[error("{} bytes without a whole message", limits::ORIGIN_MESSAGE_BYTES_MAX)]
    TooLong,
    /// The text is not a dictionary of whole numbers.
    #[error("not a dictionary of whole numbers, at byte {at} of the message: {expected} expected")]
    NotADictionary {
        /// Where, counted from the end of the start token.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// A number below 0 or above 2^64 - 1.
    #[error("a number is negative or too large, at byte {at} of the message")]
    OutOfRange {
        /// Where its entry begins, counted from the end of the start token.
        at: usize,
    },
    /// Too many entries.
    #[error("more than {} entries in one message", limits::ORIGIN_ENTRIES_MAX)]
    TooManyEntries,
    /// A server's answer is not a whole number.
    #[error("the answer is not a whole number")]
    NotANumber,
}

/// Cuts a client's bytes into messages: what is done of which task, possibly nothing.
///
/// ```
/// use tenfold::protocol::origin::Decoder;
/// let mut decoder = Decoder::default();
/// decoder.push(b"crrrazy_msg_START{11: 2}crrrazy_");
/// assert_eq!(decoder.next_message(), Ok(None));
/// decoder.push(b"msg_END");
/// assert_eq!(decoder.next_message(), Ok(Some(vec![(11, 2)])));
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    texts: Texts,
}

impl Decoder {
    /// Takes bytes as they were read. Ask for messages until there are none before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.texts.push(bytes);
    }

    /// The next whole message as (task number, units), each task once; `None`: push more first.
    ///
    /// # Errors
    /// The connection is to be closed; nothing of the message may be counted.
    pub fn next_message(&mut self) -> Result<Option<Vec<(u64, u64)>>, OriginError> {
        self.texts.next_text()?.map(parse_dictionary).transpose()
    }

    /// Bytes that wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.texts.buffer.len() - self.texts.taken
    }
}

/// Cuts a server's bytes into answers; for clients in tests and examples.
#[derive(Debug, Default)]
pub struct AnswerDecoder {
    texts: Texts,
}

impl AnswerDecoder {
    /// Takes bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.texts.push(bytes);
    }

    /// The next whole answer; `None`: push more first.
    ///
    /// # Errors
    /// The server does not speak this dialect.
    pub fn next_answer(&mut self) -> Result<Option<i64>, OriginError> {
        let Some(text) = self.texts.next_text()? else { return Ok(None) };
        let number = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or(OriginError::NotANumber)
    }
}

/// A server's answer as bytes.
pub fn encode_answer(answer: i64) -> Vec<u8> {
    [START, answer.to_string().as_bytes(), END].concat()
}

/// A client's message as bytes, written as Python writes a dictionary; for clients in tests and examples.
pub fn encode_message(done: &[(u64, u64)]) -> Vec<u8> {
    let entries: Vec<String> = done.iter().map(|(task, units)| format!("{task}: {units}")).collect();
    [START, b"{", entries.join(", ").as_bytes(), b"}", END].concat()
}

/// Finds the texts between tokens.
#[derive(Debug, Default)]
struct Texts {
    buffer: Vec<u8>,
    /// Bytes at the front that are done with.
    taken: usize,
    /// Bytes behind those that were searched without finding the token in question.
    searched: usize,
    /// Whether the front stands right behind a start token.
    started: bool,
    /// Whether a whole message was seen.
    seen_one: bool,
    /// Bytes skipped since the last message.
    skipped: usize,
}

impl Texts {
    fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn next_text(&mut self) -> Result<Option<&[u8]>, OriginError> {
        if !self.started && !self.find_start()? {
            return Ok(None);
        }
        let allowed = limits::ORIGIN_MESSAGE_BYTES_MAX - START.len() - END.len();
        let Some(length) = self.find(END) else {
            // What is kept is at most a whole message but its last byte.
            if self.buffer.len() - self.taken >= allowed + END.len() {
                return Err(OriginError::TooLong);
            }
            return Ok(None);
        };
        if length > allowed {
            return Err(OriginError::TooLong);
        }
        let text = self.taken..self.taken + length;
        self.taken = text.end + END.len();
        self.searched = 0;
        self.started = false;
        self.seen_one = true;
        self.skipped = 0;
        Ok(Some(&self.buffer[text]))
    }

    /// Moves the front behind the next start token, if it has arrived.
    fn find_start(&mut self) -> Result<bool, OriginError> {
        if !self.seen_one {
            let rest = &self.buffer[self.taken..];
            let begun = rest.trim_ascii_start();
            self.skip(rest.len() - begun.len())?;
            let rest = &self.buffer[self.taken..];
            if !rest.starts_with(START) && !START.starts_with(rest) {
                return Err(OriginError::NoStart);
            }
        }
        if let Some(at) = self.find(START) {
            self.skip(at)?;
            self.taken += START.len();
            self.searched = 0;
            self.started = true;
            Ok(true)
        } else {
            // The last bytes may be the beginning of a token.
            let useless = (self.buffer.len() - self.taken).saturating_sub(START.len() - 1);
            self.skip(useless)?;
            Ok(false)
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), OriginError> {
        self.taken += bytes;
        self.searched = self.searched.saturating_sub(bytes);
        self.skipped += bytes;
        if self.skipped > limits::ORIGIN_MESSAGE_BYTES_MAX { Err(OriginError::TooLong) } else { Ok(()) }
    }

    /// Where `token` begins behind the front; remembers how far it looked, so that single bytes cost no more than
    /// bursts.
    fn find(&mut self, token: &[u8]) -> Option<usize> {
        let rest = &self.buffer[self.taken..];
        let from = self.searched.min(rest.len());
        let found = rest[from..].windows(token.len()).position(|window| window == token);
        if found.is_none() {
            self.searched = rest.len().saturating_sub(token.len() - 1);
        }
        found.map(|at| from + at)
    }
}

/// Reads `{11: 2, 12: 1}`.
fn parse_dictionary(text: &[u8]) -> Result<Vec<(u64, u64)>, OriginError> {
    let mut cursor = Cursor { text, at: 0 };
    // Where in the text and as what the value of each task was last given; `None` is out of range.
    let mut entries: Vec<(u64, Option<u64>, usize)> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut read = 0;
    cursor.skip_white_space();
    cursor.expect(b'{', "{")?;
    loop {
        cursor.skip_white_space();
        if cursor.take(b'}') {
            break;
        }
        if read == limits::ORIGIN_ENTRIES_MAX {
            return Err(OriginError::TooManyEntries);
        }
        read += 1;
        let at = cursor.at;
        // A key out of range stays in the dictionary whatever follows, so it is refused at once; a value may be replaced.
        let task = cursor.number()?.ok_or(OriginError::OutOfRange { at })?;
        cursor.skip_white_space();
        cursor.expect(b':', "a colon")?;
        cursor.skip_white_space();
        let units = cursor.number()?;
        let place = *places.entry(task).or_insert(entries.len());
        match entries.get_mut(place) {
            Some(entry) => *entry = (task, units, at),
            None => entries.push((task, units, at)),
        }
        cursor.skip_white_space();
        if !cursor.take(b',') {
            cursor.expect(b'}', "a comma or }")?;
            break;
        }
    }
    cursor.skip_white_space();
    if cursor.at != text.len() {
        return Err(cursor.unexpected("the end"));
    }
    entries
        .into_iter()
        .map(|(task, units, at)| units.map(|units| (task, units)).ok_or(OriginError::OutOfRange { at }))
        .collect()
}

struct Cursor<'text> {
    text: &'text [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), OriginError> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> OriginError {
        OriginError::NotADictionary { at: self.at, expected }
    }

    /// Python's white space between tokens: space, tab, line feed, carriage return, form feed.
    fn skip_white_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// A decimal literal of Python with at most one sign; `Ok(None)` if it is one, but below 0 or above 2^64 - 1.
    ///
    /// Underscores may stand between digits, and zeros in front only of zeros.
    fn number(&mut self) -> Result<Option<u64>, OriginError> {
        let negative = self.take(b'-');
        if negative || self.take(b'+') {
            self.skip_white_space();
        }
        let start = self.at;
        let mut value = Some(0_u64);
        let mut digits = 0_usize;
        loop {
            match self.peek() {
                Some(byte @ b'0'..=b'9') => {
                    let digit = u64::from(byte - b'0');
                    value = value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
                    digits += 1;
                    self.at += 1;
                }
                Some(b'_') if self.at > start && self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit) => {
                    self.at += 1;
                }
                _ => break,
            }
        }
        if digits == 0 {
            return Err(self.unexpected("a number"));
        }
        if digits > 1 && self.text[start] == b'0' && value != Some(0) {
            self.at = start;
            return Err(self.unexpected("a number without zeros in front"));
        }
        Ok(if negative && value != Some(0) { None } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Vec<u8> {
        [START, text.as_bytes(), END].concat()
    }

    fn read_all(stream: &[u8], piece: usize) -> Result<Vec<Vec<(u64, u64)>>, OriginError> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.push(bytes);
            while let Some(message) = decoder.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            ("{}", vec![]),
            ("{11: 2}", vec![(11, 2)]),
            ("{11:2,12:1}", vec![(11, 2), (12, 1)]),
            (" \t\r\n\x0c{ \n11 \n: \n2 \n, \n}\n ", vec![(11, 2)]),
            ("{1: 1, 2: 2, 1: 3}", vec![(1, 3), (2, 2)]),
            ("{+1: +2}", vec![(1, 2)]),
            ("{-0: - 0}", vec![(0, 0)]),
            ("{1_000: 1_0}", vec![(1000, 10)]),
            ("{00: 0_0}", vec![(0, 0)]),
            ("{18446744073709551615: 1}", vec![(u64::MAX, 1)]),
            ("{1: -5, 1: 2}", vec![(1, 2)]),
        ] {
            assert_eq!(parse_dictionary(text.as_bytes()), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "{}}",
            "{{}",
            "{,}",
            "{1}",
            "{1:}",
            "{:1}",
            "{1: 2",
            "{1: 2,,}",
            "{1: 2 3: 4}",
            "{1 2: 3}",
            "{1: 2}; x",
            "[1]",
            "1",
            "None",
            "dict()",
            "{'1': 2}",
            "{1: '2'}",
            "{1: 2.0}",
            "{1: 1e3}",
            "{1: True}",
            "{0x10: 1}",
            "{01: 1}",
            "{1__0: 1}",
            "{1_: 1}",
            "{_1: 1}",
            "{--1: 1}",
            "{1: 1+1}",
            "{1: 2} # done",
            "{1: \\\n2}",
            "{1: {}}",
            "{١: 2}",
            "{1: 2}\u{a0}",
            "__import__('os')",
            "crrrazy_msg_START{}",
        ] {
            assert!(
                matches!(parse_dictionary(text.as_bytes()), Err(OriginError::NotADictionary { .. })),
                "{text:?} gave {:?}",
                parse_dictionary(text.as_bytes())
            );
        }
        for text in ["{-1: 1}", "{1: -1}", "{18446744073709551616: 1}", "{1: 99999999999999999999999}", "{1: 2, 1: -2}"]
        {
            assert!(matches!(parse_dictionary(text.as_bytes()), Err(OriginError::OutOfRange { .. })), "{text:?}");
        }
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let stream = [
            message("{}"),
            b"noise crrrazy_msg_STAR crrrazy_msg_END ".to_vec(),
            message("{11: 2}"),
            message("{12: 1, 13: 2}"),
            b"\r\n".to_vec(),
            message(" {\n} "),
        ]
        .concat();
        let expected = vec![vec![], vec![(11, 2)], vec![(12, 1), (13, 2)], vec![]];
        for piece in 1..=stream.len() {
            assert_eq!(read_all(&stream, piece), Ok(expected.clone()), "in pieces of {piece}");
        }
    }

    #[test]
    fn the_first_bytes_must_begin_a_message() {
        assert_eq!(read_all(b"hello", 1), Err(OriginError::NoStart));
        assert_eq!(read_all(b"crrrazy_msg_stop", 1), Err(OriginError::NoStart));
        assert_eq!(read_all(&[b" \n".to_vec(), message("{}")].concat(), 1), Ok(vec![vec![]]));
        assert_eq!(read_all(&[b"crrrazy_msg_STARTcr".to_vec(), message("{}")].concat(), 7).ok(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_longest_message_fits() {
        let room = limits::ORIGIN_MESSAGE_BYTES_MAX - START.len() - END.len();
        let padded = |length: usize| message(&format!("{{1: 2{}}}", " ".repeat(length - 6)));
        assert_eq!(padded(room).len(), limits::ORIGIN_MESSAGE_BYTES_MAX);
        for piece in [1, 1000, usize::MAX] {
            assert_eq!(read_all(&padded(room), piece), Ok(vec![vec![(1, 2)]]));
            assert_eq!(read_all(&padded(room + 1), piece), Err(OriginError::TooLong), "in pieces of {piece}");
        }
        let mut decoder = Decoder::default();
        decoder.push(&message("{}"));
        assert!(decoder.next_message().unwrap().is_some());
        let mut pushed = 0;
        let refused = loop {
            decoder.push(&[b'x'; 1000]);
            pushed += 1000;
            if let Err(error) = decoder.next_message() {
                break error;
            }
            assert!(decoder.texts.buffer.len() < 1000 + START.len(), "noise is not kept");
        };
        assert_eq!(refused, OriginError::TooLong);
        assert!(pushed <= limits::ORIGIN_MESSAGE_BYTES_MAX + 2000);
    }

    #[test]
    fn entries_are_bounded_before_equal_keys_are_merged() {
        let many = |count: usize| format!("{{{}}}", "7: 1,".repeat(count));
        let most = limits::ORIGIN_ENTRIES_MAX;
        assert_eq!(parse_dictionary(many(most).as_bytes()), Ok(vec![(7, 1)]));
        assert_eq!(parse_dictionary(many(most + 1).as_bytes()), Err(OriginError::TooManyEntries));
    }

    #[test]
    fn the_client_side_reads_what_the_server_side_writes() {
        let mut decoder = AnswerDecoder::default();
        for answer in [0, 11, -1, -2, i64::MAX] {
            decoder.push(&encode_answer(answer));
            assert_eq!(decoder.next_answer(), Ok(Some(answer)));
        }
        assert_eq!(decoder.next_answer(), Ok(None));
        assert_eq!(encode_answer(-2), b"crrrazy_msg_START-2crrrazy_msg_END");
        assert_eq!(encode_message(&[]), message("{}"));
        assert_eq!(encode_message(&[(11, 2), (12, 1)]), message("{11: 2, 12: 1}"));
        decoder.push(&message("x"));
        assert_eq!(decoder.next_answer(), Err(OriginError::NotANumber));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let alphabet: [&[u8]; 14] = [
            START,
            END,
            b"{",
            b"}",
            b":",
            b",",
            b"0",
            b"17",
            b"-",
            b"_",
            b" ",
            b"crr",
            b"\xff",
            b"99999999999999999999",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut stream = START.to_vec();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                stream.extend_from_slice(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let whole = read_all(&stream, usize::MAX);
            assert_eq!(read_all(&stream, 1), whole, "{}", stream.escape_ascii());
        }
    }
}
