//! The process that renders, from the inside: it takes a template and then conversations from standard input, and
//! answers on standard output. Whatever a template does, this process ends of it, soon, and nothing else does.

use std::any::Any;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::frame::{self, Kind};
use super::{ChatMessage, ChatTemplate, TemplateSource};
use crate::text::TemplateError;

/// The command of this program that is such a process.
pub const WORKER_COMMAND: &str = "template-worker";

/// Twice what the main thread of a process usually has: what is nested less deeply than this has always rendered.
const STACK_BYTES: usize = 16 << 20;
/// Of an error's words: a template may write them.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// What a template may hold is the memory's limit; this is only the most that a frame can say.
const REQUEST_BYTES_MAX: usize = u32::MAX as usize;

/// What such a process may take.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// Memory that it may write to.
    pub memory_bytes: u64,
    /// Time on a processor for one request.
    pub cpu_seconds: u64,
}

/// A conversation to render.
#[derive(Debug, Serialize)]
pub(super) struct Rendering<'a> {
    pub(super) messages: &'a [ChatMessage],
    pub(super) add_generation_prompt: bool,
    pub(super) bytes_max: usize,
}

/// The same, as it is read.
#[derive(Debug, Deserialize)]
struct OwnedRendering {
    messages: Vec<ChatMessage>,
    add_generation_prompt: bool,
    bytes_max: usize,
}

/// Answers what comes from standard input until it ends.
pub fn run_worker(limits: WorkerLimits) -> io::Result<()> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    confine(limits)?;
    let work = move || serve(&mut BufReader::new(input), &mut &output, || allow_cpu(limits.cpu_seconds));
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    thread.join().unwrap_or_else(|panic| Err(io::Error::other(words(&*panic))))
}

/// From here on this process can neither grow, nor open anything, nor leave a core file behind.
fn confine(limits: WorkerLimits) -> io::Result<()> {
    // Where memory is short for all, this process is what the kernel is to end. It may be forbidden to say so.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, limit) in [(Resource::Data, limits.memory_bytes), (Resource::Core, 0), (Resource::Nofile, 0)] {
        // Whoever started the server may have set a lower one, which nobody may raise.
        let limit = Some(getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Gives this process so many more seconds on a processor, after which the kernel ends it. The other side has a clock
/// too; this is for the case that it has died, and nobody waits any more.
fn allow_cpu(seconds: u64) -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let limit = u64::try_from(used.tv_sec).unwrap_or(0) + 1 + seconds; // limits are whole seconds
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = Some(maximum.map_or(limit, |maximum| maximum.min(limit)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum })?)
}

/// Answers requests until they end, or until one has made the template engine panic.
fn serve(
    input: &mut impl Read,
    output: &mut impl Write,
    mut before_each: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let mut template = None;
    while let Some((kind, request)) = frame::read(input, REQUEST_BYTES_MAX)? {
        before_each()?;
        // Nothing is used any more after a panic, but its words.
        match catch_unwind(AssertUnwindSafe(|| answer(&mut template, kind, request))) {
            Ok(answer) => {
                let (kind, text) = answer?;
                frame::write_text(output, kind, &text)?;
            }
            Err(panic) => return frame::write_text(output, Kind::Panicked, &shortened(words(&*panic))),
        }
    }
    Ok(())
}

fn answer(template: &mut Option<ChatTemplate>, kind: Kind, request: Vec<u8>) -> io::Result<(Kind, String)> {
    let answer = match (kind, template) {
        (Kind::Compile, template) => {
            let source: TemplateSource = serde_json::from_slice(&request)?;
            ChatTemplate::compile(&source).map(|compiled| {
                *template = Some(compiled);
                (Kind::Ready, String::new())
            })
        }
        (Kind::Render, Some(template)) => {
            let asked: OwnedRendering = serde_json::from_slice(&request)?;
            drop(request); // a long conversation is held once
            let text = template.render(&asked.messages, asked.add_generation_prompt, asked.bytes_max);
            text.map(|text| (Kind::Text, text))
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no request: {kind:?}"))),
    };
    Ok(answer.unwrap_or_else(|error| match error {
        TemplateError::Compile { message } => (Kind::Invalid, shortened(message)),
        TemplateError::Output { .. } => (Kind::TooLong, String::new()),
        TemplateError::Refused { message } => (Kind::Refused, shortened(message)),
        other => (Kind::Refused, shortened(other.to_string())),
    }))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

fn shortened(mut message: String) -> String {
    const MARK: &str = "…";
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - MARK.len()).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        message.push_str(MARK);
    }
    message
}
