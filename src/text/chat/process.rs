//! One process that renders, from the outside: it answers in time, or it is killed.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use super::frame::{self, Kind};
use super::renderer::ChatLimits;
use super::worker::{MESSAGE_BYTES_MAX, Rendering, WORKER_COMMAND};
use super::{ChatMessage, TemplateSource};
use crate::text::TemplateError;

/// A process that was asked or has answered more is not kept: most of the memory that it had would stay with it.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A process with a compiled template. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct TemplateProcess {
    child: Child,
    stream: UnixStream,
    limits: ChatLimits,
    /// It answered all that it was asked, and is not large.
    is_usable: bool,
}

impl TemplateProcess {
    /// Starts one of this program, and has it compile the template.
    pub(super) fn start(
        program: &Path,
        source: &TemplateSource,
        limits: ChatLimits,
        patience: Patience<'_>,
    ) -> Result<TemplateProcess, TemplateError> {
        let (child, stream) = spawn(program, limits).map_err(|error| TemplateError::Process {
            reason: format!("{} could not be run: {error}", program.display()),
        })?;
        let mut process = TemplateProcess { child, stream, limits, is_usable: true };
        match process.ask(Kind::Compile, source, patience)? {
            (Kind::Ready, _) => Ok(process),
            (kind, text) => Err(process.refusal(kind, text)),
        }
    }

    /// Has it render a conversation.
    pub(super) fn render(
        &mut self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        patience: Patience<'_>,
    ) -> Result<String, TemplateError> {
        let rendering = Rendering { messages, add_generation_prompt, bytes_max: self.limits.prompt_bytes };
        match self.ask(Kind::Render, &rendering, patience)? {
            (Kind::Text, text) => Ok(text),
            (kind, text) => Err(self.refusal(kind, text)),
        }
    }

    /// Whether it can be asked again.
    pub(super) fn is_usable(&mut self) -> bool {
        self.is_usable && matches!(self.child.try_wait(), Ok(None))
    }

    /// A request and its answer. Nothing is believed of an answer but its text, which has a bounded length.
    fn ask(
        &mut self,
        kind: Kind,
        request: &impl Serialize,
        patience: Patience<'_>,
    ) -> Result<(Kind, String), TemplateError> {
        self.is_usable = false;
        let bytes_max = self.limits.prompt_bytes.max(MESSAGE_BYTES_MAX);
        let mut stream = Timed { stream: &self.stream, patience };
        let answer = frame::write_json(&mut stream, kind, request)
            .and_then(|sent_bytes| Ok((sent_bytes, frame::read(&mut stream, bytes_max)?)));
        let (sent_bytes, (kind, text)) = match answer {
            Ok((sent_bytes, Some(answer))) => (sent_bytes, answer),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(self.late()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Err(TemplateError::Abandoned),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(nonsense(&error)),
            Ok((_, None)) | Err(_) => return Err(self.death()), // it has closed its end
        };
        let text = String::from_utf8(text).map_err(|error| nonsense(&error))?;
        self.is_usable = sent_bytes + text.len() <= KEPT_BYTES_MAX;
        Ok((kind, text))
    }

    /// What an answer means that is not what was asked for.
    fn refusal(&mut self, kind: Kind, message: String) -> TemplateError {
        match kind {
            Kind::Invalid => TemplateError::Compile { message },
            Kind::Refused => TemplateError::Refused { message },
            Kind::TooLong => TemplateError::Output { bytes: self.limits.prompt_bytes },
            Kind::Panicked => {
                self.is_usable = false;
                TemplateError::Engine { message }
            }
            Kind::Compile | Kind::Render | Kind::Ready | Kind::Text => {
                self.is_usable = false;
                nonsense(&format!("{kind:?} where it was not asked for"))
            }
        }
    }

    fn late(&self) -> TemplateError {
        TemplateError::Deadline { limit: self.limits.deadline }
    }

    /// What it died of. Rust aborts a process whose stack or memory is full, and says so on standard error alone.
    fn death(&mut self) -> TemplateError {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) if status.signal() == Some(Signal::XCPU.as_raw()) => self.late(),
            Ok(status) if status.signal() == Some(Signal::KILL.as_raw()) => {
                TemplateError::Process { reason: "somebody killed it, or the machine ran out of memory".to_owned() }
            }
            Ok(status) if status.signal().is_some_and(|signal| FULL.map(Signal::as_raw).contains(&signal)) => {
                TemplateError::Memory { bytes: self.limits.memory_bytes }
            }
            Ok(status) => TemplateError::Process { reason: format!("it has ended: {status}") },
            Err(error) => TemplateError::Process { reason: error.to_string() },
        }
    }
}

/// What ends a process whose memory or stack is full.
const FULL: [Signal; 3] = [Signal::ABORT, Signal::SEGV, Signal::BUS];

impl Drop for TemplateProcess {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, limits: ChatLimits) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command.arg0("vitrum").arg(WORKER_COMMAND);
    command.args([limits.memory_bytes, limits.cpu_seconds()].map(|limit| limit.to_string()));
    command.env("RUST_BACKTRACE", "0"); // a panic is an answer: there is no time, and no memory, for more
    command.process_group(0); // Ctrl-C is for the server, which drains
    command.stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
    let child = command.spawn()?;
    Ok((child, ours)) // the command's end is closed with it: only the process holds it, whose death is seen
}

fn nonsense(what: &impl ToString) -> TemplateError {
    TemplateError::Process { reason: format!("it does not speak as it should: {}", what.to_string()) }
}

/// How long somebody waits for a prompt.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) deadline: Instant,
    /// Somebody still does.
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

/// How long a wait may be that does not ask whether it is still wanted.
const UNASKED: Duration = Duration::from_millis(50);

impl Patience<'_> {
    /// How long to wait before this is to be asked again. Errors: `TimedOut`, and `ConnectionAborted` if nobody waits.
    pub(super) fn next_wait(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match () {
            () if left.is_zero() => Err(ErrorKind::TimedOut.into()),
            () if !(self.is_wanted)() => Err(ErrorKind::ConnectionAborted.into()),
            () => Ok(left.min(UNASKED)),
        }
    }
}

/// A stream whose reads and writes end when nobody waits for them any more.
struct Timed<'a> {
    stream: &'a UnixStream,
    patience: Patience<'a>,
}

impl Timed<'_> {
    /// Tries until something is read or written. The operating system says of a time-out that nothing was there.
    fn wait<T>(
        &mut self,
        set_timeout: impl Fn(&UnixStream, Option<Duration>) -> io::Result<()>,
        mut attempt: impl FnMut(&UnixStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            set_timeout(self.stream, Some(self.patience.next_wait()?))?;
            match attempt(self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(UnixStream::set_read_timeout, |mut stream| stream.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(UnixStream::set_write_timeout, |mut stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
