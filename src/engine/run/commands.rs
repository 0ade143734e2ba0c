//! The loop's first phase: commands are taken in, recordings begin and end, and requests end whose clients have left.

use std::sync::mpsc::RecvTimeoutError;

use super::EngineLoop;
use crate::device::monotonic_ns;
use crate::engine::sequence::Sequence;
use crate::engine::{Command, Submission};
use crate::request::{RequestError, TokenEvent};
use crate::step::StepError;

impl EngineLoop {
    /// Takes in what came; blocks when there is nothing else to do. False: the end.
    pub(super) fn receive(&mut self) -> Result<bool, StepError> {
        self.begin_recording()?;
        self.close_recording()?; // the last step may have ended it, and nothing more may come
        self.observers.turn_begins(self.next_step);
        let idle = self.under_way.is_empty() && self.scheduler.running.is_empty() && self.scheduler.waiting.is_empty();
        if idle {
            if !self.shutdowns.is_empty() {
                return Ok(false);
            }
            self.observers.idle();
            match self.wait() {
                Ok(command) => self.take(command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false), // every handle is gone
            }
            self.observers.turn_begins(self.next_step);
        }
        while let Ok(command) = self.inbox.commands.try_recv() {
            self.take(command)?;
        }
        self.drop_abandoned();
        self.close_recording()?;
        Ok(true)
    }

    /// Begins the recording that somebody asked for, when its recorder has been made.
    fn begin_recording(&mut self) -> Result<(), StepError> {
        let Some(recorder) = self.observers.recording.take_recorder() else { return Ok(()) };
        self.finish_steps()?; // the device does nothing that is not in the recording
        if self.observers.recording.begin(recorder, &self.runner) {
            let there = self.scheduler.running.iter().chain(&self.scheduler.waiting);
            there.for_each(|sequence| self.observers.recording.request_named(sequence.id, &sequence.name));
        }
        Ok(())
    }

    /// Ends the recording if it is over.
    fn close_recording(&mut self) -> Result<(), StepError> {
        if self.observers.recording.is_over() {
            self.finish_steps()?; // every step that was counted is in the recording
            self.observers.recording.close();
        }
        Ok(())
    }

    /// Blocks for the next command, or until a recording has to be looked after.
    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        match self.observers.recording.wait_max() {
            Some(limit) => self.inbox.commands.recv_timeout(limit),
            None => self.inbox.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// An error is the device's: the command's answer is then that the engine has stopped.
    fn take(&mut self, command: Command) -> Result<(), StepError> {
        let recording = &mut self.observers.recording;
        match command {
            Command::Submit(submissions) => submissions.into_iter().for_each(|submission| self.enqueue(submission)),
            Command::StartProfile(request) => {
                if !recording.has_peaks() {
                    self.finish_steps()?; // the device is measured with nothing under way
                }
                self.observers.recording.start(request, &mut self.runner);
            }
            Command::StopProfile { id, reply } => drop(reply.send(recording.stop(id.as_deref()))),
            Command::WatchSteps { to } => self.observers.watch.tell(to),
            Command::MeasurePeaks { reply } => {
                self.finish_steps()?;
                let _ = reply.send(self.observers.recording.peaks(&mut self.runner));
            }
            Command::Shutdown { done } => self.shutdowns.push(done),
        }
        Ok(())
    }

    fn enqueue(&mut self, submission: Submission) {
        let sequence = Sequence::new(submission);
        self.observers.queued(&sequence);
        self.scheduler.waiting.push_back(sequence);
    }

    /// Ends the requests whose clients have left.
    fn drop_abandoned(&mut self) {
        let mut index = 0;
        while index < self.scheduler.running.len() {
            let sequence = &self.scheduler.running[index];
            if sequence.is_abandoned() {
                let reason = sequence.leaving_reason();
                self.end(index, reason, monotonic_ns());
            } else {
                index += 1;
            }
        }
        while let Some(index) = self.scheduler.waiting.iter().position(Sequence::is_abandoned) {
            if let Some(sequence) = self.scheduler.waiting.remove(index) {
                self.observers.ended(&sequence, sequence.leaving_reason(), monotonic_ns());
            }
        }
    }

    /// The device failed: every request is told, and so is every one that still comes.
    pub(super) fn fail_all(&mut self, reason: &str) {
        let error = RequestError::EngineStopped { reason: reason.to_owned() };
        let sequences = self.scheduler.running.drain(..).chain(self.scheduler.waiting.drain(..));
        sequences.for_each(|sequence| {
            sequence.events.send(TokenEvent::Failed(error.clone()));
        });
        while let Ok(command) = self.inbox.commands.try_recv() {
            match command {
                Command::Submit(requests) => requests.iter().for_each(|request| {
                    request.events.send(TokenEvent::Failed(error.clone()));
                }),
                // It is told when the device is closed, as ever.
                Command::Shutdown { done } => self.shutdowns.push(done),
                // Who waits for an answer sees that nobody is left to give it.
                Command::StartProfile(_) | Command::StopProfile { .. } => {}
                Command::WatchSteps { .. } | Command::MeasurePeaks { .. } => {}
            }
        }
    }
}
