//! A client that knows just enough HTTP/1.1, and does not hide the bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long, since machines are shared: only what hangs takes as long.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The data of the events of a stream, which are exactly separated by blank lines; the last is `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.event_texts().into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// As [`Reply::events`], as they were sent.
    pub(crate) fn event_texts<'a>(&'a self) -> Vec<&'a str> {
        assert_eq!(self.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let mut frames: Vec<&str> = self.text().split("\n\n").collect();
        assert_eq!(frames.pop(), Some(""), "the last frame is closed");
        assert_eq!(frames.pop(), Some("data: [DONE]"));
        let data = |frame: &'a str| {
            let data = frame.strip_prefix("data: ").unwrap_or_else(|| panic!("{frame:?}"));
            assert!(!data.contains('\n'), "{data:?}");
            data
        };
        frames.into_iter().map(data).collect()
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    exchange(address, head("GET", path, None, "connection: close\r\n").as_bytes()).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: impl ToString) -> Reply {
    post_with(address, path, "", body).await
}

/// `headers` are whole lines.
pub(crate) async fn post_with(address: SocketAddr, path: &str, headers: &str, body: impl ToString) -> Reply {
    let body = body.to_string();
    let head = head("POST", path, Some(body.len()), &format!("connection: close\r\n{headers}"));
    exchange(address, [head.as_bytes(), body.as_bytes()].concat().as_slice()).await
}

/// A connection on which a request was sent and nothing was read.
pub(crate) async fn sent(address: SocketAddr, path: &str, body: impl ToString) -> TcpStream {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all((head("POST", path, Some(body.len()), "") + &body).as_bytes()).await.unwrap();
    stream
}

pub(crate) fn head(method: &str, path: &str, length: Option<usize>, headers: &str) -> String {
    let length = length.map_or(String::new(), |length| format!("content-length: {length}\r\n"));
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{length}{headers}\r\n")
}

pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    rest(&mut stream).await
}

/// Reads until the server closes.
pub(crate) async fn rest(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    parse(&bytes)
}

/// Reads until `end` has arrived, and returns everything so far.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.windows(end.len()).any(|window| window == end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed before {end:?}");
        }
    };
    tokio::time::timeout(TIMEOUT, reading).await.unwrap_or_else(|_| panic!("no {end:?}"));
    String::from_utf8(bytes).unwrap()
}

/// Asks until it holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < TIMEOUT, "{what}: not after {TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
    let mut lines = std::str::from_utf8(&bytes[..end]).unwrap().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { chunks(&bytes[end..]).concat() } else { bytes[end..].to_vec() };
    Reply { status, headers, body }
}

/// The chunks of a chunked body, which has to be complete.
pub(crate) fn chunks(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        let data = &bytes[line + 2..][..length];
        bytes = &bytes[line + 2 + length + 2..];
        if length == 0 {
            return chunks;
        }
        chunks.push(data.to_vec());
    }
}
