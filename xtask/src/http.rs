//! The few HTTP requests that tasks make: one connection each, blocking.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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

fn exchange(base_url: &str, path: &str, method: &str, body: &str) -> Result<String, String> {
    let what = format!("{method} {base_url}{path}");
    let authority = base_url.strip_prefix("http://").ok_or(format!("{base_url} does not begin with http://"))?;
    let (authority, prefix) = match authority.trim_end_matches('/').split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (authority.trim_end_matches('/'), String::new()),
    };
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let send = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        write!(stream, "{method} {prefix}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{kind}")?;
        write!(stream, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = send().map_err(|error| format!("{what}: {error}"))?;
    let (status, body) = parse(&answer).ok_or(format!("{what}: the answer is not HTTP"))?;
    if status == 200 { Ok(body) } else { Err(format!("{what}: HTTP {status}: {}", body.trim_end())) }
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    let body = &answer[end + 4..];
    let body = if is_chunked { unchunk(body)? } else { body.to_vec() };
    Some((status, String::from_utf8_lossy(&body).into_owned()))
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
    use super::parse;

    #[test]
    fn answers() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(parse(plain), Some((200, "ok".into())));
        let chunked = b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((503, "abcd".into())));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"), None);
        assert_eq!(parse(b"garbage"), None);
    }
}
