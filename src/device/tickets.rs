//! The rules of submitting and waiting, the same on every device: bounds of a step, tickets in order.

use super::buffers::Buffers;
use super::*;

/// Counts the steps under way.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    submitted: u64,
    waited: u64,
}

impl Tickets {
    /// The ticket of the next step. Panics if too many are under way: the caller lost count.
    pub(super) fn take(&mut self) -> Ticket {
        assert!(
            self.under_way() < STEPS_IN_FLIGHT,
            "step {} submitted while {STEPS_IN_FLIGHT} are under way: wait for step {} first",
            self.submitted + 1,
            self.waited + 1
        );
        self.submitted += 1;
        Ticket(self.submitted)
    }

    /// Takes a ticket back. Panics unless it is the oldest one.
    pub(super) fn give_back(&mut self, ticket: &Ticket) {
        assert!(self.under_way() > 0, "ticket {}: no step is under way", ticket.0);
        let oldest = self.waited + 1;
        assert!(ticket.0 == oldest, "ticket {}: steps are waited for in order, and {oldest} is the oldest", ticket.0);
        self.waited += 1;
    }

    /// Steps submitted and not waited for.
    pub(super) fn under_way(&self) -> usize {
        (self.submitted - self.waited) as usize
    }

    /// Panics if a step is under way, which would read or write what is about to be touched.
    pub(super) fn assert_idle(&self, what: &str) {
        assert!(self.under_way() == 0, "{what} while {} steps are under way", self.under_way());
    }
}

/// Panics unless a submission is within the limits of a step and names only this device's memory.
pub(super) fn assert_within_limits(submission: &Submission<'_>, nodes: usize, buffers: &Buffers) {
    let Submission { uploads, graphs, downloads, .. } = submission;
    let parts = uploads.len().max(graphs.len()).max(downloads.len());
    assert!(parts <= STEP_PARTS_MAX, "a step of {parts} parts: at most {STEP_PARTS_MAX}");
    assert!(nodes <= STEP_NODES_MAX, "a step of {nodes} nodes: at most {STEP_NODES_MAX}");
    let up: usize = uploads.iter().map(|upload| upload.data.len()).sum();
    let down: usize = downloads.iter().map(|download| download.bytes).sum();
    assert!(up <= STAGING_BYTES, "a step uploads {up} bytes: at most {STAGING_BYTES}");
    assert!(down <= STAGING_BYTES, "a step downloads {down} bytes: at most {STAGING_BYTES}");
    uploads.iter().for_each(|upload| buffers.assert_holds(upload.addr, upload.data.len(), "upload"));
    downloads.iter().for_each(|download| buffers.assert_holds(download.addr, download.bytes, "download"));
}
