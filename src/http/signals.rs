//! SIGTERM, SIGINT, SIGHUP and SIGQUIT: the first asks for an orderly end, the second ends at once. And the engine's
//! own end. SIGXFSZ is none: a file that may not grow any more is a write that fails.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::console;

/// The exit code after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// Takes over the signals that ask for the end. The future is done at the first of them; at the next the process exits.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals = Ends::listen()?;
    Ok(async move {
        let name = signals.next().await;
        tracing::info!("{name}: finishing what runs; once more to exit at once");
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::warn!("{name} again: exiting");
            console::flush_stderr();
            std::process::exit(EXIT_AT_ONCE);
        });
    })
}

/// The signals that ask for the end.
struct Ends(Vec<(&'static str, Signal)>);

impl Ends {
    fn listen() -> io::Result<Ends> {
        let mut kinds = vec![
            ("SIGTERM", SignalKind::terminate()),
            ("SIGINT", SignalKind::interrupt()),
            ("SIGQUIT", SignalKind::quit()),
        ];
        // Under `nohup` the end of a terminal is none.
        if !is_ignored(libc::SIGHUP) {
            kinds.push(("SIGHUP", SignalKind::hangup()));
        }
        let listen = |(name, kind)| Ok((name, signal(kind)?));
        kinds.into_iter().map(listen).collect::<io::Result<_>>().map(Ends)
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        poll_fn(|cx| {
            let came = |(name, signal): &mut (&'static str, Signal)| signal.poll_recv(cx).is_ready().then_some(*name);
            self.0.iter_mut().find_map(came).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Whether this process was started with the signal ignored, where the operating system says so.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A file at its limit (`ulimit -f`) costs the recording that is written into it, and not the server.
pub(super) fn outlive_full_files() -> io::Result<()> {
    // The handler stays when nobody listens any more.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

/// Done when the end was asked for, or when the engine has ended: then nothing can be answered any more.
pub(super) async fn or_end(
    asked: impl Future<Output = ()> + Send + 'static,
    mut engine: watch::Receiver<Option<String>>,
) {
    let mut asked = Box::pin(asked);
    tokio::select! {
        () = &mut asked => {}
        () = async { while engine.changed().await.is_ok() {} } => {
            tracing::error!("the engine has ended, and so does the server");
            tokio::spawn(asked); // signals still count while connections end
        }
    }
}
