//! A session on its way: its recorder is made on a thread of its own, because a file system may take its time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, TryRecvError, channel};

use crate::engine::StartRequest;
use crate::trace::record::Recorder;
use crate::trace::schema::GraphTable;
use crate::trace::session::{RecordError, SessionHeader};

/// A recorder that is being made, and for whom.
#[derive(Debug)]
pub(super) struct StartingSession {
    pub(super) request: StartRequest,
    recorder: Receiver<Result<Recorder, RecordError>>,
}

impl StartingSession {
    /// Has a recorder made for a file that begins so.
    pub(super) fn new(request: StartRequest, header: SessionHeader, graphs: Vec<Arc<GraphTable>>) -> StartingSession {
        let (made, recorder) = channel();
        let not_made = made.clone();
        let options = request.options.clone();
        let make = move || {
            let graphs: Vec<&GraphTable> = graphs.iter().map(AsRef::as_ref).collect();
            if let Err(SendError(Ok(recorder))) = made.send(Recorder::start(&options, &header, &graphs)) {
                recorder.discard(); // the engine's thread has panicked
            }
        };
        if let Err(source) = std::thread::Builder::new().name("vitrum-starting".into()).spawn(make) {
            let _ = not_made.send(Err(RecordError::Thread { source })); // its receiver is below
        }
        StartingSession { request, recorder }
    }

    /// The recorder, if it has been made, or why there is none.
    pub(super) fn take(&self) -> Option<Result<Recorder, RecordError>> {
        match self.recorder.try_recv() {
            Ok(made) => Some(made),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(RecordError::WriterEnded)), // its thread panicked
        }
    }

    /// Waits for the recorder and ends it, without a file.
    pub(super) fn give_up(self) {
        if let Ok(Ok(recorder)) = self.recorder.recv() {
            recorder.discard();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::trace::session::SessionOptions;

    #[test]
    fn a_session_that_is_given_up_leaves_no_file() {
        let dir = std::env::temp_dir().join(format!("vitrum-starting-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a folder of our own");
        let ((end, _ended), (reply, answer)) = (channel(), channel());
        let request = StartRequest { options: Box::new(SessionOptions::new(&dir)), end, reply };
        StartingSession::new(request, SessionHeader::default(), Vec::new()).give_up();
        assert!(answer.recv().is_err(), "whoever asked sees that nobody is left to answer");
        std::fs::remove_dir(&dir).expect("it is empty");
    }
}
