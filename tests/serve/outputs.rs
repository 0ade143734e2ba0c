//! Standard output and standard error that cannot be written: a reader that has left, a full disk, a pipe that nobody
//! reads. Nothing ends, and nothing stands still.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{get, post, wait_until};
use crate::support::server::vitrum;
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;

/// What a stream of a process leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// A pipe whose reader has left.
    Closed,
    /// A full disk.
    Full,
    /// A pipe that nobody reads, and that holds 64 KiB.
    Unread,
}

const SINKS: [Sink; 3] = [Sink::Closed, Sink::Full, Sink::Unread];

impl Sink {
    /// The stream, and what keeps it as it is.
    fn open(self) -> (Stdio, Option<PipeReader>) {
        let (reader, writer) = std::io::pipe().unwrap();
        match self {
            Sink::Closed => (writer.into(), None),
            Sink::Full => (File::options().write(true).open("/dev/full").unwrap().into(), None),
            Sink::Unread => (writer.into(), Some(reader)),
        }
    }
}

struct Server {
    child: Child,
    address: std::net::SocketAddr,
    _readers: [Option<PipeReader>; 2],
    _folder: TempDir,
}

impl Server {
    /// Its port is one that was free a moment ago: nobody can read which it takes.
    fn start(stdout: Sink, stderr: Sink) -> Server {
        let folder = TempDir::new();
        let model = TinyModel::default().write(&folder);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let profiles = folder.path().join("profiles");
        fs::create_dir(&profiles).unwrap();
        let mut command = vitrum(["serve", "--device", "cpu", "--threads", "1", "--max-waiting", "2"]);
        // Every request is a line of the log.
        command.env("VITRUM_LOG", "debug").arg("--port").arg(port.to_string()).arg("--profile-dir").arg(profiles);
        let (out, out_reader) = stdout.open();
        let (err, err_reader) = stderr.open();
        let child = command.arg(model).stdout(out).stderr(err).spawn().unwrap();
        Server { child, address: ([127, 0, 0, 1], port).into(), _readers: [out_reader, err_reader], _folder: folder }
    }

    async fn answers(&self) {
        let reply = post(self.address, "/v1/completions", json!({"prompt": [65], "max_tokens": 2})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_outlives_its_outputs_in_every_state() {
    for sink in SINKS {
        let mut server = Server::start(sink, sink);
        let is_up = async || std::net::TcpStream::connect(server.address).is_ok();
        wait_until("it listens", is_up).await;
        server.answers().await;
        // Thousands of lines: more than the pipe and the queue hold, while others are refused.
        let burst: Vec<_> = (0..16)
            .map(|_| {
                let address = server.address;
                tokio::spawn(async move {
                    for _ in 0..150 {
                        let reply = post(address, "/v1/completions", json!({"prompt": [65], "max_tokens": 1})).await;
                        assert!([200, 503].contains(&reply.status), "{}", reply.text());
                    }
                })
            })
            .collect();
        for client in burst {
            client.await.unwrap();
        }
        if cfg!(feature = "profiling") {
            assert_eq!(post(server.address, "/start_profile", "").await.status, 200, "{sink:?}");
            server.answers().await;
            let stopped = post(server.address, "/stop_profile", "").await;
            assert_eq!(stopped.json()["complete"], true, "{sink:?}: {}", stopped.text());
            assert_eq!(post(server.address, "/start_profile", "").await.status, 200, "{sink:?}");
        }
        // It drains: what runs is finished, the recording is ended.
        let address = server.address;
        let body = json!({"prompt": [65], "max_tokens": 100, "ignore_eos": true, "temperature": 0});
        let last = tokio::spawn(async move { post(address, "/v1/completions", body).await });
        wait_until("it runs", async || get(address, "/load").await.json()["server_load"] == 1 || last.is_finished())
            .await;
        let pid = server.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let reply = last.await.unwrap();
        assert_eq!(reply.json()["usage"]["completion_tokens"], 100, "{sink:?}");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = server.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{sink:?}: it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0), "{sink:?}");
        if cfg!(feature = "profiling") {
            let files = fs::read_dir(server._folder.path().join("profiles")).unwrap();
            let spools = files.filter(|file| file.as_ref().unwrap().path().extension() == Some(OsStr::new("vtr")));
            assert_eq!(spools.count(), 2, "{sink:?}");
        }
    }
}

#[test]
fn commands_say_that_their_output_is_lost_or_end_quietly() {
    let folder = TempDir::new();
    let model = TinyModel::default().write(&folder);
    let model = model.to_str().unwrap();
    let commands: &[&[&str]] = &[
        &["graph", model, "--bucket", "1"],
        &["generate", model, "-p", "a", "--device", "cpu", "--max-tokens", "3", "--ignore-eos"],
        &[
            "bench",
            "latency",
            model,
            "--device",
            "cpu",
            "--batch-size",
            "1",
            "--input-len",
            "4",
            "--output-len",
            "4",
            "--num-iters",
            "1",
            "--num-iters-warmup",
            "0",
        ],
        &["doctor", "--device", "cpu", "--json"],
    ];
    for command in commands {
        for (sink, code) in [(Sink::Closed, 0), (Sink::Full, 1)] {
            let (out, _reader) = sink.open();
            let mut child = vitrum(*command).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
            let mut log = String::new();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{command:?} into {sink:?}: {log}");
            assert_eq!(log.contains("standard output could not be written"), sink == Sink::Full, "{command:?}: {log}");
        }
        for sink in [Sink::Closed, Sink::Full] {
            let (err, _reader) = sink.open();
            let ended = vitrum(*command).stdout(Stdio::null()).stderr(err).status().unwrap();
            assert_eq!(ended.code(), Some(0), "{command:?} with a log into {sink:?}");
            let (err, _reader) = sink.open();
            let wrong = vitrum(["graph", "/no/such/model.gguf"]).stderr(err).stdout(Stdio::null()).status().unwrap();
            assert_eq!(wrong.code(), Some(1), "an error that nobody hears");
        }
    }
}
