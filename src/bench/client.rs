//! HTTP/1.1 to a server: one connection per request under way, kept for the next one.
//!
//! Bodies are serialised before the clock starts, and sockets do not wait to fill packets (TCP_NODELAY).

use std::sync::Mutex;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes read of a body that is no stream.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What goes wrong between here and the server.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not an address to send requests to.
    #[error("{url} is not a base URL: give http://HOST[:PORT][/PATH]")]
    Url {
        /// As given.
        url: String,
    },
    /// A header that HTTP does not allow.
    #[error("--header {header} is not NAME=VALUE in characters that a header may have")]
    Header {
        /// As given.
        header: String,
    },
    /// Nobody listens there.
    #[error("could not connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The exchange broke off.
    #[error("{method} {path}: {source}")]
    Exchange {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// What broke.
        source: hyper::Error,
    },
    /// Not the answer that was asked for.
    #[error("{method} {path}: HTTP {status}: {body}")]
    Status {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// The answer's status.
        status: StatusCode,
        /// The answer's body.
        body: String,
    },
    /// A body longer than any answer should be.
    #[error("{method} {path}: the body is longer than {BODY_BYTES_MAX} bytes")]
    BodyTooLong {
        /// The method.
        method: Method,
        /// The path.
        path: String,
    },
    /// No threads or sockets to be had.
    #[error("could not start a client: {0}")]
    Runtime(std::io::Error),
    /// A tokeniser that gives no token for 512 words.
    #[error("/tokenize: the answer has no token")]
    NoTokens,
    /// A body that is not the JSON asked for.
    #[error("{path}: the answer is not what was asked for: {source}")]
    Json {
        /// The path.
        path: String,
        /// Where it differs.
        source: serde_json::Error,
    },
}

type Connection = SendRequest<Full<Bytes>>;

/// The server under load and the connections to it that are idle.
pub(in crate::bench) struct Client {
    host: String,
    port: u16,
    /// `Host:` of every request.
    authority: String,
    /// What stands before the path of every request.
    prefix: String,
    headers: HeaderMap,
    idle: Mutex<Vec<Connection>>,
}

/// An answer whose body is still to come.
pub(in crate::bench) struct Reply {
    pub(in crate::bench) response: Response<Incoming>,
    connection: Connection,
}

impl Client {
    /// `headers` are `NAME=VALUE`, sent with every request.
    pub(in crate::bench) fn new(base_url: &str, headers: &[String]) -> Result<Client, ClientError> {
        let bad_url = || ClientError::Url { url: base_url.to_owned() };
        let uri: Uri = base_url.parse().map_err(|_| bad_url())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http") && uri.query().is_none());
        let host = host.ok_or_else(bad_url)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Client {
            host,
            port: uri.port_u16().unwrap_or(80),
            authority: uri.authority().ok_or_else(bad_url)?.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers: headers.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
            idle: Mutex::default(),
        })
    }

    /// Sends a request and waits for the head of the answer.
    pub(in crate::bench) async fn send(
        &self,
        method: Method,
        path: &str,
        request_id: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        let exchange = |source| ClientError::Exchange { method: method.clone(), path: path.to_owned(), source };
        loop {
            let (mut connection, reused) = self.connection().await?;
            let request = self.request(&method, path, request_id, body.clone())?;
            match connection.send_request(request).await {
                Ok(response) => return Ok(Reply { response, connection }),
                // The server may close an idle connection at any time: that says nothing about this request.
                Err(error) if reused && (error.is_closed() || error.is_canceled() || error.is_incomplete_message()) => {
                }
                Err(error) => return Err(exchange(error)),
            }
        }
    }

    /// Gives the connection of an answer that was read to its end to the next request.
    pub(in crate::bench) fn reuse(&self, connection: Connection) {
        self.idle.lock().expect("no holder of this lock panics").push(connection);
    }

    /// POSTs JSON and reads JSON.
    pub(in crate::bench) async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ClientError> {
        let text = self.text(Method::POST, path, Bytes::from(body.to_string())).await?;
        serde_json::from_str(&text).map_err(|source| ClientError::Json { path: path.to_owned(), source })
    }

    /// GETs JSON.
    pub(in crate::bench) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let text = self.text(Method::GET, path, Bytes::new()).await?;
        serde_json::from_str(&text).map_err(|source| ClientError::Json { path: path.to_owned(), source })
    }

    /// The body of a 200.
    pub(in crate::bench) async fn text(&self, method: Method, path: &str, body: Bytes) -> Result<String, ClientError> {
        let (status, body) = self.exchange(method.clone(), path, body).await?;
        if status != StatusCode::OK {
            return Err(ClientError::Status { method, path: path.to_owned(), status, body });
        }
        Ok(body)
    }

    /// Status and body of whatever the server answers.
    pub(in crate::bench) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, String), ClientError> {
        let mut reply = self.send(method.clone(), path, None, body).await?;
        let status = reply.response.status();
        let mut bytes = Vec::new();
        while let Some(frame) = reply.response.body_mut().frame().await {
            let frame = frame.map_err(|source| ClientError::Exchange {
                method: method.clone(),
                path: path.to_owned(),
                source,
            })?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > BODY_BYTES_MAX {
                return Err(ClientError::BodyTooLong { method, path: path.to_owned() });
            }
        }
        self.reuse(reply.connection);
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        request_id: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let bad_url = |_| ClientError::Url { url: format!("http://{}{}{path}", self.authority, self.prefix) };
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.prefix)).header(HOST, &self.authority);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(id) = request_id {
            request = request.header("x-request-id", id);
        }
        let mut request = request.body(Full::new(body)).map_err(bad_url)?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// An idle connection, or a new one; and whether it was used before.
    async fn connection(&self) -> Result<(Connection, bool), ClientError> {
        loop {
            let idle = self.idle.lock().expect("no holder of this lock panics").pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok((connection, true));
            }
        }
        let refused = |source| ClientError::Connect { authority: self.authority.clone(), source };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|source| ClientError::Exchange {
            method: Method::CONNECT,
            path: self.authority.clone(),
            source,
        })?;
        // Its end reaches the request through `connection`.
        tokio::spawn(async { drop(driver.await) });
        Ok((connection, false))
    }
}

impl Reply {
    /// The connection, when the body was read to its end.
    pub(in crate::bench) fn into_connection(self) -> Connection {
        self.connection
    }
}

fn parse_header(header: &str) -> Result<(HeaderName, HeaderValue), ClientError> {
    let parse = || {
        let (name, value) = header.split_once('=')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    };
    parse().ok_or_else(|| ClientError::Header { header: header.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::Client;

    #[test]
    fn addresses() {
        let client = Client::new("http://127.0.0.1:8000/worker/", &["x-key=a=b".into()]).unwrap();
        assert_eq!((client.host.as_str(), client.port, client.prefix.as_str()), ("127.0.0.1", 8000, "/worker"));
        assert_eq!(client.headers["x-key"], "a=b");
        assert_eq!(Client::new("http://[::1]:80", &[]).unwrap().host, "::1");
        for url in ["https://host", "host:80", "http://host?x", ""] {
            assert!(Client::new(url, &[]).is_err(), "{url} was taken");
        }
        assert!(Client::new("http://host", &["no value".into()]).is_err());
    }
}
