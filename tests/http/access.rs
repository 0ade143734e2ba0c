//! Routes that change something: where they exist, under which names, for whose pages, and within which quota.

use std::fs;

use serde_json::json;
use vitrum::http::{FolderQuota, ProfileOptions, ServeOptions};

use crate::client::{exchange, get, head, post, post_with};
use crate::scripted::{Harness, Script, options};
use crate::temp::TempDir;

const GUARDED: [&str; 3] = ["/start_profile", "/stop_profile", "/profile/nodes/reset"];

#[tokio::test]
async fn a_server_without_a_folder_does_not_record_and_says_what_to_do() {
    let server = Harness::with(Script::default(), ServeOptions { profile: None, ..options() }).await;
    for reply in [
        post(server.address, "/start_profile", "").await,
        post(server.address, "/stop_profile", "").await,
        get(server.address, "/profile/sessions").await,
        get(server.address, "/profile/sessions/17").await,
    ] {
        assert_eq!(reply.status, 403, "{}", reply.text());
        assert!(reply.text().contains("--profile-dir DIR"), "{}", reply.text());
    }
}

#[tokio::test]
async fn pages_of_others_change_nothing() {
    let server =
        Harness::with(Script::default(), ServeOptions { allowed_hosts: vec!["Known".into()], ..options() }).await;
    let at = server.address;
    for path in GUARDED {
        for headers in [
            "origin: http://evil.example\r\n".to_owned(),
            "origin: null\r\n".into(),
            format!("origin: http://localhost:{}\r\n", at.port()), // the client says `host: localhost`, port 80
            "content-type: text/plain\r\norigin: http://evil.example\r\n".into(),
        ] {
            let reply = post_with(at, path, &headers, "").await;
            assert_eq!(reply.status, 403, "{path} {headers}: {}", reply.text());
            assert!(reply.text().contains("origin"), "{}", reply.text());
        }
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let reply = exchange(at, request.as_bytes()).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text());
        assert!(reply.text().contains("--allowed-host"), "{}", reply.text());
        // The name in an absolute target counts as well.
        let request = request
            .replace(path, &format!("http://evil.example{path}"))
            .replace("host: evil.example", "host: localhost");
        assert_eq!(exchange(at, request.as_bytes()).await.status, 403);
    }
    assert_eq!(get(at, "/profile/sessions").await.json(), json!({"sessions": []}), "nothing was recorded");
    let request =
        "POST /start_profile HTTP/1.1\r\nhost: known:80\r\norigin: http://known:80\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(at, request.as_bytes()).await.status, 200, "a page of the server's own");
}

fn recording_into(folder: &TempDir, quota: FolderQuota) -> ServeOptions {
    let usual = options();
    let profile = usual.profile.clone().expect("they record");
    let profile = ProfileOptions { dir: folder.path().to_owned(), quota, ..profile };
    ServeOptions { profile: Some(profile), ..usual }
}

#[tokio::test]
async fn a_full_folder_is_refused_and_left_alone() {
    let folder = TempDir::new();
    let quota = FolderQuota { files_max: 4, bytes_max: 3 << 20 };
    let server = Harness::with(Script::default(), recording_into(&folder, quota)).await;
    let start = async |body: &str| post(server.address, "/start_profile", body).await;
    for name in ["a.1.vtr", "a.1.pt.trace.json.gz", "a.1.html", "notes"] {
        fs::write(folder.path().join(name), [0; 10]).unwrap();
    }
    let reply = start("").await;
    assert_eq!(reply.status, 507, "{}", reply.text());
    assert!(reply.text().contains("has 3 files, and 4 are its limit (--profile-max-files)"), "{}", reply.text());
    fs::remove_file(folder.path().join("a.1.html")).unwrap();

    // A recording gets what is left.
    let file = fs::File::options().write(true).open(folder.path().join("a.1.vtr")).unwrap();
    file.set_len((3 << 20) - (1 << 19) - 10).unwrap();
    let reply = start(r#"{"max_bytes": 600000}"#).await;
    assert_eq!(reply.status, 507, "{}", reply.text());
    assert!(reply.text().contains("--profile-dir-max-bytes"), "{}", reply.text());
    let reply = start("").await;
    assert_eq!((reply.status, reply.json()["max_bytes"].as_u64()), (200, Some(1 << 19)), "{}", reply.text());
    assert_eq!(post(server.address, "/stop_profile", "").await.status, 200);
    file.set_len(3 << 20).unwrap();
    assert_eq!(start("").await.status, 507);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing was deleted");
}

#[tokio::test]
async fn where_the_folder_lies_is_for_this_machines_clients() {
    let folder = TempDir::new();
    let quota = FolderQuota { files_max: 10, bytes_max: 1 << 30 };
    let server = Harness::with(Script::default(), recording_into(&folder, quota)).await;
    let path = folder.path().to_str().unwrap();
    let near = post(server.address, "/start_profile", "").await;
    assert_eq!(near.json()["spool"], format!("{path}/vitrum.17.vtr"));
    for header in ["x-forwarded-for: 192.0.2.1\r\n", "forwarded: for=192.0.2.1\r\n"] {
        let far = exchange(
            server.address,
            head("GET", "/profile/sessions/17", None, &format!("connection: close\r\n{header}")).as_bytes(),
        )
        .await;
        assert_eq!(far.json()["spool"], "vitrum.17.vtr");
        assert!(!far.text().contains(path), "{}", far.text());
        let refused = post_with(server.address, "/start_profile", header, "").await;
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(!refused.text().contains(path), "{}", refused.text());
    }
    let far = post_with(server.address, "/stop_profile", "x-forwarded-for: 192.0.2.1\r\n", "").await;
    assert_eq!(far.json()["files"], json!(["vitrum.17.vtr", "vitrum.17.pt.trace.json.gz", "vitrum.17.html"]));
    assert!(!far.text().contains(path), "{}", far.text());
}
