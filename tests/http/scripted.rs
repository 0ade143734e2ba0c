//! An engine that counts: the token after t is t + 1. And a server in front of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vitrum::device::DeviceInfo;
use vitrum::engine::metrics::{CacheSizes, EngineMetrics};
use vitrum::engine::{Command, Engine, EngineInfo, Inbox, ProfileError, SessionStarted, StartRequest, Submission};
use vitrum::http::{FolderQuota, ProfileOptions, ServeOptions, Server};
use vitrum::model::{Biases, ModelConfig};
use vitrum::request::{LastToken, RequestError, SamplingParams, TokenEvent, TokenId, TokenLogprobs};
use vitrum::step::StepLimits;
use vitrum::text::{ChatLimits, ChatRenderer, TemplateSource, Tokenizer};
use vitrum::trace::session::{Counts, Granularity, Keep, RecordError, SessionSources, SpoolSummary, TraceSource};
use vitrum::weights::{TokenKind, VocabularySpec};

pub(crate) const VOCAB: usize = 1000;
pub(crate) const EOS: u32 = 500;
pub(crate) const MAX_MODEL_LEN: usize = 256;
pub(crate) const MODEL: &str = "org/counting";

/// What the engine does besides counting.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Wait for one `()` before each token.
    pub(crate) gate: Option<Gate>,
    /// Keep requests in the waiting queue and never answer.
    pub(crate) stuck: bool,
    /// Fail every request after this many tokens.
    pub(crate) fail_after: Option<u32>,
    /// Pretend that the recorder is not compiled in, or that the folder cannot be written.
    pub(crate) profile: ProfileScript,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ProfileScript {
    #[default]
    Works,
    Absent,
    Unwritable,
    LosesRecords,
}

/// A request that the engine is done with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: SamplingParams,
    pub(crate) tokens: u32,
    pub(crate) aborted: bool,
}

pub(crate) struct Harness {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) tokenizer: Arc<Tokenizer>,
    ended: mpsc::Receiver<Ended>,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Harness {
    pub(crate) async fn start() -> Harness {
        Harness::with(Script::default(), options()).await
    }

    pub(crate) async fn script(script: Script) -> Harness {
        Harness::with(script, options()).await
    }

    pub(crate) async fn with(script: Script, options: ServeOptions) -> Harness {
        Harness::tokenizing(Tokenizer::numeric(VOCAB), script, options).await
    }

    /// Tokens that are bytes: 2 and 3 are the two of é, 4 and 5 the first of others, and 6 is a control token.
    pub(crate) async fn of_bytes() -> Harness {
        let texts = (0..VOCAB).map(|id| match id {
            2 => "Ã".into(),
            3 => "©".into(),
            4 => "â".into(),
            5 => "ã".into(),
            6 => "<|end|>".into(),
            _ => format!("t{id}"),
        });
        let texts: Vec<String> = texts.collect();
        let kind = |id| if id == 6 { TokenKind::Control } else { TokenKind::Normal };
        let spec = VocabularySpec {
            model: "gpt2".into(),
            tokens: texts.iter().map(String::as_str).collect(),
            kinds: (0..VOCAB).map(kind).collect(),
            ..VocabularySpec::default()
        };
        Harness::tokenizing(Tokenizer::of_vocabulary(&spec).unwrap(), Script::default(), options()).await
    }

    async fn tokenizing(tokenizer: Tokenizer, script: Script, options: ServeOptions) -> Harness {
        let (engine, ended) = engine(script);
        let tokenizer = Arc::new(tokenizer);
        let template = Some(template());
        let server = Server::bind(options, engine.clone(), tokenizer.clone(), template).await.unwrap();
        let address = server.address();
        let (shutdown, asked) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run(async { asked.await.unwrap_or_default() }));
        Harness { address, engine, tokenizer, ended, shutdown: Some(shutdown), server }
    }

    /// The next request that the engine is done with.
    pub(crate) fn ended(&self) -> Ended {
        self.ended.recv_timeout(Duration::from_secs(60)).expect("the engine ends a request")
    }

    /// Text of the tokens from `first` to `last`.
    pub(crate) fn text(&self, first: u32, last: u32) -> String {
        (first..=last).map(|token| self.tokenizer.token_text(TokenId(token))).collect()
    }

    pub(crate) fn ask_to_end(&mut self) {
        self.shutdown.take().expect("asked once").send(()).unwrap();
    }

    /// Waits for the server's end, which someone asked for.
    pub(crate) async fn wait(self) {
        tokio::time::timeout(Duration::from_secs(60), self.server).await.expect("the server ends").unwrap();
    }
}

pub(crate) fn options() -> ServeOptions {
    let profile = ProfileOptions {
        dir: "profiles".into(),
        quota: FolderQuota { files_max: 1000, bytes_max: 1 << 30 },
        bytes_max: 1 << 20,
        keep: Keep::First,
        source: TraceSource::Stamps,
        granularity: Granularity::Node,
        render,
    };
    let names = vec![MODEL.into(), "alias".into()];
    ServeOptions { port: 0, ..ServeOptions::new(names, "/models/counting.gguf".into(), Some(profile)) }
}

fn render(spool: &Path, _cancel: &AtomicBool) -> Result<Vec<PathBuf>, vitrum::http::RenderError> {
    Ok(vec![spool.with_extension("pt.trace.json.gz"), spool.with_extension("html")])
}

/// The contents of the messages; the answer begins after a 1.
fn template() -> ChatRenderer {
    let template =
        "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}1{% endif %}";
    let source = TemplateSource { template: template.into(), ..TemplateSource::default() };
    ChatRenderer::new(env!("CARGO_BIN_EXE_vitrum").into(), source, ChatLimits::default())
}

pub(crate) type Gate = Arc<Mutex<mpsc::Receiver<()>>>;

pub(crate) fn gate() -> (mpsc::Sender<()>, Option<Gate>) {
    let (sender, receiver) = mpsc::channel();
    (sender, Some(Arc::new(Mutex::new(receiver))))
}

fn engine(script: Script) -> (Engine, mpsc::Receiver<Ended>) {
    let info = EngineInfo {
        model: ModelConfig {
            family: "llama",
            name: "counting".into(),
            layers: 1,
            hidden: 16,
            ffn: 16,
            heads: 1,
            kv_heads: 1,
            head_dim: 16,
            vocab: VOCAB,
            max_position: MAX_MODEL_LEN,
            rms_eps: 1e-5,
            rope_theta: 1e4,
            rope_factors: None,
            rope_length: 1.0,
            biases: Biases::default(),
            unrotated_layers: Vec::new(),
            attention_scale: 0.25,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            tied_embeddings: true,
            eos_tokens: vec![EOS],
        },
        device: DeviceInfo { name: "none".into(), kind: "null", isa: "none", workers: 0, memory_bytes: 0 },
        limits: StepLimits { max_tokens: 512, max_seqs: 64, max_model_len: MAX_MODEL_LEN, kv_pages: 64 },
        max_waiting: 3,
    };
    let metrics = Arc::new(EngineMetrics::new(MODEL, CacheSizes { page_tokens: 16, pages: 64 }));
    let (engine, inbox) = Engine::from_parts(info, metrics);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || serve(inbox, script, sender));
    (engine, ended)
}

fn serve(inbox: Inbox, script: Script, ended: mpsc::Sender<Ended>) {
    let mut stuck = Vec::new();
    let mut session = None;
    for command in inbox.commands.iter() {
        match command {
            Command::Submit(submissions) if script.stuck => stuck.extend(submissions),
            Command::Submit(submissions) => {
                for submission in submissions {
                    let (script, ended) = (script.clone(), ended.clone());
                    thread::spawn(move || ended.send(count(submission, &script)));
                }
            }
            Command::StartProfile(StartRequest { options, end, reply }) => {
                let path = options.dir.join(format!("{}.17.vtr", options.prefix));
                let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
                let _ = reply.send(match (script.profile, &session) {
                    (ProfileScript::Absent, _) => Err(RecordError::NotCompiledIn.into()),
                    (ProfileScript::Unwritable, _) => Err(RecordError::Create { path, source: denied() }.into()),
                    (_, Some(_)) => Err(ProfileError::Running { id: "17".into() }),
                    (_, None) => {
                        session = Some((path.clone(), end));
                        let sources = SessionSources::default();
                        Ok(SessionStarted { id: "17".into(), path, sources, progress: Arc::default() })
                    }
                });
            }
            Command::StopProfile { id, reply } => {
                let is_other = id.is_some_and(|id| id != "17");
                let Some((path, end)) = session.take_if(|_| !is_other) else {
                    let _ = reply.send(Err(ProfileError::NotRunning));
                    continue;
                };
                let _ = reply.send(Ok("17".into()));
                let received = if script.profile == ProfileScript::LosesRecords { 9 } else { 10 };
                let _ = end.send(Ok(SpoolSummary {
                    id: "17".into(),
                    path,
                    steps: 2,
                    expected: 10,
                    received,
                    dropped: 10 - received,
                    invalid: 0,
                    sources: SessionSources::default(),
                    activity_expected: 0,
                    activity: None,
                    bytes: 4096,
                    replays: 4,
                    dropped_records: Counts { nodes: 10 - received, ..Counts::default() },
                    keep: Keep::First,
                    overwritten: None,
                    limit_reached: false,
                    write_error: None,
                }));
            }
            // The server watches no steps and measures no device.
            Command::WatchSteps { .. } | Command::MeasurePeaks { .. } => {}
            Command::Shutdown { .. } => return,
        }
    }
}

fn count(submission: Submission, script: &Script) -> Ended {
    let Submission { prompt, sampling, events, slot, .. } = submission;
    drop(slot);
    let mut last = prompt[prompt.len() - 1].0;
    let mut tokens = 0;
    let aborted = loop {
        if let Some(gate) = &script.gate {
            // A client may leave while nothing is let through.
            let gate = gate.lock().unwrap();
            loop {
                match gate.recv_timeout(Duration::from_millis(1)) {
                    Ok(()) => break,
                    Err(_) if events.is_closed() => break,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => panic!("nobody opens the gate any more"),
                }
            }
        }
        if events.is_closed() {
            break true;
        }
        if script.fail_after == Some(tokens) {
            let error = RequestError::EngineStopped { reason: "the device caught fire".into() };
            events.send(TokenEvent::Failed(error));
            break false;
        }
        last += 1;
        tokens += 1;
        let logprobs = sampling.logprobs.map(|count| Box::new(logprobs(last, count)));
        let end = match TokenId(last) {
            TokenId(EOS) if !sampling.ignore_eos => Some(LastToken::EndOfSequence),
            token if sampling.stop_token_ids.contains(&token) => Some(LastToken::StopToken),
            _ => (tokens == sampling.max_tokens).then_some(LastToken::Length),
        };
        // Never full: a reader that stops reading does not stop the engine.
        let sent = events.send(TokenEvent::Token { token: TokenId(last), logprobs, last: end });
        assert!(sent || events.is_closed(), "a full stream");
        if end.is_some() {
            break false;
        }
    };
    Ended { prompt: prompt.iter().map(|token| token.0).collect(), sampling, tokens, aborted }
}

/// The token has −0.5; the alternatives are the tokens from it on, with −0.5, −1.5, …
fn logprobs(token: u32, count: u32) -> TokenLogprobs {
    let top = (0..count).map(|index| (TokenId(token + index), -0.5 - index as f32)).collect();
    TokenLogprobs { chosen: -0.5, rank: 1, top }
}
