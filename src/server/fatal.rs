//! Decides how the process ends when it can no longer keep its word: at once, non-zero, saying why.
//!
//! Used by the pipeline (a failed commit), the watchdog (a commit that hangs) and the panic hook. There is no way back
//! from any of them: memory may be ahead of the disk, and only a restart knows what was durable. Tests observe the end
//! through [`Fatal::new`] instead of dying of it. Tested in `pipeline.rs` and `watchdog.rs`.

use std::future::Future;
use std::sync::Arc;

/// What is called, with the reason, when the process must end.
#[derive(Clone)]
pub struct Fatal(Arc<dyn Fn(&str) + Send + Sync>);

impl Fatal {
    /// Calls `end` with the reason instead of ending the process.
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(end))
    }

    /// Logs the reason and ends the process with exit code 1; nothing is flushed, unwound or answered any more.
    pub fn end_process() -> Self {
        Self::new(|reason| {
            tracing::error!("{reason}; the server ends, a restart recovers what was durable");
            std::process::exit(1);
        })
    }

    pub(crate) fn call(&self, reason: &str) {
        (self.0)(reason);
    }
}

impl std::fmt::Debug for Fatal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Fatal")
    }
}

tokio::task_local! {
    /// Set while a session's future is polled.
    static IN_SESSION: ();
}

/// Marks `session` as one whose panic is the end of its connection, not of the process.
pub(crate) fn in_session<T>(session: impl Future<Output = T>) -> impl Future<Output = T> {
    IN_SESSION.scope((), session)
}

/// From now on a panic on any thread calls `fatal`, after the usual report of the panic: in the pipeline it leaves memory
/// and disk apart, in a thread of the store it leaves a writer that nobody waits for. The one exception is a session,
/// which owns nothing but its connection.
///
/// To be called once, after the data directory was opened (the store turns panics of its opening into errors).
pub fn arm_panic_hook(fatal: Fatal) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if IN_SESSION.try_with(|()| ()).is_err() {
            let name = std::thread::current().name().unwrap_or("without a name").to_owned();
            fatal.call(&format!("the thread {name} panicked"));
        }
    }));
}
