//! One run: starts its guard, passes its output on by whole lines, and says how it ended.
//!
//! ```text
//!   started ──▶ ended by itself ─┬─ 0 ──▶ Done
//!      │                         ├─ 75 ─▶ GivenBack
//!      │                         └─ else, or by a signal ──▶ Failed(last line of stderr)
//!      └──▶ lease lost · timed out · told to stop ──▶ killed, all of it, then Lost · Failed · Stopped
//! ```
//!
//! A run is over when its guard has said the last word: by then the process group is gone. Output that is still in the
//! pipes is read to its end, unless nothing comes for [`DRAIN`]: something that escaped may hold them open.
//! Tested by `tests/cli_work.rs`; the pure parts in this file.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::lines::{LastLine, LineCutter};
use super::printer::Printer;
use crate::cli::guard::{Word, guarded};
use crate::types::LossReason;

/// How long to wait for output that may still come after the run has ended, or for its guard.
const DRAIN: Duration = Duration::from_secs(1);

/// How long to wait for a killed run to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The exit code with which COMMAND gives a run back (`EX_TEMPFAIL`).
const GIVE_BACK: i32 = 75;

/// What a run is told about itself.
#[derive(Clone, Debug)]
pub(super) struct RunDescription {
    pub(super) campaign: String,
    pub(super) task: u64,
    pub(super) key: Option<String>,
    /// Number and seed, in numbered campaigns.
    pub(super) numbered: Option<(u64, u64)>,
    pub(super) lease: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// COMMAND ended with 0.
    Done,
    /// COMMAND failed or took too long: what is known about it.
    Failed(String),
    /// COMMAND ended with 75.
    GivenBack,
    /// Its lease was lost; it was killed.
    Lost(LossReason),
    /// The worker was told to stop at once; it was killed.
    Stopped,
    /// COMMAND does not exist or cannot be executed.
    CannotStart(String),
}

impl RunDescription {
    /// `[ising 17]` or `[ising 17#3]`: what stands in front of its lines.
    pub(super) fn label(&self) -> String {
        match self.numbered {
            Some((run, _)) => format!("{} {}#{run}", self.campaign, self.task),
            None => format!("{} {}", self.campaign, self.task),
        }
    }

    /// What `{}` stands for.
    fn item(&self) -> String {
        self.key.clone().unwrap_or_else(|| self.task.to_string())
    }

    /// Its variables; `None` removes one that this worker inherited.
    fn environment(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("TENFOLD_CAMPAIGN", Some(self.campaign.clone())),
            ("TENFOLD_TASK", Some(self.task.to_string())),
            ("TENFOLD_KEY", self.key.clone()),
            ("TENFOLD_RUN", self.numbered.map(|(run, _)| run.to_string())),
            ("TENFOLD_SEED", self.numbered.map(|(_, seed)| seed.to_string())),
            ("TENFOLD_LEASE", Some(self.lease.to_string())),
        ]
    }
}

/// Executes one run. `lost` and `stopped` are pending for as long as all is well.
pub(super) async fn execute(
    command: &[OsString],
    run: &RunDescription,
    timeout: Option<Duration>,
    printer: &Printer,
    prefixed: bool,
    lost: impl Future<Output = LossReason>,
    stopped: impl Future<Output = ()>,
) -> Ending {
    if run.key.as_ref().is_some_and(|key| key.contains('\0')) {
        return Ending::Failed("the key has a NUL character, which no argument or variable can have".to_owned());
    }
    let mut process = match Process::start(command, run) {
        Ok(process) => process,
        Err(error) => return Ending::CannotStart(format!("cannot start a process: {error}")),
    };
    let prefix = if prefixed { format!("[{}] ", run.label()) } else { String::new() };
    let (ended, end) = watch::channel(false);
    let output = tokio::spawn(pass_on(process.stdout.take(), printer.clone(), prefix.clone(), false, end.clone()));
    let errors = tokio::spawn(pass_on(process.stderr.take(), printer.clone(), prefix, true, end));
    let readers = [output.abort_handle(), errors.abort_handle()];
    let expired = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let mut stopped = std::pin::pin!(stopped);
    // Of several that are true at the same time, the end of the run itself wins: its result is there.
    let (word, cut_short) = tokio::select! {
        biased;
        word = process.last_word() => (word, None),
        reason = lost => (None, Some(Ending::Lost(reason))),
        () = expired => {
            let limit = humantime::format_duration(timeout.unwrap_or_default());
            (None, Some(Ending::Failed(format!("timed out after {limit}"))))
        }
        () = &mut stopped => (None, Some(Ending::Stopped)),
    };
    if cut_short.is_some() {
        process.kill().await;
    }
    ended.send_replace(true);
    process.reap().await;
    if cut_short == Some(Ending::Stopped) {
        readers.iter().for_each(AbortHandle::abort);
        return Ending::Stopped;
    }
    // Whoever reads our output may be slow: that is waited for, but not by a worker that is told to stop at once.
    let last_line = tokio::select! {
        biased;
        (_, last_line) = async { (output.await, errors.await) } => last_line.ok().flatten(),
        () = &mut stopped => {
            readers.iter().for_each(AbortHandle::abort);
            None
        }
    };
    match (cut_short, word) {
        (Some(ending), _) => ending,
        (None, Some(word)) => judge(word, last_line),
        (None, None) => Ending::Failed("the guard of the run was killed".to_owned()),
    }
}

/// What the last word means.
fn judge(word: Word, last_line: Option<String>) -> Ending {
    match word {
        Word::CannotStart(why) => Ending::CannotStart(format!("cannot start {why}")),
        Word::Exited(0) => Ending::Done,
        Word::Exited(GIVE_BACK) => Ending::GivenBack,
        Word::Exited(status) => Ending::Failed(last_line.unwrap_or_else(|| format!("exit status {status}"))),
        Word::Killed(signal) => Ending::Failed(last_line.unwrap_or_else(|| format!("killed by signal {signal}"))),
    }
}

/// A guard and what connects it to this worker. Dropping it kills the run, as the end of this worker does.
struct Process {
    guard: tokio::process::Child,
    socket: BufReader<UnixStream>,
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
}

impl Process {
    fn start(command: &[OsString], run: &RunDescription) -> io::Result<Self> {
        let item = run.item();
        let command: Vec<OsString> = match command {
            [program, arguments @ ..] => std::iter::once(program.clone())
                .chain(arguments.iter().map(|argument| substitute(argument, &item)))
                .collect(),
            [] => Vec::new(),
        };
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut guard = guarded(&command)?;
        guard.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in run.environment() {
            match value {
                Some(value) => guard.env(name, value),
                None => guard.env_remove(name),
            };
        }
        let mut command = Command::from(guard);
        let mut guard = command.spawn()?;
        // Our copy of the guard's end lives in `command`: while it is open, the socket would not close with the guard.
        drop(command);
        let (stdout, stderr) = (guard.stdout.take(), guard.stderr.take());
        Ok(Self { guard, socket: BufReader::new(UnixStream::from_std(ours)?), stdout, stderr })
    }

    /// The guard's last word; `None` if it died without one.
    async fn last_word(&mut self) -> Option<Word> {
        let mut line = String::new();
        while self.socket.read_line(&mut line).await.ok()? > 0 {
            if let Some(word) = Word::parse(&line) {
                return Some(word);
            }
            line.clear();
        }
        None
    }

    /// Has the guard kill the run, and waits until it has; not for ever, since a process that hangs in the kernel dies only
    /// when the kernel lets it.
    async fn kill(&mut self) {
        let _ = self.socket.get_mut().shutdown().await;
        let _ = tokio::time::timeout(KILL_WAIT, self.last_word()).await;
    }

    async fn reap(&mut self) {
        let _ = tokio::time::timeout(DRAIN, self.guard.wait()).await;
    }
}

/// Prints a stream by whole lines, to its end, or until it is silent for [`DRAIN`] after the run has `ended`; returns its
/// last line that is not blank.
async fn pass_on(
    stream: Option<impl AsyncRead + Unpin>,
    printer: Printer,
    prefix: String,
    to_stderr: bool,
    mut ended: watch::Receiver<bool>,
) -> Option<String> {
    let mut stream = stream?;
    let mut cutter = LineCutter::new(&prefix);
    let mut last = LastLine::default();
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let silence = async {
            // A sender that is gone has ended, too.
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN).await;
        };
        let count = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read.unwrap_or(0),
            () = silence => 0,
        };
        if count == 0 {
            break;
        }
        last.push(&buffer[..count]);
        printer.print(to_stderr, cutter.push(&buffer[..count])).await;
    }
    printer.print(to_stderr, cutter.finish()).await;
    last.finish()
}

/// `argument` with every `{}` replaced.
fn substitute(argument: &OsStr, item: &str) -> OsString {
    let mut rest = argument.as_bytes();
    let mut result = Vec::with_capacity(rest.len() + item.len());
    while let Some(position) = rest.windows(2).position(|pair| pair == b"{}") {
        result.extend_from_slice(&rest[..position]);
        result.extend_from_slice(item.as_bytes());
        rest = &rest[position + 2..];
    }
    result.extend_from_slice(rest);
    OsString::from_vec(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_replaced_everywhere_and_only_once() {
        for (argument, item, expected) in [
            ("{}", "17", "17"),
            ("--x={}.{}", "a b", "--x=a b.a b"),
            ("{", "17", "{"),
            ("{ }", "17", "{ }"),
            ("", "17", ""),
            // What is put in is not looked at again.
            ("{}{}", "{}", "{}{}"),
        ] {
            assert_eq!(substitute(OsStr::new(argument), item), OsStr::new(expected));
        }
        let bytes = substitute(OsStr::from_bytes(b"\xff{}"), "1");
        assert_eq!(bytes.as_bytes(), b"\xff1");
    }

    #[test]
    fn exit_codes_mean_what_the_manual_says() {
        let line = || Some("no space".to_owned());
        assert_eq!(judge(Word::Exited(0), line()), Ending::Done);
        assert_eq!(judge(Word::Exited(75), line()), Ending::GivenBack);
        assert_eq!(judge(Word::Exited(1), line()), Ending::Failed("no space".to_owned()));
        assert_eq!(judge(Word::Exited(1), None), Ending::Failed("exit status 1".to_owned()));
        assert_eq!(judge(Word::Killed(11), None), Ending::Failed("killed by signal 11".to_owned()));
        let missing = Word::CannotStart("x: No such file".to_owned());
        assert_eq!(judge(missing, None), Ending::CannotStart("cannot start x: No such file".to_owned()));
    }
}
