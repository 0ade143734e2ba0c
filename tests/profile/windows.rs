//! Which steps a recording has: by number, by time, by stage, by graph, by request. It ends by itself, holds those
//! steps and nothing else, and is complete.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use vitrum::device::monotonic_ns;
use vitrum::engine::{Engine, Profile, ProfileError, StepDone, TokenStream};
use vitrum::report::{Report, html};
use vitrum::trace::progress::State;
use vitrum::trace::schema::{GraphKey, GraphKind, Op, RequestMoment, RequestRecord};
use vitrum::trace::session::{Granularity, SessionOptions, SpoolSummary};
use vitrum::trace::window::{Stage, Window};

use crate::session;
use crate::support::temp::TempDir;
use crate::support::tiny_engine::*;

/// One engine for tests that let it live: the first recording of an engine measures the device, which takes seconds.
pub(crate) fn shared_engine() -> MutexGuard<'static, Engine> {
    static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| Mutex::new(engine(&engine_options())));
    ENGINE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn start(engine: &Engine, dir: &TempDir, window: Window) -> Profile {
    let options = SessionOptions { window, ..session(dir.path()) };
    engine.start_profile(options).expect("the folder is there")
}

/// Records, and serves until that has ended.
fn record(engine: &Engine, window: Window) -> Report {
    let dir = TempDir::new();
    serve_to_its_end(engine, start(engine, &dir, window))
}

/// Serves requests one after the other until this recording has ended by itself.
fn serve_to_its_end(engine: &Engine, profile: Profile) -> Report {
    let progress = profile.started().progress.clone();
    let mut seed = 0;
    while progress.snapshot().state != State::Closing {
        run_all(engine, &[(prompt(9, seed), greedy(6))]);
        seed += 1;
        assert!(seed < 10_000, "it does not end");
    }
    load(&profile.wait().expect("it has ended"))
}

/// A complete recording, in which nothing but its steps is.
pub(crate) fn load(summary: &SpoolSummary) -> Report {
    assert!(summary.is_complete(), "{summary:?}");
    let report = Report::load(&summary.path).expect("the spool is whole");
    assert!(report.completeness.complete, "{:?}", report.completeness);
    let recording = &report.recording;
    let is_in = |step: u64| recording.step(step).is_some();
    assert!(recording.spans.iter().all(|span| is_in(span.step)), "{:?}", recording.spans);
    assert!(recording.members.iter().all(|member| is_in(member.step)), "{:?}", recording.members);
    assert!(recording.replays.iter().all(|replay| is_in(replay.record.step)));
    for step in &recording.steps {
        assert!(!recording.members_of(step.step).is_empty(), "step {} has nobody in it", step.step);
        assert_eq!(recording.spans.iter().filter(|span| span.step == step.step).count(), 7, "phases of {}", step.step);
    }
    report
}

fn steps(report: &Report) -> Vec<u64> {
    report.recording.steps.iter().map(|step| step.step).collect()
}

fn stages(report: &Report) -> Vec<Stage> {
    report.recording.steps.iter().map(|step| Stage::of(&step.sizes, step.prefill_tokens)).collect()
}

#[test]
fn steps_are_skipped_and_counted_exactly() {
    let engine = shared_engine();
    let all = steps(&record(&engine, Window { steps_max: Some(9), ..Window::default() }));
    assert_eq!(all, (all[0]..all[0] + 9).collect::<Vec<_>>(), "consecutive steps");
    // The engine is asked for its next step's number by a recording of one step.
    let next = |engine: &Engine| steps(&record(engine, Window { steps_max: Some(1), ..Window::default() }))[0];
    let first = next(&engine);
    let report = record(&engine, Window { first_step: Some(first + 100), steps_max: Some(5), ..Window::default() });
    assert_eq!(steps(&report), (first + 100..first + 105).collect::<Vec<_>>());
    // Here the first step of the recording is known: nothing runs when it starts.
    let dir = TempDir::new();
    let window = Window { skip_steps: 2, warmup_steps: 1, steps_max: Some(3), ..Window::default() };
    let profile = start(&engine, &dir, window);
    run_all(&engine, &[(prompt(9, 1), greedy(8))]);
    let report = load(&profile.wait().expect("it has ended"));
    // The prompt, then a decode step for each further token: left out are the prompt and two decode steps.
    assert_eq!(stages(&report), [Stage::Decode; 3]);
    let kv: Vec<u64> = report.recording.steps.iter().map(|step| step.sizes.kv_tokens).collect();
    assert_eq!(kv, [12, 13, 14], "the fourth to the sixth step of a prompt of 9");
}

#[test]
fn a_delay_and_a_duration_are_kept_within_one_step() {
    let engine = shared_engine();
    record(&engine, Window { steps_max: Some(1), ..Window::default() }); // the first one measures the device
    let (delay_ns, duration_ns) = (60_000_000, 90_000_000);
    let watched = engine.watch_steps(1 << 16);
    let (dir, start_ns) = (TempDir::new(), monotonic_ns());
    let profile = start(&engine, &dir, Window { delay_ns, duration_ns: Some(duration_ns), ..Window::default() });
    let progress = profile.started().progress.clone();
    let report = serve_to_its_end(&engine, profile);
    let steps = &report.recording.steps;
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    // By the engine's clock; the start itself took a little.
    let begin_ns = progress.snapshot().opened_ns.expect("it began");
    let end_ns = begin_ns + duration_ns;
    assert!(begin_ns >= start_ns + delay_ns, "{} ns after the start", begin_ns - start_ns);
    // A step is let in inside its turn: the first turn ends behind the begin, the last one begins before the end.
    assert!(first.end_ns >= begin_ns && last.start_ns <= end_ns, "{begin_ns}..{end_ns}: {first:?} {last:?}");
    assert!(steps.windows(2).all(|pair| pair[0].step + 1 == pair[1].step), "none is left out between");
    // A step that was begun and ended inside is there. Two are under way at most, so it was begun after the one before
    // its neighbour was read.
    let watched: Vec<StepDone> = watched.try_iter().collect();
    let inside = |three: &&[StepDone]| three[0].done_ns >= begin_ns && three[2].done_ns <= end_ns;
    let numbers: Vec<u64> = watched.windows(3).filter(inside).map(|three| three[2].id.0).collect();
    assert!(!numbers.is_empty() && numbers.iter().all(|step| report.recording.step(*step).is_some()), "{numbers:?}");
}

#[test]
fn a_duration_ends_though_nothing_runs() {
    let engine = shared_engine();
    let dir = TempDir::new();
    let window = Window { duration_ns: Some(50_000_000), ..Window::default() };
    let summary = start(&engine, &dir, window).wait().expect("it ends");
    assert_eq!((summary.steps, summary.expected, summary.is_complete()), (0, 0, true));
    assert!(matches!(engine.stop_profile(None), Err(ProfileError::NotRunning)));
}

#[test]
fn stages_hold_nothing_else() {
    let engine = shared_engine();
    let window = Window { stages: vec![Stage::Prefill, Stage::Decode], steps_max: Some(4), ..Window::default() };
    let report = record(&engine, window);
    let of = |stage| stages(&report).iter().filter(|found| **found == stage).count();
    assert_eq!((of(Stage::Prefill), of(Stage::Decode), of(Stage::Mixed)), (4, 4, 0));
    let report = record(&engine, Window { stages: vec![Stage::Decode], steps_max: Some(7), ..Window::default() });
    assert_eq!(stages(&report), [Stage::Decode; 7]);
    // A prompt beside an answer under way.
    let dir = TempDir::new();
    let profile = start(&engine, &dir, Window { stages: vec![Stage::Mixed], steps_max: Some(1), ..Window::default() });
    let progress = profile.started().progress.clone();
    for turn in 0.. {
        if progress.snapshot().state == State::Closing {
            break;
        }
        assert!(turn < 100, "no step is mixed");
        let mut long = engine.submit(prompt(5, 1), greedy(900)).expect("a good request");
        long.blocking_next().expect("a token");
        run_all(&engine, &[(prompt(20, 2), greedy(2))]);
        answer(long); // again, if it had ended before the prompt came
    }
    let report = load(&profile.wait().expect("it has ended"));
    assert_eq!(stages(&report), [Stage::Mixed]);
    assert_eq!(report.recording.steps[0].prefill_tokens, 20);
}

#[test]
fn graphs_hold_nothing_else() {
    let engine = shared_engine();
    let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
    let report = record(&engine, Window { graphs: vec![key], steps_max: Some(5), ..Window::default() });
    assert_eq!(stages(&report), [Stage::Decode; 5]);
    let recording = &report.recording;
    let forward = recording.replays.iter().map(|replay| recording.graphs[replay.graph].key);
    assert_eq!(forward.filter(|found| *found == key).count(), 5);
}

#[test]
fn one_request_has_its_steps_alone() {
    let engine = shared_engine();
    let submit = |name: &str, length, tokens| -> TokenStream {
        engine.submit_named(name.into(), prompt(length, 3), greedy(tokens)).expect("a good request")
    };
    // A request that was there before has its name, too; on a busy machine it may have ended before the recording
    // begins.
    let has_other = (0..5).any(|_| {
        let dir = TempDir::new();
        let other = submit("other", 9, 900);
        let profile = start(&engine, &dir, Window { request: Some("mine".into()), ..Window::default() });
        answer(submit("before", 4, 5));
        let mine = submit("mine", 11, 7);
        let id = mine.id.0;
        answer(mine);
        let report = load(&profile.wait().expect("it ends with the request"));
        answer(submit("mine", 4, 5)); // too late
        drop(other);
        let recording = &report.recording;
        assert_eq!(recording.steps.len(), 7, "a step for each token: {:?}", steps(&report));
        for step in &recording.steps {
            assert!(recording.members_of(step.step).iter().any(|member| member.request == id), "{step:?}");
        }
        assert_eq!(recording.names.get(&id).map(String::as_str), Some("mine"));
        let is_end = |moment: &RequestRecord| moment.request == id && moment.moment == RequestMoment::Finished;
        assert!(recording.requests.iter().any(is_end));
        recording.names.values().any(|name| name == "other")
    });
    assert!(has_other, "none of five recordings has the name of a request that was there before");
}

/// A start under load waits for the steps under way: none of their time is in the first one's account.
#[test]
fn the_first_step_begins_with_nothing_under_way() {
    let engine = shared_engine();
    let mut under_load = 0;
    for _ in 0..20 {
        let watched = engine.watch_steps(1 << 12);
        let mut long = engine.submit(prompt(5, 1), greedy(900)).expect("a good request");
        long.blocking_next().expect("a token");
        let dir = TempDir::new();
        let profile = start(&engine, &dir, Window { steps_max: Some(1), ..Window::default() });
        let next = engine.submit(prompt(5, 1), greedy(900)).expect("a good request"); // if the other one has ended
        let report = load(&profile.wait().expect("it ends by itself"));
        let first = report.recording.steps[0];
        let before: Vec<StepDone> = watched.try_iter().take_while(|done| done.id.0 < first.step).collect();
        let last = before.last().expect("the one with the first token, at least");
        assert_eq!(last.id.0 + 1, first.step);
        assert!(last.done_ns <= first.start_ns, "step {last:?} was under way at the begin of {first:?}");
        let there = report.recording.members_of(first.step);
        under_load += usize::from(there.iter().any(|member| member.request == long.id.0));
        drop((long, next));
    }
    assert!(under_load > 0, "each had ended before the recording began");
}

/// One record for each replay, from the first node to the last.
#[test]
fn whole_replays_are_one_node_each() {
    let engine = shared_engine();
    let dir = TempDir::new();
    let window = Window { steps_max: Some(6), ..Window::default() };
    let options = SessionOptions { granularity: Granularity::Graph, window, ..session(dir.path()) };
    let profile = engine.start_profile(options).expect("the folder is there");
    run_all(&engine, &[(prompt(9, 1), greedy(8))]);
    let report = load(&profile.wait().expect("it has ended"));
    let recording = &report.recording;
    assert_eq!((recording.steps.len(), recording.replays.len(), recording.nodes.len()), (6, 12, 12));
    for node in &recording.nodes {
        let info = recording.info(node);
        let graph = &recording.graphs[recording.replays[node.replay as usize].graph];
        assert_eq!((info.place.op, &info.kernel), (Op::Graph, &graph.key.to_string()));
        assert!(node.end_ns > node.start_ns);
    }
    // The account has the same parts as by node: those nodes are all that its steps ran.
    let steps: Vec<u64> = report.account.steps.iter().map(|step| step.step).collect();
    let is_accounted = |replay: u32| steps.contains(&recording.replays[replay as usize].record.step);
    let nodes = recording.nodes.iter().filter(|node| is_accounted(node.replay));
    assert_eq!(report.account.total.nodes_ns, nodes.map(|node| node.end_ns - node.start_ns).sum::<u64>());
    assert!(steps.len() >= 5 && report.account.total.node_gaps_ns == 0, "{:?}", report.account.total);
    let page = html::page(&report, &html::Limits::default()).expect("a page");
    assert!(page.ends_with("</html>\n"));
}

/// What a step that is left out captures, a later one may replay.
#[test]
fn graphs_of_steps_that_are_left_out_are_known() {
    let dir = TempDir::new();
    for granularity in [Granularity::Node, Granularity::Graph] {
        let engine = engine(&engine_options()); // one that has captured nothing yet
        // Prompt and draw first, then decode: the draw's graph is older than the first one that is recorded.
        let window = Window { skip_steps: 1, steps_max: Some(2), ..Window::default() };
        let options = SessionOptions { granularity, window, ..session(dir.path()) };
        let profile = engine.start_profile(options).expect("the folder is there");
        run_all(&engine, &[(prompt(9, 1), greedy(5))]);
        let report = load(&profile.wait().expect("it has ended"));
        assert_eq!((report.recording.steps.len(), report.recording.replays.len()), (2, 4));
        engine.shutdown();
    }
}
