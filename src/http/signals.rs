//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once. And the engine's own end. SIGXFSZ is
//! none: a file that may not grow any more is a write that fails.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit code after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// Takes over the two signals. The future is done at the first of them; at the next the process exits.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::info!("{name}: finishing what runs; once more to exit at once");
        tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::warn!("{name} again: exiting");
            std::process::exit(EXIT_AT_ONCE);
        });
    })
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

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
