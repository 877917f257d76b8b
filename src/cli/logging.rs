//! Turns `TENFOLD_LOG`, `-q` and `-v` into a log on stderr.
//!
//! `TENFOLD_LOG` is a comma-separated list of levels, optionally each for a module: `warn`, `info,tenfold::server=debug`.
//! A flag wins over it. A server logs what happens (info) unless told otherwise, every other command only what is wrong.

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::{Complaint, Exit};
use super::options::{CommonArguments, Environment};
use super::serve::LogFormat;

/// Starts logging for the whole process; `server` says how the log of a server is to look, `None` that this is none.
pub(crate) fn start(
    common: &CommonArguments,
    environment: &Environment,
    server: Option<LogFormat>,
) -> Result<(), Complaint> {
    let filter = filter(common.quiet, common.verbose, environment.log.as_deref(), server.is_some())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(anstream::stderr).with_target(false);
    let lines = match server.unwrap_or_default() {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A log that somebody started before this one is as good.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

fn filter(quiet: bool, verbose: u8, variable: Option<&str>, server: bool) -> Result<Targets, Complaint> {
    let usual = if server { LevelFilter::INFO } else { LevelFilter::WARN };
    let ours = |level| Targets::new().with_default(LevelFilter::WARN).with_target("tenfold", level);
    match (quiet, verbose, variable) {
        (true, _, _) => Ok(Targets::new().with_default(LevelFilter::ERROR)),
        (false, 0, None) => Ok(ours(usual)),
        (false, 0, Some(text)) => text.parse().map_err(|error| {
            Complaint::new(Exit::Usage, format!("TENFOLD_LOG: {text:?}: {error}"))
                .hint("write a level (error, warn, info, debug, trace), or tenfold::server=debug,info")
        }),
        (false, 1, _) => Ok(ours(if server { LevelFilter::DEBUG } else { LevelFilter::INFO })),
        (false, 2, _) => Ok(ours(LevelFilter::DEBUG)),
        (false, _, _) => Ok(Targets::new().with_default(LevelFilter::TRACE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment() {
        let ours = |level| Targets::new().with_default(LevelFilter::WARN).with_target("tenfold", level);
        assert_eq!(filter(false, 0, None, true).unwrap(), ours(LevelFilter::INFO));
        assert_eq!(filter(false, 0, None, false).unwrap(), ours(LevelFilter::WARN));
        let variable = Some("tenfold=trace");
        assert_eq!(filter(false, 2, variable, false).unwrap(), ours(LevelFilter::DEBUG));
        assert_eq!(filter(true, 0, variable, true).unwrap(), Targets::new().with_default(LevelFilter::ERROR));
        let expected = Targets::new().with_target("tenfold", LevelFilter::TRACE);
        assert_eq!(filter(false, 0, variable, false).unwrap(), expected);
        assert_eq!(filter(false, 0, Some("loud=very"), false).unwrap_err().exit, Exit::Usage);
    }
}
