//! The few HTTP requests that tasks make: one connection each, blocking.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Stopping a recording may take as long as rendering it.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The body of the answer to GET.
pub(crate) fn get(base_url: &str, path: &str) -> Result<String, String> {
    exchange(base_url, path, "GET", "")
}

/// The body of the answer to POST with JSON.
pub(crate) fn post(base_url: &str, path: &str, body: &str) -> Result<String, String> {
    exchange(base_url, path, "POST", body)
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Where a server listens, as `host:port`.
pub(crate) fn authority(base_url: &str) -> Result<&str, String> {
    let authority = base_url.strip_prefix("http://").ok_or(format!("{base_url} does not begin with http://"))?;
    Ok(authority.trim_end_matches('/'))
}

fn exchange(base_url: &str, path: &str, method: &str, body: &str) -> Result<String, String> {
    let what = format!("{method} {base_url}{path}");
    let authority = authority(base_url)?;
    let (authority, prefix) = match authority.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (authority, String::new()),
    };
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = request(method, &format!("{prefix}{path}"), &format!("Host: {authority}\r\n{kind}"), body.as_bytes());
    let answer = send(&address, &request, TIMEOUT).map_err(|error| format!("{what}: {error}"))?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("{what}: HTTP {status}: {}", answer.body.trim_end())),
    }
}

/// The bytes of a request, after which the connection closes. `headers` are whole lines.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Sends bytes on a connection of their own, and reads until the server closes it; all of it takes at most so long.
pub(crate) fn send(address: &str, request: &[u8], timeout: Duration) -> Result<Answer, String> {
    let deadline = Instant::now() + timeout;
    let open = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(stream)
    };
    let mut stream = open().map_err(|error| error.to_string())?;
    // A server that refuses a body may close before it has read it: its answer counts.
    let sent = stream.write_all(request);
    read(&mut stream, deadline).map_err(|error| sent.err().map_or(error, |error| error.to_string()))
}

/// Reads a whole answer, to the connection's end, which has to come before the deadline.
pub(crate) fn read(stream: &mut TcpStream, deadline: Instant) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    let ended = read_to_end(stream, deadline, &mut bytes);
    parse(&bytes).ok_or_else(|| match ended {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => format!("no end after {} bytes", bytes.len()),
        Err(error) => format!("{error} after {} bytes of an answer", bytes.len()),
        Ok(()) if bytes.is_empty() => "the connection was closed without an answer".to_owned(),
        Ok(()) => "the answer is not whole, or not HTTP".to_owned(),
    })
}

fn read_to_end(stream: &mut TcpStream, deadline: Instant, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 65536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
}

/// An answer, if all of it is there.
fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    let body = &answer[end + 4..];
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("content-length") { value.parse::<usize>().ok() } else { None }
    });
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    let body = if is_chunked { unchunk(body)? } else { body.to_vec() };
    Some(Answer { status, head: head.to_owned(), body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers() {
        let parse = |bytes: &[u8]| super::parse(bytes).map(|answer| (answer.status, answer.body));
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(parse(plain), Some((200, "ok".into())));
        let chunked = b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((503, "abcd".into())));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), None);
        assert_eq!(parse(b"garbage"), None);
    }
}
