//! Strangers and web pages on the routes that record: closed unless asked for, foreign names refused, quotas.

use std::path::PathBuf;

use super::victim::{Ground, Victim, expect, files};
use super::{Attack, Finding};
use crate::http::{self, Answer};

const STARTS: usize = 200;
const FILES_MAX: usize = 6;
const BYTES_MAX: u64 = 300_000;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "profile-not-asked-for",
            "every profile route of a server without `--profile-dir` and `--profile-sample`",
            "403 that names the flag, no file is made",
            not_asked_for,
        ),
        Attack::new(
            "profile-web-page",
            "foreign `Origin` or `Host` on `/start_profile`, `/stop_profile`, `/profile/nodes/reset`",
            "403 and nothing happens; the server's own names are taken",
            web_page,
        ),
        Attack::new(
            "profile-quota-files",
            "200 recordings with `--profile-max-files 6`",
            "no more files, then 507; the oldest is still there",
            |ground| quota(ground, "profile-quota-files", "--profile-max-files", &FILES_MAX.to_string()),
        ),
        Attack::new(
            "profile-quota-bytes",
            "200 recordings with `--profile-dir-max-bytes 300000`",
            "no more bytes, then 507; the oldest is still there",
            |ground| quota(ground, "profile-quota-bytes", "--profile-dir-max-bytes", &BYTES_MAX.to_string()),
        ),
        Attack::new(
            "profile-paths",
            "prefixes that lead out of the folder; a client behind a proxy (`X-Forwarded-For`)",
            "every file in the folder, whose own path only clients on the machine are told",
            paths,
        ),
    ]
}

fn not_asked_for(ground: &Ground) -> Finding {
    let folder = ground.folder("profile-not-asked-for-cwd")?;
    let mut command = ground.serve_tiny(0, &[]);
    command.current_dir(&folder);
    let victim = Victim::start(command, ground.folder("profile-not-asked-for")?)?;
    let routes = [
        ("POST", "/start_profile", "--profile-dir"),
        ("POST", "/stop_profile", "--profile-dir"),
        ("GET", "/profile/sessions", "--profile-dir"),
        ("GET", "/profile/nodes", "--profile-sample"),
        ("POST", "/profile/nodes/reset", "--profile-sample"),
    ];
    let mut wrong = Vec::new();
    for (method, path, flag) in routes {
        let answer = victim.send(method, path, "", b"")?;
        if answer.status != 403 || !answer.body.contains(flag) {
            wrong.push(format!("{path}: HTTP {}", answer.status));
        }
    }
    let made = files(&folder, "").len();
    if made > 0 {
        wrong.push(format!("{made} files made"));
    }
    if wrong.is_empty() { Ok(format!("{} routes closed", routes.len())) } else { Err(wrong.join("; ")) }
}

fn profiling_server(ground: &Ground, name: &str, flags: &[&str]) -> Result<Victim, String> {
    let folder = ground.folder(name)?;
    let profiles = folder.to_string_lossy().into_owned();
    let flags =
        [&["--profile-dir", &profiles, "--profile-sample", "1", "--allowed-host", "glass.example"], flags].concat();
    Victim::start(ground.serve_tiny(0, &flags), folder)
}

/// A request as a browser or a stranger would send it; `headers` are whole lines, Host among them.
fn ask(victim: &Victim, path: &str, headers: &str) -> Result<Answer, String> {
    let request = http::request("POST", path, headers, b"");
    http::send(victim.address(), &request, super::victim::ANSWER_TIMEOUT)
}

fn web_page(ground: &Ground) -> Finding {
    let victim = profiling_server(ground, "profile-web-page", &[])?;
    let address = victim.address().to_owned();
    let port = address.rsplit(':').next().unwrap_or_default();
    let foreign = [
        format!("Host: {address}\r\nOrigin: https://evil.example\r\nContent-Type: text/plain\r\n"),
        format!("Host: {address}\r\nOrigin: http://evil.example:{port}\r\n"),
        format!("Host: {address}\r\nOrigin: null\r\n"),
        format!("Host: {address}\r\nOrigin: http://localhost:{port}\r\n"), // not the page's own server
        format!("Host: {address}\r\nOrigin: http://localhost.evil.example\r\n"),
        format!("Host: {address}\r\nOrigin: http://127.0.0.1.evil.example:{port}\r\n"),
        format!("Host: {address}\r\nOrigin: http://glass.example@evil.example\r\n"),
        format!("Host: evil.example:{port}\r\n"), // a name that was made to lead here
        "Host: localhost.evil.example\r\n".to_owned(),
        format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n"),
    ];
    let mut wrong = Vec::new();
    for path in ["/start_profile", "/stop_profile", "/profile/nodes/reset"] {
        for headers in &foreign {
            let answer = ask(&victim, path, headers)?;
            if answer.status != 403 {
                wrong.push(format!("{path}, {}: HTTP {}", headers.trim_end().replace("\r\n", ", "), answer.status));
            }
        }
    }
    let made = files(&victim.folder, ".vtr").len();
    let own = [
        format!("Host: {address}\r\n"),
        format!("Host: localhost:{port}\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"),
        "Host: glass.example\r\nOrigin: http://glass.example\r\n".to_owned(),
        format!("Host: [::1]:{port}\r\n"),
    ];
    for headers in &own {
        for path in ["/start_profile", "/stop_profile"] {
            let answer = ask(&victim, path, headers)?;
            if answer.status != 200 {
                wrong.push(format!("{path}, {}: HTTP {}", headers.trim_end().replace("\r\n", ", "), answer.status));
            }
        }
    }
    let words = format!("{} foreign requests refused, {made} recordings by them", 3 * foreign.len());
    if wrong.is_empty() && made == 0 {
        return Ok(words);
    }
    let first = wrong.first().cloned().unwrap_or_default();
    Err(format!("{} wrong, {made} recordings by strangers; first: {first}", wrong.len()))
}

fn quota(ground: &Ground, name: &str, flag: &str, limit: &str) -> Finding {
    let victim = profiling_server(ground, name, &[flag, limit])?;
    let (mut refused, mut taken, mut others) = (0, 0, Vec::new());
    let mut oldest = None;
    for _ in 0..STARTS {
        let answer = victim.post("/start_profile", "")?;
        match answer.status {
            200 => {
                victim.serves()?;
                let stopped = victim.post("/stop_profile", "")?;
                if stopped.status != 200 {
                    others.push(format!("stop: HTTP {}", stopped.status));
                }
                oldest = oldest.or_else(|| files(&victim.folder, ".vtr").into_iter().next());
                taken += 1;
            }
            507 => refused += 1,
            status => others.push(format!("start: HTTP {status}")),
        }
        if others.len() > 3 {
            break;
        }
    }
    let made: Vec<PathBuf> = [".vtr", ".gz"].iter().flat_map(|end| files(&victim.folder, end)).collect();
    let bytes: u64 = made.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum();
    let recordings = files(&victim.folder, ".vtr").len();
    let words =
        format!("{taken} taken, {refused} refused; {recordings} recordings, {} files, {bytes} bytes", made.len());
    victim.serves()?;
    let is_kept = oldest.is_some_and(|path| path.exists());
    let is_within = if flag == "--profile-max-files" { made.len() <= FILES_MAX } else { bytes <= BYTES_MAX };
    let is_good = is_kept && is_within && others.is_empty() && refused > 0 && taken > 0;
    if is_good { Ok(words) } else { Err(format!("{words}; {}", others.join(", "))) }
}

fn paths(ground: &Ground) -> Finding {
    const LONG: usize = 300;
    let victim = profiling_server(ground, "profile-paths", &[])?;
    let (mut wrong, mut refused) = (Vec::new(), 0);
    let hostile = ["../out", "/etc/out", "a/b", "..", ".", "", "a\0b", "\u{202e}", &"n".repeat(LONG), "-rf", "a\nb"];
    for prefix in hostile {
        let before = files(&victim.folder, ".vtr").len();
        let answer = victim.post("/start_profile", &serde_json::json!({"profile_prefix": prefix}).to_string())?;
        match answer.status {
            400 => refused += 1,
            200 => {
                expect(&victim.post("/stop_profile", "")?, &[200])?;
                if files(&victim.folder, ".vtr").len() != before + 1 {
                    wrong.push(format!("{prefix:?} leads out of the folder: {}", answer.body));
                }
            }
            status => wrong.push(format!("{prefix:?}: HTTP {status}")),
        }
    }
    let folder = victim.folder.to_string_lossy().into_owned();
    for (method, path) in [("POST", "/start_profile"), ("POST", "/stop_profile"), ("GET", "/profile/sessions")] {
        let answer = victim.send(method, path, "X-Forwarded-For: 192.0.2.7\r\n", b"")?;
        if expect(&answer, &[200])?.body.contains(&folder) {
            wrong.push(format!("{path} names the folder to a client elsewhere"));
        }
    }
    let words = format!("{refused} of {} prefixes refused, the others inside the folder", hostile.len());
    if wrong.is_empty() { Ok(words) } else { Err(format!("{words}; {}", wrong.join("; "))) }
}
