//! One exchange with a running server, for commands that drive it.

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use super::client::{Client, ClientError};

/// Sends a request, with a body of JSON if there is one, and waits for the answer: its status and its JSON, whatever
/// the status. `url` is the server's, `http://HOST[:PORT][/PATH]`.
pub fn exchange(url: &str, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    let client = Client::new(url, &[])?;
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let (status, text) = runtime.block_on(client.exchange(method, path, bytes))?;
    let json = serde_json::from_str(&text).map_err(|source| ClientError::Json { path: path.to_owned(), source })?;
    Ok((status.as_u16(), json))
}
