//! Servers as processes: started, watched, ended; and the load against one of them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::figures::{Measured, Shape};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ceiling,
    Epoll,
    Tenfold,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ceiling, Self::Epoll, Self::Tenfold];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Epoll => "ceiling-epoll",
            Self::Tenfold => "tenfold",
        }
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(kind: Kind, directory: &Path) -> Self {
        let mut command = match kind {
            Kind::Tenfold => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
                command.args(["serve", "--listen", "127.0.0.1:0", "--drain", "1ms", "--data-dir"]);
                command.arg(directory.join("data")).stdout(Stdio::null()).stderr(Stdio::piped());
                command
            }
            Kind::Ceiling | Kind::Epoll => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg(kind.word()).arg(directory.join(kind.word())).stdout(Stdio::piped());
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said: Box<dyn Read + Send> = match (out, err) {
            (Some(out), _) => Box::new(out),
            (None, err) => Box::new(err.unwrap()),
        };
        let mut lines = BufReader::new(said).lines();
        let address = loop {
            let line = lines.next().expect("the server ended instead of listening").unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.to_owned();
            }
        };
        // Whatever it says later is read, so that it never waits for a reader, and shown.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("server: {line}")));
        let server = Self { child, address };
        if kind == Kind::Tenfold {
            server.create();
        }
        server
    }

    fn create(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
        command.args(["create", "load", "--range", "0..10000000", "--runs", "100", "--server", &self.address]);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "no campaign");
    }

    /// Has so many clients report so many runs a message for so many seconds.
    pub(crate) fn load(&self, shape: Shape, seconds: f64) -> Measured {
        let mut load = Command::new(std::env::current_exe().unwrap());
        load.arg("load").arg(&self.address).args([shape.clients, shape.batch].map(|number| number.to_string()));
        Measured::of(self.child.id(), load.arg(seconds.to_string()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
