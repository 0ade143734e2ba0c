//! The limits of rendering, one by one, and processes that do not speak as they should.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vitrum::text::{ChatLimits, ChatRenderer, TextError, WORKER_COMMAND};

use super::processes::{Watch, workers};
use super::support::assert_says;
use super::support::temp::TempDir;
use super::{GOOD, GOOD_TEXT, program, renderer, source, user};

const HANGS: &str = "{% for i in range(99999) %}{% set x = ('a' * 9999999)|upper %}{% endfor %}";
/// As `<signal.h>` has it on Linux.
const SIGXCPU: i32 = 24;

fn short() -> ChatLimits {
    ChatLimits { deadline: Duration::from_secs(1), ..ChatLimits::default() }
}

#[test]
fn every_limit_is_the_one_that_was_given() {
    let hang = renderer(HANGS, short());
    let start = Instant::now();
    assert_says(hang.render(&[user("hi")], true).expect_err("late"), "took longer than 1 s");
    assert!(start.elapsed() >= Duration::from_secs(1));

    let exact = renderer("{{ messages[0].content }}", ChatLimits { prompt_bytes: 5000, ..short() });
    assert_eq!(exact.render(&[user(&"x".repeat(5000))], true).expect("it fits").len(), 5000);
    assert_says(exact.render(&[user(&"x".repeat(5001))], true).expect_err("too long"), "wrote more than 5000 bytes");
    assert_eq!(exact.render(&[user("x")], true).expect("the next"), "x");

    let list = "{{ ('x' * 30000000)|length }}";
    let ample = renderer(list, ChatLimits { memory_bytes: 128 << 20, ..ChatLimits::default() });
    assert_eq!(ample.render(&[], true).expect("room"), "30000000");
    let tight = renderer(list, ChatLimits { memory_bytes: 64 << 20, ..ChatLimits::default() });
    assert_says(tight.render(&[], true).expect_err("no room"), "more than 64 MiB of memory");
}

#[test]
fn long_conversations_fit() {
    // What they take on a machine that has nothing else to do is a second at most.
    let limits = ChatLimits { deadline: Duration::from_secs(60), ..ChatLimits::of_bodies(8 << 20) };
    let renderer = renderer(GOOD, limits);
    let one = renderer.render(&[user(&"é".repeat(4 << 20))], false).expect("one long message");
    assert_eq!(one.len(), (8 << 20) + "<|im_start|>user\n<|im_end|>\n".len());
    // Bodies of 8 MiB have no more messages than this, each with some 25 bytes around what it says.
    let many = vec![user(""); (8 << 20) / 25];
    let text = renderer.render(&many, false).expect("many short messages");
    assert_eq!(text.len(), many.len() * "<|im_start|>user\n<|im_end|>\n".len());
}

#[test]
fn few_processes_render_many_conversations_and_wait_for_more() {
    let limits = ChatLimits { processes: 2, deadline: Duration::from_secs(60), memory_bytes: 101 << 20, ..short() };
    let watch = Watch::start(limits.memory_bytes);
    let renderer = renderer(GOOD, limits);
    thread::scope(|scope| {
        for client in 0..16 {
            let renderer = &renderer;
            scope.spawn(move || {
                for round in 0..50 {
                    let content = format!("{client} {round}");
                    let text = renderer.render(&[user(&content)], false).expect("a prompt");
                    assert_eq!(text, format!("<|im_start|>user\n{content}<|im_end|>\n"));
                }
            });
        }
    });
    assert!((1..=2).contains(&watch.workers()), "{} processes", watch.workers());
    let idle = workers(limits.memory_bytes);
    assert!((1..=2).contains(&idle.len()), "{idle:?} wait for more");
    drop(renderer);
    assert_eq!(workers(limits.memory_bytes), [0; 0], "they end with it");
}

#[test]
fn nothing_is_rendered_for_who_has_left() {
    let limits = ChatLimits { deadline: Duration::from_secs(60), memory_bytes: 103 << 20, processes: 1, ..short() };
    let renderer = renderer(HANGS, limits);
    let start = Instant::now();
    let is_wanted = || start.elapsed() < Duration::from_millis(500);
    thread::scope(|scope| {
        // The first is rendered, the second waits for its turn.
        let both = [(); 2].map(|()| scope.spawn(|| renderer.render_while(&[], true, &is_wanted)));
        for error in both.map(|thread| thread.join().expect("no panic").expect_err("nobody waits")) {
            assert!(matches!(error, TextError::Abandoned), "{error}");
        }
    });
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(workers(limits.memory_bytes), [0; 0], "the process has ended with it");
}

#[test]
fn who_has_no_turn_is_told() {
    let renderer = renderer(HANGS, ChatLimits { processes: 1, ..short() });
    thread::scope(|scope| {
        let first = scope.spawn(|| renderer.render(&[], true).expect_err("late"));
        let second = scope.spawn(|| renderer.render(&[], true).expect_err("late"));
        // Whoever is second waits nearly as long as it may, or just as long.
        for error in [first, second].map(|thread| thread.join().expect("no panic").to_string()) {
            assert!(error.contains("took longer than 1 s") || error.contains("had no turn"), "{error}");
        }
    });
}

#[test]
fn a_process_that_was_killed_while_it_waited_is_replaced() {
    let limits = ChatLimits { memory_bytes: 102 << 20, ..ChatLimits::default() };
    let renderer = renderer(GOOD, limits);
    for _ in 0..3 {
        renderer.prepare().expect("it compiles");
        let waiting = workers(limits.memory_bytes);
        assert_eq!(waiting.len(), 1);
        let killed = Command::new("kill").args(["-KILL", &waiting[0].to_string()]).status().expect("kill runs");
        assert!(killed.success());
        thread::sleep(Duration::from_millis(100)); // until the kernel is done with it
        assert_eq!(renderer.render(&[user("hi")], true).expect("a prompt"), GOOD_TEXT);
    }
}

/// A worker whose other end is this test.
fn worker(cpu_seconds: u64) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("two ends");
    let mut command = Command::new(program());
    command.args([WORKER_COMMAND, "268435456", &cpu_seconds.to_string()]).stderr(Stdio::null());
    command.stdin(OwnedFd::from(theirs.try_clone().expect("a copy"))).stdout(OwnedFd::from(theirs));
    (command.spawn().expect("it runs"), ours)
}

fn send(stream: &mut UnixStream, kind: u8, value: &serde_json::Value) {
    let text = value.to_string();
    let head = [&[kind], (text.len() as u32).to_le_bytes().as_slice()].concat();
    stream.write_all(&[head, text.into_bytes()].concat()).expect("it reads");
}

#[test]
fn a_process_limits_itself_and_ends_when_nobody_is_left() {
    let (mut child, mut stream) = worker(1);
    send(&mut stream, 1, &json!({"template": HANGS, "bos_token": null, "eos_token": null}));
    let mut ready = [0; 5];
    stream.read_exact(&mut ready).expect("an answer");
    assert_eq!(ready, [3, 0, 0, 0, 0]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("Linux says it");
    for (name, limit) in [("Max data size", "268435456"), ("Max core file size", "0"), ("Max open files", "0")] {
        let line = limits.lines().find(|line| line.starts_with(name)).expect("a line");
        let values: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(values, [limit; 2], "{name}");
    }
    send(&mut stream, 2, &json!({"messages": [], "add_generation_prompt": true, "bytes_max": 1000}));
    drop(stream); // as if the server had been killed
    assert_eq!(ended(&mut child).signal(), Some(SIGXCPU), "its seconds are over");

    let (mut child, stream) = worker(1);
    drop(stream);
    assert!(ended(&mut child).success(), "one that waits ends by itself");
}

fn ended(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_that_does_not_speak_as_it_should_is_ended_and_costs_nothing() {
    const READY: &str = r"printf '\003\000\000\000\000'";
    let cases = [
        ("exec sleep 60", "took longer than 1 s"),
        ("exec cat >&2", "took longer than 1 s"),
        ("printf 'hello world'; exec sleep 60", "unknown kind, 104"),
        (r"printf '\005\377\377\377\377'; exec sleep 60", "4294967295 bytes where 16777216 are allowed"),
        ("exec cat /dev/zero", "unknown kind, 0"),
        (r"printf '\005\001\000\000\000x'; exec sleep 60", "Text where it was not asked for"),
        ("kill -SEGV $$", "more than 512 MiB of memory, or nested too deeply"),
        ("kill -KILL $$", "killed"),
        ("exit 3", "exit status: 3"),
        ("printf x", "exit status: 0"),
    ];
    let answers = [
        (r"printf '\005\001\000\000\000\377'; exec sleep 60", "utf-8"),
        (r"printf '\005\000\000\000\001'; exec sleep 60", "took longer than 1 s"),
        (r"printf '\003\000\000\000\000'; exec sleep 60", "Ready where it was not asked for"),
        ("exit 0", "exit status: 0"),
    ];
    let answers = answers.map(|(script, words)| (format!("{READY}; {script}"), words));
    let cases = cases.map(|(script, words)| (script.to_owned(), words)).into_iter().chain(answers);
    let folder = TempDir::new();
    for (index, (script, words)) in cases.enumerate() {
        let renderer = ChatRenderer::new(fake(&folder, index, &script), source(GOOD), short());
        let start = Instant::now();
        let said = renderer.render(&[user("hi")], true).expect_err(words).to_string();
        assert!(said.contains(words), "{script}: {said}");
        assert!(start.elapsed() < Duration::from_secs(20), "{script}: {:?}", start.elapsed());
    }
    let missing = ChatRenderer::new(folder.path().join("nothing"), source(GOOD), short());
    assert_says(missing.prepare().expect_err("no such program"), "nothing could not be run: No such file");
}

/// A program that runs a script. Another process writes it: one that this process has just forked would hold it open.
fn fake(folder: &TempDir, index: usize, script: &str) -> PathBuf {
    let path = folder.path().join(format!("fake-{index}"));
    let mut command = Command::new("sh");
    command.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#, "sh", script]).arg(&path);
    assert!(command.status().expect("sh runs").success());
    path
}
