//! The lives of requests, one window of a recording after the other: those that run are kept, and each that ends is
//! given, with its lane. No two lives of one lane overlap.

use std::collections::BTreeMap;

use super::model::{Survey, Window};
use super::requests::Life;
use crate::trace::schema::{RequestMoment, RequestRecord};

/// Requests that run, and lanes.
#[derive(Debug)]
pub(super) struct Lives {
    /// First and last moment of the recording.
    start_ns: u64,
    end_ns: u64,
    /// Those that were there before it, until the first window comes.
    elders: Vec<u64>,
    running: BTreeMap<u64, (Life, usize)>,
    /// Of each lane, whether a life in it goes on.
    lanes: Vec<bool>,
    /// Lives that nothing announced: their first moment came behind their end, or not in the order of time.
    late: u64,
}

impl Lives {
    pub(super) fn new(survey: &Survey, (start_ns, end_ns): (u64, u64)) -> Lives {
        let elders = survey.elders.iter().copied().collect();
        Lives { start_ns, end_ns, elders, running: BTreeMap::new(), lanes: Vec::new(), late: 0 }
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// How many began in a way that they cannot.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Goes through a window, and gives each life that ends in it.
    pub(super) fn window<E>(
        &mut self,
        window: &Window<'_>,
        mut ended: impl FnMut(&Life, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let requests = &window.recording.requests;
        if !self.elders.is_empty() && requests.first().is_none_or(|first| first.at_ns > self.start_ns) {
            self.moments(window, &[], self.start_ns, &mut ended)?;
        }
        let mut steps = self.steps(window).into_iter().peekable();
        for moments in requests.chunk_by(|a, b| a.at_ns == b.at_ns) {
            let at_ns = moments[0].at_ns;
            while let Some((start_ns, request)) = steps.next_if(|(start_ns, _)| *start_ns < at_ns) {
                self.resume(request, start_ns);
            }
            self.moments(window, moments, at_ns, &mut ended)?;
        }
        steps.for_each(|(start_ns, request)| self.resume(request, start_ns));
        Ok(())
    }

    /// Gives those that are left when the recording ends.
    pub(super) fn end<E>(&mut self, mut ended: impl FnMut(&Life, usize) -> Result<(), E>) -> Result<(), E> {
        for (_, (mut life, lane)) in std::mem::take(&mut self.running) {
            life.end(self.end_ns);
            ended(&life, lane)?;
        }
        Ok(())
    }

    /// When steps with requests began, if some request may be waiting for that.
    fn steps(&self, window: &Window<'_>) -> Vec<(u64, u64)> {
        let recording = window.recording;
        let is_preempted = recording.requests.iter().any(|record| record.moment == RequestMoment::Preempted)
            || self.running.values().any(|(life, _)| life.is_preempted());
        let members = recording.members.iter().filter(|_| is_preempted);
        let steps = members.filter_map(|member| Some((recording.step(member.step)?.start_ns, member.request)));
        let mut steps: Vec<(u64, u64)> = steps.collect();
        steps.sort_unstable();
        steps
    }

    fn resume(&mut self, request: u64, start_ns: u64) {
        if let Some((life, _)) = self.running.get_mut(&request) {
            life.step(start_ns);
        }
    }

    /// All moments of one time. What ends then makes room for what begins then.
    fn moments<E>(
        &mut self,
        window: &Window<'_>,
        moments: &[RequestRecord],
        at_ns: u64,
        ended: &mut impl FnMut(&Life, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let name = |request: u64| window.recording.names.get(&request).cloned();
        let mut begun: BTreeMap<u64, Life> = BTreeMap::new();
        if at_ns == self.start_ns {
            let elders = std::mem::take(&mut self.elders).into_iter();
            begun.extend(elders.map(|request| (request, Life::begin(request, name(request), None, at_ns))));
        }
        for record in moments {
            let request = record.request;
            let life = match self.running.get_mut(&request) {
                Some((life, _)) => life,
                None => begun.entry(request).or_insert_with(|| {
                    let arrival = Some(record).filter(|record| record.moment == RequestMoment::Queued);
                    self.late += u64::from(arrival.is_none());
                    Life::begin(request, name(request), arrival, at_ns)
                }),
            };
            life.moment(record);
        }
        for record in moments {
            if self.running.get(&record.request).is_some_and(|(life, _)| !life.is_running())
                && let Some((mut life, lane)) = self.running.remove(&record.request)
            {
                life.end(self.end_ns);
                self.lanes[lane] = false;
                ended(&life, lane)?;
            }
        }
        for (request, mut life) in begun {
            // At the recording's last moment all lives end.
            let free = self.lanes.iter().position(|is_taken| !is_taken || at_ns >= self.end_ns);
            let lane = free.unwrap_or_else(|| {
                self.lanes.push(false);
                self.lanes.len() - 1
            });
            if life.is_running() {
                self.lanes[lane] = true;
                self.running.insert(request, (life, lane));
            } else {
                life.end(self.end_ns);
                ended(&life, lane)?;
            }
        }
        Ok(())
    }
}
