//! One exchange with a running server, for commands that drive it.

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use super::client::{Client, ClientError};

/// Sends a request, with a body of JSON if there is one, and waits for the answer's JSON. What the server says against
/// the request is an error. `url` is the server's, `http://HOST[:PORT][/PATH]`.
pub fn ask(url: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    let client = Client::new(url, &[])?;
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let (status, text) = runtime.block_on(client.exchange(method.clone(), path, bytes))?;
    let json = serde_json::from_str::<Value>(&text);
    if status.is_success() {
        return json.map_err(|source| ClientError::Json { path: path.to_owned(), source });
    }
    let said = json.ok().and_then(|json| Some(json["error"]["message"].as_str()?.to_owned()));
    Err(ClientError::Status { method, path: path.to_owned(), status, body: said.unwrap_or(text) })
}
