//! Standard output, standard error and the log. What cannot be written there ends nothing.
//!
//! A reader of standard output that has seen enough (`| head`) is no error. Anything else that goes wrong there, such
//! as a full disk, is kept until the command has done its work: [`stdout_error`] has it for the exit code.
//!
//! Standard error is written by a thread of its own, from a bounded queue: a pipe that nobody reads, or a terminal that
//! is held, must not stop the threads that serve. Lines that find no room, or that cannot be written, are counted, and
//! the next one that can be is preceded by their number.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const QUEUED_LINES_MAX: usize = 1024;
/// How long the end of a process waits for a standard error that takes no more.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks whether a full queue has room for the wish to be flushed.
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// Nobody reads standard output any more.
static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);
/// The first error of standard output that is none of its reader's.
static STDOUT_ERROR: Mutex<Option<io::Error>> = Mutex::new(None);
static STDERR: OnceLock<SyncSender<Message>> = OnceLock::new();
/// Lines that were not written.
static LOST_LINES: AtomicU64 = AtomicU64::new(0);

/// Standard output, as a writer that takes everything.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        keep_error(io::stdout().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        keep_error(io::stdout().lock().flush());
        Ok(())
    }
}

/// Prints to standard output, at once.
pub fn print(text: &str) {
    keep_error(io::stdout().lock().write_all(text.as_bytes()));
    keep_error(io::stdout().lock().flush());
}

/// Whether nobody reads standard output any more, so that a command that only prints can end.
pub fn stdout_is_closed() -> bool {
    STDOUT_IS_CLOSED.load(Ordering::Relaxed)
}

/// What went wrong on standard output since the last call.
pub fn stdout_error() -> Option<io::Error> {
    STDOUT_ERROR.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn keep_error(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => STDOUT_IS_CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            STDOUT_ERROR.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// Prints a line to standard error.
pub fn note(line: &str) {
    send(format!("{line}\n").into_bytes());
}

/// Has panics said in the same way: the usual one writes to standard error itself, and waits where nobody reads it.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let mut line = format!("thread '{}' {panic}", thread.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture(); // if RUST_BACKTRACE asks for it
        if backtrace.status() == BacktraceStatus::Captured {
            line += &format!("\n{backtrace}");
        }
        note(&line);
        flush_stderr(); // it may be the process's last word
    }));
}

/// Waits until what was said on standard error is written, or until it takes no more.
pub fn flush_stderr() {
    let Some(stderr) = STDERR.get() else { return };
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    let (done, is_done) = sync_channel(1);
    let mut wish = Message::Flush(done);
    while let Err(TrySendError::Full(message)) = stderr.try_send(wish) {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(FLUSH_POLL);
        wish = message;
    }
    let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now())); // too late is too late
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

fn send(mut line: Vec<u8>) {
    make_printable(&mut line);
    let stderr = STDERR.get_or_init(|| {
        let (sender, lines) = sync_channel(QUEUED_LINES_MAX);
        // Without the thread nothing is said: the queue's other end is gone.
        let _ = std::thread::Builder::new().name("vitrum-log".into()).spawn(move || write_lines(&lines));
        sender
    });
    if stderr.try_send(Message::Line(line)).is_err() {
        LOST_LINES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Control characters in names that others chose do not reach a terminal or a log's reader. (The log's own colours
/// begin with an escape; those in what it prints have been taken care of by whoever writes its lines.)
fn make_printable(line: &mut [u8]) {
    let is_harmless = |byte: u8| byte >= b' ' && byte != 0x7F || matches!(byte, b'\n' | b'\t' | 0x1B);
    line.iter_mut().filter(|byte| !is_harmless(**byte)).for_each(|byte| *byte = b'?');
}

fn write_lines(lines: &Receiver<Message>) {
    for message in lines {
        match message {
            Message::Line(line) => {
                let lost = LOST_LINES.swap(0, Ordering::Relaxed);
                let gap = if lost > 0 { format!("({lost} lines of the log were lost here)\n") } else { String::new() };
                if io::stderr().lock().write_all(&[gap.as_bytes(), &line].concat()).is_err() {
                    LOST_LINES.fetch_add(lost + 1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => drop(done.send(())), // nobody waits any more
        }
    }
}

/// Where log lines go: [`tracing_subscriber`] writes each with one call.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        Log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        let mut line = "a\0b\x07c\x7f\r é\n".as_bytes().to_vec();
        make_printable(&mut line);
        assert_eq!(line, "a?b?c?? é\n".as_bytes());
    }
}
