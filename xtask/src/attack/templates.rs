//! Model files whose chat templates are written to end, hang or fill the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bodies::{HEALTH_P99_MAX, MEMORY_MB_MAX, STRANGERS};
use super::crowd::{Crowd, Manner, Watch};
use super::gguf::Gguf;
use super::victim::{Ground, Victim, children_mb, expect};
use super::{Attack, Finding, within, write};
use crate::http;
use crate::process::Group;

/// Rendering has a deadline of a few seconds, and the machine may be shared.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const START_MAX: Duration = Duration::from_secs(20);

const HOLDS: &str = "400 within 15 s, or refused at the start; with children below 1 GB, `/health` 99 % within 250 ms";

/// A template's name, what it does, and its text.
type Template = (&'static str, &'static str, fn() -> String);

const TEMPLATES: [Template; 15] = [
    ("template-holds-itself", "a namespace that holds itself is printed", || {
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into()
    }),
    ("template-json-of-itself", "the same as JSON", || {
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|tojson }}".into()
    }),
    ("template-nested-40", "a list of 2⁴⁰ leaves is printed", || nested("a") + "{{ ns.a }}"),
    ("template-compares-40", "two such lists are compared", || nested("a") + &nested("b") + "{{ ns.a == ns.b }}"),
    ("template-doubled", "a string is doubled 40 times", || {
        "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}\
         {% endfor %}{{ ns.s|length }}"
            .into()
    }),
    ("template-nots", "100,000 times `not`", || format!("{{{{ {} true }}}}", "not ".repeat(100_000))),
    ("template-brackets", "100,000 nested lists", || {
        format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000))
    }),
    ("template-ifs", "20,000 nested blocks", || {
        format!("{}x{}", "{% if true %}".repeat(20_000), "{% endif %}".repeat(20_000))
    }),
    ("template-precision", "a number of 2·10⁹ decimals", || "{{ '%.2000000000f'|format(1.5) }}".into()),
    ("template-width", "a number 2·10⁹ wide, an indent of as much", || {
        "{{ '%2000000000d'|format(15) }}{{ 'x'|indent(2000000000) }}".into()
    }),
    ("template-times", "a string and a list times 2·10⁹", || {
        "{{ 'x' * 2000000000 }}{{ [0, 1] * 2000000000 }}".into()
    }),
    ("template-calls-itself", "a macro that calls itself", || {
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".into()
    }),
    ("template-endless", "three nested loops of 99,999", endless),
    ("template-prints-10-gb", "10 GB are printed", || {
        "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}".into()
    }),
    ("template-raises-100-mb", "an error of 100 MB is raised", || "{{ raise_exception('x' * 100000000) }}".into()),
];

pub(super) fn attacks() -> Vec<Attack> {
    let attack =
        |(name, tries, text): Template| Attack::new(name, tries, HOLDS, move |ground| render(ground, name, text()));
    let crowd = Attack::new(
        "template-crowd",
        "sixteen chats at once with the nested loops, from strangers, then a completion",
        "all answered with 400 or 503 within 30 s, the completion within 2 s, with children below 1 GB, `/health` 99 % \
         within 250 ms",
        crowded,
    );
    TEMPLATES.map(attack).into_iter().chain([crowd]).collect()
}

/// Sixteen strangers have a template rendered that has no end; another user asks for no template.
fn crowded(ground: &Ground) -> Finding {
    let folder = ground.folder("template-crowd")?;
    let path = folder.join("model.gguf");
    write(&path, Gguf { template: endless(), ..Gguf::new() }.bytes())?;
    let mut command = ground.vitrum(["serve", "--device", "cpu", "--threads", "1", "--port", "0"]);
    command.arg(&path);
    let mut victim = Victim::start(command, folder)?;
    let headers = format!("Host: {}\r\n", victim.address());
    let request = Arc::new(http::request("POST", "/v1/chat/completions", &headers, chat_body().as_bytes()));
    let watch = Watch::begin(victim.address());
    let start = Instant::now();
    let crowd = Crowd::come(victim.address(), &request, STRANGERS, Manner::Waits(2 * ANSWER_MAX));
    thread::sleep(Duration::from_millis(200));
    let (asked, children_mb) = (Instant::now(), children_mb(victim.served.group.id()));
    let served = victim.serves();
    let completion = asked.elapsed();
    let got = crowd.go();
    let took = start.elapsed();
    let health = watch.end(HEALTH_P99_MAX);
    victim.is_running()?;
    served?;
    let words = format!(
        "{got} in {:.1} s, completion {:.2} s, {} MB, children {children_mb} MB",
        took.as_secs_f64(),
        completion.as_secs_f64(),
        victim.peak_mb()
    );
    let words = format!("{words}; {}", health.map_err(|why| format!("{words}; {why}"))?);
    let is_refused = got.split(", ").all(|group| group.ends_with(" 400") || group.ends_with(" 503"));
    let is_quick = took <= 2 * ANSWER_MAX && completion <= Duration::from_secs(2);
    let is_small = victim.peak_mb() + children_mb <= MEMORY_MB_MAX;
    if is_refused && is_quick && is_small { Ok(words) } else { Err(words) }
}

fn chat_body() -> String {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}).to_string()
}

fn endless() -> String {
    let begin = |name: &str| format!("{{% for {name} in range(99999) %}}");
    begin("i") + &begin("j") + &begin("k") + &"{% endfor %}".repeat(3)
}

/// A list that holds itself twice, forty levels deep: 2⁴⁰ leaves from some hundred bytes.
fn nested(name: &str) -> String {
    let begin = if name == "a" { "{% set ns = namespace() %}" } else { "" };
    format!(
        "{begin}{{% set ns.{name} = [1] %}}{{% for i in range(40) %}}{{% set ns.{name} = [ns.{name}, ns.{name}] %}}{{% \
         endfor %}}"
    )
}

fn render(ground: &Ground, name: &str, template: String) -> Finding {
    let folder = ground.folder(name)?;
    let path = folder.join("model.gguf");
    write(&path, Gguf { template, ..Gguf::new() }.bytes())?;
    let mut command = ground.vitrum(["serve", "--device", "cpu", "--threads", "1", "--port", "0"]);
    command.arg(&path);
    if let Some(words) = refused_at_start(ground, &path)? {
        return Ok(words);
    }
    let mut victim = Victim::start(command, folder).map_err(|error| error.replace('\n', " "))?;
    let watch = Watch::begin(victim.address());
    let (answer, took, children_mb) = chat(&victim)?;
    let health = watch.end(HEALTH_P99_MAX);
    victim.is_running()?;
    let words = format!(
        "{} in {:.1} s, {} MB, children {children_mb} MB",
        answer.as_ref().map_or_else(String::clone, |status| format!("HTTP {status}")),
        took.as_secs_f64(),
        victim.peak_mb()
    );
    let words = format!("{words}; {}", health.map_err(|why| format!("{words}; {why}"))?);
    victim.serves().map_err(|why| format!("{words}; {why}"))?;
    let is_small = victim.peak_mb() + children_mb <= MEMORY_MB_MAX;
    if answer == Ok(400) && is_small && within("", took, ANSWER_MAX).is_ok() { Ok(words) } else { Err(words) }
}

/// Whether the server will not start with this file. It has to say so in a sentence, and exit with 1.
fn refused_at_start(ground: &Ground, path: &std::path::Path) -> Result<Option<String>, String> {
    let mut command = ground.vitrum(["serve", "--device", "cpu", "--threads", "1", "--port", "0"]);
    command.arg(path);
    let mut group = Group::spawn(command, std::io::sink()).map_err(|error| error.to_string())?;
    let listens = group.line(START_MAX, |line| line.contains("listening on ").then_some(()), |_| {});
    if listens.is_some() {
        return Ok(None);
    }
    let status = group.wait_within(Duration::from_secs(1)).map_err(|error| error.to_string())?;
    let said = group.tail().trim().replace('\n', " ");
    match status.and_then(|status| status.code()) {
        Some(1) => Ok(Some(format!("refused at the start: {}", said.chars().take(120).collect::<String>()))),
        _ => Err(format!("the start: {}: {said}", status.map_or("no end".to_owned(), |status| status.to_string()))),
    }
}

/// Asks for one chat answer: its status, how long it took, and the most memory that children had meanwhile, in MB.
fn chat(victim: &Victim) -> Result<(Result<u16, String>, Duration, u64), String> {
    let body = chat_body();
    let (is_over, most, id) = (AtomicBool::new(false), AtomicU64::new(0), victim.served.group.id());
    let start = Instant::now();
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(children_mb(id), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let answer = victim.post("/v1/chat/completions", &body);
        is_over.store(true, Ordering::Relaxed);
        answer
    });
    let took = start.elapsed();
    let status = answer.and_then(|answer| expect(&answer, &[400]).map(|answer| answer.status));
    Ok((status, took, most.into_inner()))
}
