//! A model whose name is made to break what it is written into: quotes, markup, control characters, 4 kB, bytes that
//! are no UTF-8. It is served and recorded, and every output says it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::post_with;
use crate::support::gguf_writer::Meta;
use crate::support::server::{Ended, Server, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;
use crate::{file, machine, stop};

const REQUEST: &str = r#"a"b'c\</script>{}%00"#;

fn name() -> Vec<u8> {
    let mut name = b"\"quotes\" 'and' \\ </script><b>&amp; \x01\x1b[31m\r\n\t\xff\xfe\xc3( \xf0\x9f\x92\xa5 ".to_vec();
    name.resize(4096, b'n');
    name
}

fn run(args: &[&str]) -> Ended {
    let ended = run_within(vitrum(args), Duration::from_secs(60));
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended
}

#[tokio::test]
async fn a_hostile_name_survives_in_every_output() {
    let _alone = machine().await;
    let folder = TempDir::new();
    let mut writer = TinyModel::default().writer();
    let text = [(name().len() as u64).to_le_bytes().to_vec(), name()].concat();
    writer.set("general.name", Meta::Raw(8, text));
    let model = folder.write("tiny.gguf", writer.bytes());
    let profiles = folder.path().to_str().expect("UTF-8").to_owned();
    let server = Server::start_in(folder, &model, &["--profile-dir", &profiles]);
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    let body = json!({"prompt": [65, 66], "max_tokens": 6, "temperature": 0, "ignore_eos": true});
    let reply = post_with(server.address, "/v1/completions", &format!("x-request-id: {REQUEST}\r\n"), body).await;
    assert_eq!((reply.status, reply.header("x-request-id")), (200, Some(REQUEST)));
    let stopped = stop(&server).await;
    let spool = file(&stopped, ".vtr");
    let shown = String::from_utf8_lossy(&name()).into_owned();

    let trace = Path::new(&profiles).join("trace.json");
    run(&["profile", "export", spool, "-o", trace.to_str().unwrap()]);
    let trace: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).expect("JSON");
    assert_eq!(trace["vitrum"]["model"], *shown);

    let flames = Path::new(&profiles).join("flames.json");
    run(&["profile", "export", spool, "--format", "speedscope", "-o", flames.to_str().unwrap()]);
    serde_json::from_slice::<Value>(&std::fs::read(&flames).unwrap()).expect("JSON");

    let database = Path::new(&profiles).join("all.sqlite");
    run(&["profile", "export", spool, "--format", "sqlite", "-o", database.to_str().unwrap()]);
    let bytes = std::fs::read(&database).unwrap();
    assert!(bytes.windows(64).any(|window| window == [b'n'; 64]), "the name is not in the database");

    let page = Path::new(&profiles).join("page.html");
    run(&["profile", "report", spool, "-o", page.to_str().unwrap()]);
    let page = std::fs::read_to_string(&page).expect("UTF-8");
    assert!(!page.contains("</script><b>"), "markup in a name is not escaped");

    for format in ["text", "csv", "json"] {
        let ended = run(&["profile", "stats", spool, "--format", format]);
        let is_control = |char: char| char.is_control() && char != '\n';
        assert!(!ended.stdout.contains(is_control), "{format}: control characters: {:?}", ended.stdout);
        if format == "json" {
            serde_json::from_str::<Value>(&ended.stdout).expect("JSON");
        }
    }
    let table = run(&["profile", "stats", spool, "-r", "request_sum", "-f", "json"]).stdout;
    let rows: Value = serde_json::from_str(&table).expect("JSON");
    assert_eq!(rows[0]["Name"], REQUEST, "{rows}");
    server.assert_answers().await;
}
