//! Options that every command understands, and what the environment says instead.
//!
//! Precedence is decided here, by hand: a flag, else the environment, else the default. An empty variable is the same as
//! none. Tested in this file.

use clap::{ArgAction, Args};

use super::exit::{Complaint, Exit};
use super::output::Color;
use crate::limits;

const SERVER_HELP: &str =
    "Servers to try in turn, each HOST or HOST:PORT [env: TENFOLD_SERVER] [default: 127.0.0.1:65432]";
const VERBOSE_HELP: &str = "Say more; twice, even more [env: TENFOLD_LOG, in detail: info,tenfold::server=debug]";

/// Options that every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct CommonArguments {
    #[arg(short, long, global = true, value_name = "ADDR[,ADDR]", help = SERVER_HELP)]
    pub(crate) server: Option<String>,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    #[arg(short, long, global = true, action = ArgAction::Count, help = VERBOSE_HELP)]
    pub(crate) verbose: u8,
    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
}

/// What the environment says.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `TENFOLD_SERVER`.
    pub(crate) server: Option<String>,
    /// `TENFOLD_LOG`.
    pub(crate) log: Option<String>,
}

impl Environment {
    /// Reads it once.
    pub(crate) fn read() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self { server: variable("TENFOLD_SERVER"), log: variable("TENFOLD_LOG") }
    }
}

impl CommonArguments {
    /// The servers to try, in order, each with its port.
    pub(crate) fn servers(&self, environment: &Environment) -> Result<Vec<String>, Complaint> {
        let (text, origin) = match (&self.server, &environment.server) {
            (Some(flag), _) => (flag.as_str(), "--server"),
            (None, Some(variable)) => (variable.as_str(), "TENFOLD_SERVER"),
            (None, None) => return Ok(vec![format!("127.0.0.1:{}", limits::PORT)]),
        };
        text.split(',')
            .map(|address| {
                with_port(address.trim()).ok_or_else(|| {
                    Complaint::new(Exit::Usage, format!("{origin}: {address:?} is no server address"))
                        .hint("write HOST, HOST:PORT or [IPV6]:PORT, several with commas between them")
                })
            })
            .collect()
    }
}

/// The address to listen on, with a port; port 0 takes a free one.
///
/// # Errors
/// It cannot be an address.
pub(crate) fn listen_address(address: &str) -> Result<String, Complaint> {
    let free = address.strip_suffix(":0").and_then(|host| with_port(&format!("{host}:1")));
    let complete = match free {
        Some(one) => Some(format!("{}0", &one[..one.len() - 1])),
        None => with_port(address),
    };
    complete.ok_or_else(|| {
        Complaint::new(Exit::Usage, format!("--listen: {address:?} is no address to listen on"))
            .hint("write HOST, HOST:PORT or [IPV6]:PORT; ports go up to 65535, and 0 takes a free one")
    })
}

/// The address with a port, the default one if it has none; `None` if it cannot be one.
fn with_port(address: &str) -> Option<String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (inside, behind) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{inside}]"), behind)
        }
        None if address.matches(':').count() > 1 => {
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{address}]"), "")
        }
        None => match address.find(':') {
            Some(colon) => (address[..colon].to_owned(), &address[colon..]),
            None => (address.to_owned(), ""),
        },
    };
    if host.is_empty() || host.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => limits::PORT,
        None => return None,
    };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_may_leave_the_port_to_the_system() {
        let listen = |address| listen_address(address).ok();
        assert_eq!(listen("127.0.0.1:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(listen("[::1]:0").as_deref(), Some("[::1]:0"));
        assert_eq!(listen("::1").as_deref(), Some("[::1]:65432"));
        assert_eq!(listen("host:7").as_deref(), Some("host:7"));
        for wrong in ["127.0.0.1:99999", "host:", ":7", "host:-1", "a b", ""] {
            assert_eq!(listen_address(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
        }
    }

    fn servers(flag: Option<&str>, variable: Option<&str>) -> Result<Vec<String>, Exit> {
        let arguments =
            CommonArguments { server: flag.map(str::to_owned), quiet: false, verbose: 0, color: Color::default() };
        let environment = Environment { server: variable.map(str::to_owned), log: None };
        arguments.servers(&environment).map_err(|complaint| complaint.exit)
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        assert_eq!(servers(Some("a:1"), Some("b:2")), Ok(vec!["a:1".to_owned()]));
        assert_eq!(servers(None, Some("b:2")), Ok(vec!["b:2".to_owned()]));
        assert_eq!(servers(None, None), Ok(vec!["127.0.0.1:65432".to_owned()]));
    }

    #[test]
    fn addresses_get_their_port() {
        let expected = ["a:65432", "b:1", "[::1]:65432", "[::1]:7", "[fe80::1]:65432"].map(str::to_owned).to_vec();
        assert_eq!(servers(Some("a, b:1,[::1],[::1]:7,fe80::1"), None), Ok(expected));
        for bad in ["", "a,", ":1", "a:", "a:b", "a:0", "a:65536", "a b", "[x]:1", "[::1]x", "a:1:2"] {
            assert_eq!(servers(Some(bad), None), Err(Exit::Usage), "{bad:?}");
        }
    }
}
