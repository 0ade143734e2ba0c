//! Which steps a recording has: from when, how many, of which kind. Pure data and its rules, always compiled.
//!
//! The words are those of others where they have them: iterations to skip, to warm up and to record as in PyTorch's
//! schedule and vLLM's `ProfilerConfig`, a first step and stages as in SGLang's, seconds as `nsys profile` has them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::schema::{GraphKey, StepSizes};

/// Which steps a recording has. The default: all, until it is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Steps that begin earlier than this after the start are left out.
    pub delay_ns: u64,
    /// Steps left out after that.
    pub skip_steps: u64,
    /// Steps after those: their nodes are timed, and they are left out, too.
    pub warmup_steps: u64,
    /// Steps with lower numbers are left out. The process's first step is 0.
    pub first_step: Option<u64>,
    /// The recording ends this long after it has let the first step in, or after the delay if it waits for no step.
    pub duration_ns: Option<u64>,
    /// The recording ends with so many steps; if there are stages, with so many of each.
    pub steps_max: Option<u64>,
    /// Only steps of these stages; of all if there is none.
    pub stages: Vec<Stage>,
    /// Only steps that replay one of these graphs; of all if there is none.
    pub graphs: Vec<GraphKey>,
    /// Only steps with rows of the requests that their clients named so. The recording ends when those have ended.
    pub request: Option<String>,
}

impl Window {
    /// Every step from the start on is in it, until it ends.
    pub fn is_unbroken(&self) -> bool {
        let Window { delay_ns, skip_steps, warmup_steps, first_step, stages, graphs, request, .. } = self;
        [*delay_ns, *skip_steps, *warmup_steps] == [0; 3]
            && first_step.is_none()
            && stages.is_empty()
            && graphs.is_empty()
            && request.is_none()
    }

    /// It waits for steps before it lets the first one in.
    fn waits_for_steps(&self) -> bool {
        [self.skip_steps, self.warmup_steps] != [0; 2] || self.first_step.is_some() || self.request.is_some()
    }

    /// Whether a step is of those that it is about.
    fn wants(&self, step: &StepFacts) -> bool {
        (self.stages.is_empty() || self.stages.contains(&step.stage))
            && (self.graphs.is_empty() || step.graphs.iter().flatten().any(|key| self.graphs.contains(key)))
            && (self.request.is_none() || step.has_request)
    }
}

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Rows of prompts alone.
    Prefill,
    /// No row of a prompt.
    Decode,
    /// Both.
    Mixed,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 3] = [Stage::Prefill, Stage::Decode, Stage::Mixed];

    /// Of a step of these sizes, of whose rows so many are of prompts.
    pub fn of(sizes: &StepSizes, prefill_tokens: u64) -> Stage {
        match prefill_tokens {
            0 => Stage::Decode,
            rows if rows >= sizes.tokens => Stage::Prefill,
            _ => Stage::Mixed,
        }
    }
}

/// What of a step decides whether it is recorded.
#[derive(Clone, Copy, Debug)]
pub struct StepFacts {
    /// Its number.
    pub step: u64,
    /// What it computes.
    pub stage: Stage,
    /// The graphs that it replays.
    pub graphs: [Option<GraphKey>; 2],
    /// It has rows of a request that the window is about.
    pub has_request: bool,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is left out.
    LeftOut,
    /// Its nodes are timed, and it is left out.
    Warmup,
    /// It is recorded.
    Recorded,
}

/// A window and how far it has come. Times are nanoseconds of the monotonic clock.
#[derive(Debug)]
pub struct WindowState {
    window: Window,
    start_ns: u64,
    /// When the first step was let in, or would have been.
    opened_ns: Option<u64>,
    /// Steps that were not left out because of the time or their number: the skipped, the warm and the others.
    steps_seen: u64,
    /// Recorded, by stage.
    recorded: [u64; Stage::ALL.len()],
    /// The requests that it is about have ended.
    request_ended: bool,
}

impl WindowState {
    /// A recording starts.
    pub fn new(window: Window, now_ns: u64) -> WindowState {
        let recorded = [0; Stage::ALL.len()];
        WindowState { window, start_ns: now_ns, opened_ns: None, steps_seen: 0, recorded, request_ended: false }
    }

    /// What becomes of the next step. It is asked for every step once, in order.
    pub fn step(&mut self, step: &StepFacts, now_ns: u64) -> Verdict {
        self.open_by_time(now_ns);
        let window = &self.window;
        let is_early = now_ns < self.delay_end_ns() || window.first_step.is_some_and(|first| step.step < first);
        if is_early || self.is_over(now_ns) || (window.request.is_some() && !step.has_request) {
            return Verdict::LeftOut;
        }
        self.steps_seen += 1;
        if self.steps_seen <= window.skip_steps {
            return Verdict::LeftOut;
        }
        if self.steps_seen - window.skip_steps <= window.warmup_steps {
            return Verdict::Warmup;
        }
        self.opened_ns.get_or_insert(now_ns);
        let recorded = &mut self.recorded[step.stage as usize];
        let is_enough = !window.stages.is_empty() && window.steps_max.is_some_and(|max| *recorded >= max);
        if is_enough || !window.wants(step) {
            return Verdict::LeftOut;
        }
        *recorded += 1;
        Verdict::Recorded
    }

    /// The last request that it is about has ended.
    pub fn request_ended(&mut self) {
        self.request_ended = true;
    }

    /// Nothing will be recorded any more.
    pub fn is_over(&self, now_ns: u64) -> bool {
        let has_all_steps = self.window.steps_max.is_some_and(|max| match self.window.stages.as_slice() {
            [] => self.recorded.iter().sum::<u64>() >= max,
            stages => stages.iter().all(|stage| self.recorded[*stage as usize] >= max),
        });
        has_all_steps || self.request_ended || self.end_ns().is_some_and(|end_ns| now_ns >= end_ns)
    }

    /// Lets steps in, if there is nothing to wait for but time.
    pub fn open_by_time(&mut self, now_ns: u64) {
        let delay_end_ns = self.delay_end_ns();
        if !self.window.waits_for_steps() && now_ns >= delay_end_ns {
            self.opened_ns.get_or_insert(delay_end_ns);
        }
    }

    /// When the first step was let in, or would have been.
    pub fn opened_ns(&self) -> Option<u64> {
        self.opened_ns
    }

    /// When it ends, if that is known.
    pub fn end_ns(&self) -> Option<u64> {
        Some(self.opened_ns?.saturating_add(self.window.duration_ns?))
    }

    /// The next moment at which something changes though no step is run.
    pub fn next_change_ns(&self) -> Option<u64> {
        match self.opened_ns {
            Some(_) => self.end_ns(),
            None => (!self.window.waits_for_steps()).then(|| self.delay_end_ns()),
        }
    }

    fn delay_end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.window.delay_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::schema::GraphKind;

    fn key(bucket: u32) -> GraphKey {
        GraphKey { kind: GraphKind::ForwardDecode, bucket }
    }

    fn facts(step: u64, stage: Stage) -> StepFacts {
        StepFacts { step, stage, graphs: [Some(key(8)), None], has_request: step.is_multiple_of(2) }
    }

    /// The steps of 0..20 that are recorded, one each 10 ns from 0 on; prefill, mixed and decode in turn.
    fn recorded(window: Window) -> Vec<u64> {
        let mut state = WindowState::new(window, 0);
        let stages = [Stage::Prefill, Stage::Mixed, Stage::Decode];
        let taken = |step: &u64| {
            let verdict = state.step(&facts(*step, stages[(*step % 3) as usize]), step * 10);
            verdict == Verdict::Recorded
        };
        (0..20).filter(taken).collect()
    }

    #[test]
    fn without_words_every_step_is_recorded() {
        let window = Window::default();
        assert!(window.is_unbroken());
        assert_eq!(recorded(window), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn steps_are_skipped_warmed_up_and_counted() {
        let window = Window { skip_steps: 2, warmup_steps: 3, steps_max: Some(4), ..Window::default() };
        assert!(!window.is_unbroken());
        assert_eq!(recorded(window.clone()), [5, 6, 7, 8]);
        let mut state = WindowState::new(window, 0);
        let verdicts: Vec<Verdict> = (0..10).map(|step| state.step(&facts(step, Stage::Decode), 1)).collect();
        use Verdict::*;
        assert_eq!(verdicts, [[LeftOut; 2].as_slice(), &[Warmup; 3], &[Recorded; 4], &[LeftOut]].concat());
        assert!(state.is_over(1));
    }

    #[test]
    fn a_first_step_is_a_number_of_the_process() {
        let window = Window { first_step: Some(7), steps_max: Some(2), ..Window::default() };
        assert_eq!(recorded(window), [7, 8]);
        let window = Window { first_step: Some(7), skip_steps: 2, ..Window::default() };
        assert_eq!(recorded(window), (9..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_delay_and_a_duration_are_times() {
        let window = Window { delay_ns: 45, duration_ns: Some(30), ..Window::default() };
        assert_eq!(recorded(window.clone()), [5, 6, 7]); // from 45 to 75
        let mut state = WindowState::new(window, 1000);
        assert_eq!((state.next_change_ns(), state.end_ns()), (Some(1045), None));
        state.open_by_time(1044);
        assert_eq!(state.opened_ns(), None);
        // Nobody looked at 1045, and still it began then.
        state.open_by_time(1060);
        assert_eq!((state.opened_ns(), state.next_change_ns()), (Some(1045), Some(1075)));
        assert!(!state.is_over(1074) && state.is_over(1075));
    }

    #[test]
    fn a_duration_begins_with_the_first_step_where_steps_are_waited_for() {
        let window = Window { skip_steps: 3, duration_ns: Some(25), ..Window::default() };
        assert_eq!(recorded(window), [3, 4, 5]); // from 30 to 55
    }

    #[test]
    fn stages_have_their_steps_each() {
        let window = Window { stages: vec![Stage::Prefill, Stage::Decode], steps_max: Some(2), ..Window::default() };
        assert_eq!(recorded(window.clone()), [0, 2, 3, 5]);
        let mut state = WindowState::new(window, 0);
        (0..5).for_each(|step| _ = state.step(&facts(step, Stage::Decode), 0));
        assert!(!state.is_over(0), "no prompt came");
        let window = Window { stages: vec![Stage::Mixed], ..Window::default() };
        assert_eq!(recorded(window), [1, 4, 7, 10, 13, 16, 19]);
    }

    #[test]
    fn graphs_and_requests_are_looked_at() {
        assert_eq!(recorded(Window { graphs: vec![key(16)], ..Window::default() }), [0; 0]);
        assert_eq!(recorded(Window { graphs: vec![key(16), key(8)], steps_max: Some(1), ..Window::default() }), [0]);
        let window = Window { request: Some("a".into()), skip_steps: 1, ..Window::default() };
        assert_eq!(recorded(window.clone()), (2..20).step_by(2).collect::<Vec<_>>());
        let mut state = WindowState::new(window, 0);
        assert!(!state.is_over(0));
        state.request_ended();
        assert!(state.is_over(0));
    }

    #[test]
    fn numbers_from_anywhere_do_not_overflow() {
        let window = Window { delay_ns: u64::MAX, duration_ns: Some(u64::MAX), ..Window::default() };
        let mut state = WindowState::new(window, 5);
        assert_eq!(state.step(&facts(0, Stage::Decode), 10), Verdict::LeftOut);
        state.open_by_time(u64::MAX);
        assert_eq!(state.end_ns(), Some(u64::MAX));
    }

    #[test]
    fn a_stage_is_told_by_rows() {
        let sizes = StepSizes { tokens: 8, ..StepSizes::default() };
        assert_eq!([0, 1, 8].map(|rows| Stage::of(&sizes, rows)), [Stage::Decode, Stage::Mixed, Stage::Prefill]);
    }
}
