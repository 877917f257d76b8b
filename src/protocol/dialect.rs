//! Tells from the first bytes of a connection which dialect it speaks, and holds the refusals for those that are not
//! served.
//!
//! ```text
//!  first byte >= 0x80          native (its magic is checked by `frame`)
//!  {                           JSON lines: refused for now
//!  0x16                        TLS: refused for now
//!  an HTTP method and a space  HTTP: refused for now
//!  anything else               the origin's (its start token is checked by `origin`)
//! ```
//!
//! **Invariants.** The verdict on a prefix never changes when more bytes arrive; at most [`TELL_BYTES_MAX`] bytes are
//! needed. Tested here.

/// After this many bytes [`tell`] has decided.
pub const TELL_BYTES_MAX: usize = 8;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `tenfold`'s own.
    Native,
    /// The one of the project this grew from.
    Origin,
    /// HTTP.
    Http,
    /// TLS.
    Tls,
    /// JSON lines.
    JsonLines,
    /// More bytes are needed.
    NeedMore,
}

/// Methods that an HTTP connection may begin with, `PRI` being that of HTTP/2.
const HTTP_METHODS: [&[u8]; 10] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI "];

/// Tells the dialect from the first bytes of a connection.
pub fn tell(first_bytes: &[u8]) -> Dialect {
    match first_bytes.first() {
        None => Dialect::NeedMore,
        Some(0x80..) => Dialect::Native,
        Some(b'{') => Dialect::JsonLines,
        Some(0x16) => Dialect::Tls,
        Some(_) if HTTP_METHODS.iter().any(|method| first_bytes.starts_with(method)) => Dialect::Http,
        Some(_) if HTTP_METHODS.iter().any(|method| method.starts_with(first_bytes)) => Dialect::NeedMore,
        Some(_) => Dialect::Origin,
    }
}

/// What a peer of this dialect is told before its connection is closed, in a form that it can show to its user; `None`
/// for dialects that are served.
pub fn refusal(dialect: Dialect) -> Option<Vec<u8>> {
    match dialect {
        Dialect::Native | Dialect::Origin | Dialect::NeedMore => None,
        Dialect::Http => Some(http_refusal()),
        Dialect::Tls => Some(TLS_REFUSAL.to_vec()),
        Dialect::JsonLines => Some(JSON_REFUSAL.as_bytes().to_vec()),
    }
}

fn http_refusal() -> Vec<u8> {
    let body = "This is a tenfold server, and this port does not speak HTTP.\n\
                Ask it with the command line: tenfold status --server HOST:PORT\n";
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A TLS alert: record type 21, version 3.1, two bytes: fatal (2), `handshake_failure` (40). TLS has no room for text;
/// every TLS library shows this one by its name.
const TLS_REFUSAL: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

const JSON_REFUSAL: &str = "{\"error\":\"this tenfold server does not speak JSON lines\",\
     \"hint\":\"use the native protocol, or the command line: tenfold status --json --server HOST:PORT\"}\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    #[test]
    fn dialects_are_told() {
        for (bytes, expected) in [
            (&b""[..], Dialect::NeedMore),
            (&frame::MAGIC, Dialect::Native),
            (&[0x80], Dialect::Native),
            (&[0xff], Dialect::Native),
            (b"{}", Dialect::JsonLines),
            (&[0x16, 3, 1], Dialect::Tls),
            (b"G", Dialect::NeedMore),
            (b"GET", Dialect::NeedMore),
            (b"GET / HTTP/1.1", Dialect::Http),
            (b"PRI * HTTP/2.0", Dialect::Http),
            (b"P", Dialect::NeedMore),
            (b"PX", Dialect::Origin),
            (b"GETTING", Dialect::Origin),
            (b"c", Dialect::Origin),
            (b"crrrazy_msg_START{}", Dialect::Origin),
            (b" ", Dialect::Origin),
            (&[0], Dialect::Origin),
        ] {
            assert_eq!(tell(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_verdict_stays() {
        for text in
            ["GET / HTTP/1.1", "OPTIONS * HTTP/1.1", "OPTIONAL", "crrrazy_msg_START", "PATCH /", "DELETED FILES"]
        {
            let mut verdict = Dialect::NeedMore;
            for length in 0..=text.len() {
                let now = tell(&text.as_bytes()[..length]);
                assert!(verdict == Dialect::NeedMore || verdict == now, "{text}: {verdict:?} became {now:?}");
                assert!(length < TELL_BYTES_MAX || now != Dialect::NeedMore, "{text}: undecided after {length} bytes");
                verdict = now;
            }
        }
    }

    #[test]
    fn refusals_are_readable() {
        let http = String::from_utf8(refusal(Dialect::Http).unwrap()).unwrap();
        let (head, body) = http.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(body.contains("tenfold status"));
        let json = String::from_utf8(refusal(Dialect::JsonLines).unwrap()).unwrap();
        assert!(json.starts_with("{\"error\":") && json.ends_with("}\n") && json.matches('\n').count() == 1);
        let tls = refusal(Dialect::Tls).unwrap();
        assert_eq!(usize::from(tls[4]), tls.len() - 5, "the record's length");
        assert_eq!(refusal(Dialect::Native), None);
        assert_eq!(refusal(Dialect::Origin), None);
    }
}
