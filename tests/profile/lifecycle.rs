//! One recording at a time, from its start to its end, whoever asks and whatever ends first.

use vitrum::engine::ProfileError;
use vitrum::trace::progress::State;
use vitrum::trace::window::Window;

use crate::session;
use crate::support::temp::TempDir;
use crate::support::tiny_engine::*;
use crate::windows::{load, shared_engine, start};

#[test]
fn a_second_start_and_a_wrong_stop_name_the_one_that_runs() {
    let engine = engine(&engine_options());
    let dir = TempDir::new();
    let profile = start(&engine, &dir, Window::default());
    let id = profile.started().id.clone();
    let refused = engine.start_profile(session(dir.path())).expect_err("one at a time");
    assert!(matches!(&refused, ProfileError::Running { id: running } if *running == id), "{refused}");
    let refused = engine.stop_profile(Some("17")).expect_err("another one");
    assert_eq!(refused.to_string(), format!("profile 17 is not running: {id} is"));
    assert_eq!(profile.started().progress.snapshot().state, State::Recording);
    run_all(&engine, &[(prompt(9, 1), greedy(3))]);
    let now = profile.started().progress.snapshot();
    assert!(now.steps == 3 && now.nodes > 3 && now.bytes > 0, "{now:?}");
    // Somebody else stops it, and its holder is told.
    engine.stop_profile(None).expect("it runs");
    let summary = profile.wait().expect("it has ended");
    assert_eq!((summary.id, summary.steps), (id, 3));
    engine.shutdown();
    assert!(matches!(engine.start_profile(session(dir.path())), Err(ProfileError::EngineStopped)));
}

#[test]
fn of_many_starts_at_once_one_is_granted() {
    let engine = shared_engine();
    let dir = TempDir::new();
    for round in 0..20 {
        let starts: Vec<_> = std::thread::scope(|scope| {
            let start = |_| scope.spawn(|| engine.start_profile(session(dir.path())));
            let starts: Vec<_> = (0..4).map(start).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        let (granted, refused): (Vec<_>, Vec<_>) = starts.into_iter().partition(Result::is_ok);
        assert_eq!(granted.len(), 1, "round {round}");
        for refusal in refused {
            let refusal = refusal.expect_err("refused");
            assert!(matches!(refusal, ProfileError::Starting | ProfileError::Running { .. }), "{refusal}");
        }
        for profile in granted {
            assert!(profile.expect("granted").stop().expect("it ran").is_complete());
        }
    }
    assert_eq!(files(&dir), 20, "who is refused leaves no file");
}

/// The last step of all load ends it, though nothing comes behind that.
#[test]
fn a_recording_ends_with_the_load() {
    let engine = shared_engine();
    let dir = TempDir::new();
    for window in [
        Window { steps_max: Some(5), ..Window::default() },
        Window { request: Some("last".into()), ..Window::default() },
    ] {
        let profile = start(&engine, &dir, window);
        answer(engine.submit_named("last".into(), prompt(9, 1), greedy(5)).expect("a good request"));
        let report = load(&profile.wait().expect("it ends by itself"));
        assert_eq!(report.recording.steps.len(), 5);
    }
}

/// What was recorded is whole, though nobody has stopped it; or though its file is being ended.
#[test]
fn the_engine_ends_while_it_records_and_while_a_recording_is_closed() {
    for (steps_max, steps) in [(None, 3), (Some(2), 2)] {
        let engine = engine(&engine_options());
        let dir = TempDir::new();
        let profile = start(&engine, &dir, Window { steps_max, ..Window::default() });
        run_all(&engine, &[(prompt(9, 1), greedy(3))]);
        engine.shutdown();
        let report = load(&profile.wait().expect("it has ended"));
        assert_eq!(report.recording.steps.len(), steps);
    }
}

/// There is a whole recording or none.
#[test]
fn the_engine_ends_while_a_recording_starts() {
    let engine = engine(&engine_options());
    let dir = TempDir::new();
    engine.measure_peaks().expect("the device is there"); // a start has nothing else to wait for then
    let started = std::thread::scope(|scope| {
        let starting = scope.spawn(|| engine.start_profile(session(dir.path())));
        while files(&dir) == 0 && !starting.is_finished() {
            std::hint::spin_loop();
        }
        engine.shutdown();
        starting.join().expect("no panic")
    });
    match started {
        Ok(profile) => assert_eq!(load(&profile.wait().expect("it has ended")).recording.steps.len(), 0),
        Err(error) => {
            assert!(matches!(error, ProfileError::EngineStopped), "{error}");
            assert_eq!(files(&dir), 0);
        }
    }
}

fn files(dir: &TempDir) -> usize {
    std::fs::read_dir(dir.path()).expect("the folder").count()
}
