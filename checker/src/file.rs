//! One file to which every process of a test appends, one record a write.
//!
//! The kernel orders appends to one file, so a record stands behind everything that its writer had seen when it wrote it. It
//! keeps what it was given when the writer is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::history::{History, Record, Who, line};

/// Appends records. Every process has its own.
#[derive(Debug)]
pub struct Writer {
    file: File,
    who: Who,
}

impl Writer {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path, who: Who) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, who })
    }

    /// One record, one write.
    ///
    /// # Errors
    /// The operating system's: the record may be cut short.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        (&self.file).write_all(line(self.who, record).as_bytes())
    }

    /// Several records in as few writes as may be.
    ///
    /// # Errors
    /// The operating system's: some are written, and one may be cut short.
    pub fn write_all(&self, records: &[Record]) -> io::Result<()> {
        let lines: String = records.iter().map(|record| line(self.who, record)).collect();
        (&self.file).write_all(lines.as_bytes())
    }
}

/// Follows a history while it grows.
#[derive(Debug)]
pub struct Tail {
    file: File,
    rest: Vec<u8>,
    /// Answers that clients have read so far.
    pub acks: u64,
}

impl Tail {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, rest: Vec::new(), acks: 0 })
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// The operating system's.
    pub fn look(&mut self) -> io::Result<()> {
        self.file.read_to_end(&mut self.rest)?;
        // The last line may not be whole yet.
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines = self.rest[..end].split(|byte| *byte == b'\n');
        self.acks += lines.filter(|line| is_ack(line)).count() as u64;
        self.rest.drain(..end);
        Ok(())
    }

    /// Reads everything from the beginning.
    ///
    /// # Errors
    /// The operating system's.
    pub fn all(&mut self) -> io::Result<History> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(History::parse(&String::from_utf8_lossy(&bytes)))
    }
}

fn is_ack(line: &[u8]) -> bool {
    line.split(|byte| *byte == b' ').nth(1) == Some(b"ack")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Heard, Sent};

    #[test]
    fn a_tail_counts_every_answer_once() {
        let path = std::env::temp_dir().join(format!("tenfold-checker-tail-{}", std::process::id()));
        let writer = Writer::open(&path, 1).unwrap();
        let mut tail = Tail::open(&path).unwrap();
        tail.look().unwrap();
        assert_eq!(tail.acks, 0);
        for number in 1..=50 {
            writer.write(&Record::Ack { number, heard: Heard::Counted }).unwrap();
            writer.write(&Record::Send { number, lease: number, what: Sent::Release }).unwrap();
            if number % 7 == 0 {
                tail.look().unwrap();
            }
        }
        writer.write_all(&[Record::Look, Record::End]).unwrap();
        tail.look().unwrap();
        tail.look().unwrap();
        assert_eq!(tail.acks, 50);
        let history = tail.all().unwrap();
        assert_eq!((history.lines.len(), history.unreadable.len(), history.cut.len()), (102, 0, 0));
        std::fs::remove_file(path).unwrap();
    }
}
