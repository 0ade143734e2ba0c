//! Who may use the routes that change something, and what is told to those who look into the server: recordings and
//! sampled node times.
//!
//! A browser says which page a request comes from (`Origin`), and under which name it knows the server (`Host`). A page
//! of somebody else's must not start a recording on a server that its reader can reach, nor one whose name leads to
//! this machine only since a moment ago. So both have to name this server. There are no keys yet: this is their place.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use super::connections::Peer;
use super::error::ApiError;
use super::state::State;

/// Every profile route passes through this.
pub(super) async fn guard(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    if request.method() != Method::GET
        && let Err(refused) = check_names(&state.known_hosts, &request)
    {
        return refused.into_response();
    }
    let is_local = is_local(&state.known_hosts, &request);
    let response = next.run(request).await;
    match &state.options.profile {
        Some(profile) if !is_local => name_in_folder(response, &profile.dir.to_string_lossy()).await,
        _ => response,
    }
}

/// The names that this server is called by, beside addresses.
#[derive(Debug)]
pub(crate) struct KnownHosts(Vec<String>);

impl KnownHosts {
    /// `localhost`, the machine's name, the name that it listens on, and those that its operator allows.
    pub(super) fn new(listens_on: &str, allowed: &[String]) -> KnownHosts {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let own = ["localhost".to_owned(), machine, listens_on.to_owned()];
        KnownHosts(own.into_iter().chain(allowed.iter().cloned()).map(|name| name.to_ascii_lowercase()).collect())
    }

    /// An address is nobody's name: whoever wrote it knows where it leads.
    fn contains(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host.parse::<IpAddr>().is_ok()
            || host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(is_ipv6)
            || host.ends_with(".localhost")
            || self.0.contains(&host)
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// The host of `host:port`.
fn host_of(authority: &str) -> &str {
    let port = authority.rfind(':').filter(|colon| authority[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()));
    let is_bare_ipv6 = is_ipv6(authority);
    port.filter(|_| !is_bare_ipv6).map_or(authority, |colon| &authority[..colon])
}

fn check_names(known: &KnownHosts, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let foreign = |header: HeaderName, value: &str| {
        let value = value.chars().take(200).collect();
        Err(ApiError::Foreign { header, value })
    };
    let host = text(headers, &header::HOST);
    let named = [host.as_deref(), request.uri().authority().map(|authority| authority.as_str())];
    for authority in named.into_iter().flatten() {
        if !known.contains(host_of(authority)) {
            return foreign(header::HOST, authority);
        }
    }
    let Some(origin) = text(headers, &header::ORIGIN) else { return Ok(()) };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    // A page of this server itself, or one that was opened on the server's own machine by a known name.
    let is_own = authority.is_some_and(|authority| Some(authority) == host.as_deref());
    if is_own { Ok(()) } else { foreign(header::ORIGIN, &origin) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// Whether a client on this machine asks, and nobody for somebody else as far as its headers tell: a proxy has to say
/// whom it asks for, and a page that was opened under another name is not taken for this machine's.
fn is_local(known: &KnownHosts, request: &Request) -> bool {
    let is_near = request.extensions().get::<Peer>().is_some_and(|peer| peer.address.is_loopback());
    let headers = request.headers();
    is_near
        && check_names(known, request).is_ok()
        && !headers.contains_key(header::FORWARDED)
        && !headers.contains_key("x-forwarded-for")
}

/// Takes the folder's path out of an answer: its files are named as they are in the folder. Where the folder lies is
/// for this machine's own clients.
async fn name_in_folder(response: Response, folder: &str) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return ApiError::AnswerLost.into_response() };
    // As JSON writes it, without the quotes around it.
    let quoted = serde_json::to_string(folder).unwrap_or_default();
    let folder = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().trim_end_matches('/');
    if folder.is_empty() {
        return Response::from_parts(head, Body::from(body.to_bytes()));
    }
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let text = text.replace(&format!("{folder}/"), "").replace(&format!("\"{folder}\""), "\".\"");
    let text = text.replace(folder, "the folder");
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)]) -> Result<(), String> {
        let mut request = Request::post("/start_profile");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let known = KnownHosts::new("gpu-7.example", &["vitrum.internal".into()]);
        check_names(&known, &request.body(Body::empty()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn this_servers_names_pass() {
        let hosts = [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "10.1.2.3",
            "[::1]:8000",
            "[2001:db8::1]",
            "::1",
            "gpu-7.example:8000",
            "vitrum.internal.",
            "a.localhost:1",
        ];
        for host in hosts {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
            assert_eq!(check(&[("host", host), ("origin", &format!("http://{host}"))]), Ok(()), "{host}");
        }
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn others_do_not() {
        for host in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "x", ""] {
            let error = check(&[("host", host)]).unwrap_err();
            assert!(error.contains("host") && error.contains("--allowed-host"), "{error}");
        }
        let origins =
            ["http://evil.example", "null", "http://localhost:8001", "http://localhost:8000.evil.example", ""];
        for origin in origins {
            let error = check(&[("host", "localhost:8000"), ("origin", origin)]).unwrap_err();
            assert!(error.contains("origin"), "{error}");
        }
    }

    #[tokio::test]
    async fn files_are_named_as_in_the_folder() {
        let body = r#"{"dir":"/srv/a \"b\"","spool":"/srv/a \"b\"/x.vtr","error":"could not read /srv/a \"b\"/x.vtr"}"#;
        let response = name_in_folder(Response::new(Body::from(body)), "/srv/a \"b\"").await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"dir":".","spool":"x.vtr","error":"could not read x.vtr"}"#);
    }
}
