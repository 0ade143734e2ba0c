//! Records in memory, outside of a recording: for whoever examines CUPTI itself, for a moment.

use super::ActivityLibrary;
use super::buffers::{self, FullBuffer};
use super::library::Cupti;
use super::records::Records;
use super::session::Session;
use crate::trace::activity::Watched;

/// CUPTI at work as in a recording, but that nothing is decoded before the end. Dropping it switches CUPTI off.
#[derive(Debug)]
pub struct Watch {
    session: Session,
}

impl ActivityLibrary {
    /// Begins to keep records in memory, with nothing under way. The error is a sentence, and nothing is kept then.
    pub fn watch(&self) -> Result<Watch, String> {
        Ok(Watch { session: Session::begin()? })
    }
}

impl Watch {
    /// Ends it, with nothing under way.
    pub fn stop(self) -> Watched {
        let (buffers, cupti, dropped, errors) = self.session.stop_undecoded();
        let mut watched = Watched { dropped, errors, ..Watched::default() };
        for mut full in buffers {
            let decoded = decode(&cupti, &mut full, &mut watched);
            watched.errors.extend(decoded.err());
            buffers::give_back(full);
        }
        watched
    }
}

fn decode(cupti: &Cupti, full: &mut FullBuffer, to: &mut Watched) -> Result<(), String> {
    let (next, has_source_nodes) = (cupti.next_record(), cupti.has_source_nodes());
    // SAFETY: CUPTI handed the buffer over with so many bytes, and it is this function's now.
    let mut records = unsafe { Records::new(next, full.buffer.as_mut_ptr(), full.bytes) };
    let walked = loop {
        match records.add_next(to, has_source_nodes) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(status) => break cupti.next_record_error(status),
        }
    };
    Err(walked.map_or_else(String::new, |error| error.to_string()))
}
