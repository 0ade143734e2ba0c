//! `vitrum serve` and `vitrum generate` with such templates: text is completed all the same.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Server, error_message, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;

const CHAT: &str = "/v1/chat/completions";
const CYCLE: &str = "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}";

fn model(folder: &TempDir, template: &str) -> PathBuf {
    let model = TinyModel { max_position: 4096, ..TinyModel::default() };
    folder.write("tiny.gguf", model.writer().set("tokenizer.chat_template", template).bytes())
}

fn server(template: &str) -> Server {
    let folder = TempDir::new();
    let model = model(&folder, template);
    Server::start_in(folder, &model, &["--threads", "1"])
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0})
}

/// Both routes that render refuse the conversation, in these words; text is completed.
async fn assert_refuses(server: &Server, words: &str) {
    for path in [CHAT, "/tokenize"] {
        let body = if path == CHAT { chat() } else { json!({"messages": chat()["messages"]}) };
        let message = error_message(&server.post(path, &body).await, 400, &Value::Null, &body.to_string());
        assert!(message.contains(words), "{path}: {message}");
    }
    server.assert_answers().await;
}

#[tokio::test]
async fn a_template_that_does_not_compile_keeps_no_server_from_starting() {
    let not = format!("{{{{ {}1 }}}}", "not ".repeat(100_000));
    for (template, words) in [("{% for %}", "does not compile: syntax error"), (not.as_str(), "nested too deeply")] {
        let server = server(template);
        server.log_with("conversations will be refused: the model's chat template");
        assert_refuses(&server, words).await;
    }
}

#[tokio::test]
async fn a_template_that_overflows_the_stack_ends_no_server() {
    let server = server(CYCLE);
    for _ in 0..3 {
        assert_refuses(&server, "nested too deeply").await;
    }
}

#[tokio::test]
async fn what_a_template_refuses_is_its_own_words_and_the_next_is_answered() {
    let server = server(
        "{% if messages|length > 1 %}{{ raise_exception('one message, please') }}{% endif %}{{ messages[0].content }}",
    );
    for _ in 0..3 {
        let message = json!({"role": "user", "content": "hi"});
        let body = json!({"messages": [message, message]});
        let said = error_message(&server.post(CHAT, &body).await, 400, &Value::Null, "two messages");
        assert!(said.starts_with("the model's chat template: ") && said.contains("one message, please"), "{said}");
        let reply = server.post(CHAT, chat()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["usage"]["prompt_tokens"], 2);
    }
}

#[test]
fn generate_says_what_is_wrong_with_a_template() {
    let cases = [
        ("{{ messages[0].content }}", Some(0), ""),
        ("{% for %}", Some(1), "error: the model's chat template does not compile: syntax error"),
        (CYCLE, Some(1), "error: the model's chat template needed more than 512 MiB of memory, or nested too deeply"),
    ];
    for (template, code, words) in cases {
        let folder = TempDir::new();
        let mut command = vitrum(["generate", "--device", "cpu", "--chat", "-p", "hello", "--max-tokens", "2"]);
        command.args(["--threads", "1"]).arg(model(&folder, template));
        let ended = run_within(command, Duration::from_secs(120));
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}
