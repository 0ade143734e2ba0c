//! A server that answers as the Hugging Face hub does: descriptions of repositories, files behind redirects, ranges.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::json;
use sha2::{Digest, Sha256};

/// What the hub has, and how it behaves.
#[derive(Default)]
pub(crate) struct Hub {
    /// The commit of each revision.
    pub(crate) revisions: HashMap<String, String>,
    /// The files of each commit.
    pub(crate) commits: HashMap<String, BTreeMap<String, Vec<u8>>>,
    /// Every request has to have this token.
    pub(crate) token: Option<String>,
    /// Instead of what has this in its path, this status and this code.
    pub(crate) refused: Option<(&'static str, u16, Option<&'static str>)>,
    /// The connection ends when so many bytes of a large file have been sent.
    pub(crate) cut_after: Option<usize>,
    /// Large files come with their last byte changed.
    pub(crate) is_damaged: bool,
    /// Instead of every description.
    pub(crate) description: Option<String>,
    /// Method, path and range of every request.
    pub(crate) log: Vec<String>,
}

pub(crate) struct HubServer {
    address: SocketAddr,
    hub: Arc<Mutex<Hub>>,
}

pub(crate) const ID: &str = "org/model";

/// A commit's name.
pub(crate) fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

impl HubServer {
    /// A server with one commit, which is `main`.
    pub(crate) fn start(files: &[(&str, &[u8])]) -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let hub = Arc::new(Mutex::new(Hub::default()));
        let server = HubServer { address, hub: hub.clone() };
        server.commit("main", '1', files);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let hub = hub.clone();
                thread::spawn(move || answer(stream, address, &hub));
            }
        });
        server
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().expect("no thread has panicked")
    }

    /// Makes a revision a commit with these files.
    pub(crate) fn commit(&self, revision: &str, digit: char, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        let mut hub = self.hub();
        hub.revisions.insert(revision.to_owned(), commit(digit));
        hub.revisions.insert(commit(digit), commit(digit));
        hub.commits.insert(commit(digit), files);
    }

    /// What was asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.hub().log)
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What Git calls a content is of no interest here but for its form.
fn blob_id(content: &[u8]) -> String {
    sha256(content)[..40].to_owned()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

/// A status line, headers and a body, of which only so many bytes are sent.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Answer {
    fn of(status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Answer {
        Answer { status, headers, sent: body.len(), body }
    }

    /// A file, or the part of it that was asked for.
    fn range(content: &[u8], range: Option<&str>) -> Answer {
        let bytes = content.len();
        let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((first, last)) = range else { return Answer::of(200, Vec::new(), content.to_vec()) };
        let first: usize = first.parse().expect("a number");
        let last: usize = if last.is_empty() { bytes.wrapping_sub(1) } else { last.parse().expect("a number") };
        if first >= bytes {
            return Answer::of(416, vec![("content-range", format!("bytes */{bytes}"))], Vec::new());
        }
        let headers = vec![("content-range", format!("bytes {first}-{last}/{bytes}"))];
        Answer::of(206, headers, content[first..=last].to_vec())
    }
}

fn answer(stream: TcpStream, address: SocketAddr, hub: &Mutex<Hub>) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let path = request.split(' ').nth(1).expect("a path").to_owned();
    let range = headers.get("range").map(String::as_str);
    let token = headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let answer = {
        let mut hub = hub.lock().expect("no thread has panicked");
        hub.log.push(format!("{path} {}", range.unwrap_or_default()).trim_end().to_owned());
        reply(&hub, &path, range, token, address)
    };
    let mut head = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", answer.status);
    let length = ("content-length", answer.body.len().to_string());
    for (name, value) in answer.headers.iter().chain([&length]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = &stream;
    // A client that has seen enough may be gone.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&answer.body[..answer.sent]);
}

fn reply(hub: &Hub, path: &str, range: Option<&str>, token: Option<&str>, address: SocketAddr) -> Answer {
    let refusal = |status, code: Option<&str>| {
        Answer::of(status, code.map(|code| ("x-error-code", code.to_owned())).into_iter().collect(), b"no".to_vec())
    };
    match hub.refused {
        Some((part, status, code)) if path.contains(part) => return refusal(status, code),
        _ if hub.token.as_deref() != token && hub.token.is_some() => return refusal(401, None),
        _ => {}
    }
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{ID}/revision/")) {
        let revision = revision.strip_suffix("?blobs=true").expect("sizes are asked for").replace("%2F", "/");
        return match hub.revisions.get(&revision) {
            Some(commit) => describe(hub, commit),
            None => refusal(404, Some("RevisionNotFound")),
        };
    }
    let file = |commit: &str, name: &str| hub.commits.get(commit)?.get(name);
    if let Some((commit, name)) = path.strip_prefix(&format!("/{ID}/resolve/")).and_then(|rest| rest.split_once('/')) {
        let Some(content) = file(commit, name) else { return refusal(404, Some("EntryNotFound")) };
        let commit = ("x-repo-commit", commit.to_owned());
        if is_large(name) {
            let hash = sha256(content);
            let location = ("location", format!("http://{address}/large/{hash}"));
            let linked = ("x-linked-etag", format!("\"{hash}\""));
            return Answer::of(302, vec![commit, location, linked, ("etag", "\"other\"".into())], Vec::new());
        }
        return Answer::of(307, vec![("location", format!("/small/{}/{name}", commit.1)), commit], Vec::new());
    }
    if let Some((commit, name)) = path.strip_prefix("/small/").and_then(|rest| rest.split_once('/')) {
        let Some(content) = file(commit, name) else { return refusal(404, Some("EntryNotFound")) };
        let mut answer = Answer::range(content, range);
        let etag = ("etag", format!("\"{}\"", blob_id(content)));
        answer.headers.extend([etag, ("x-repo-commit", commit.to_owned())]);
        return answer;
    }
    let large = path
        .strip_prefix("/large/")
        .and_then(|hash| hub.commits.values().flat_map(BTreeMap::values).find(|content| sha256(content) == hash));
    let Some(content) = large else { return refusal(404, Some("RepoNotFound")) };
    let mut content = content.clone();
    if let Some(last) = content.last_mut().filter(|_| hub.is_damaged) {
        *last = last.wrapping_add(1);
    }
    let mut answer = Answer::range(&content, range);
    answer.sent = hub.cut_after.map_or(answer.sent, |most| most.min(answer.sent));
    answer
}

fn describe(hub: &Hub, commit: &str) -> Answer {
    let large = |name: &str, content: &[u8]| {
        is_large(name).then(|| json!({"sha256": sha256(content), "size": content.len(), "pointerSize": 130}))
    };
    let siblings: Vec<serde_json::Value> = hub.commits[commit]
        .iter()
        .map(|(name, content)| {
            let mut sibling = json!({"rfilename": name, "size": content.len(), "blobId": blob_id(content)});
            if let Some(large) = large(name, content) {
                sibling["lfs"] = large;
            }
            sibling
        })
        .collect();
    let body = json!({"id": ID, "sha": commit, "private": false, "siblings": siblings}).to_string();
    Answer::of(200, Vec::new(), hub.description.clone().unwrap_or(body).into_bytes())
}
