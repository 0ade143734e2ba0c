//! What a recording holds, by source and by version of CUPTI's records.

use vitrum::report::{Report, Unaccounted};
use vitrum::trace::session::{SpoolSummary, TraceSource};

use super::support::software_gpu::{child, finished};
use super::support::temp::TempDir;
use super::{FOLDER, folder, record, start};

/// Too little memory for the loops that measure a device's peaks, which take longer here than all the rest.
pub(crate) const FEW_BYTES: (&str, &str) = ("SOFTCUDA_MEMORY_BYTES", "4194304");

/// Runs a child with variables for the software CUPTI; what it printed.
pub(crate) fn run(name: &str, variables: &[(&str, &str)]) -> String {
    let dir = TempDir::new();
    let mut command = child(name);
    command.env(FOLDER, dir.path()).env(FEW_BYTES.0, FEW_BYTES.1).envs(variables.iter().copied());
    let ended = finished(command);
    let text = ended.stdout + &ended.stderr;
    assert!(ended.code == Some(0) && text.contains("1 passed"), "{name} {variables:?}:\n{text}");
    text
}

/// Lines of the software driver, which are about rules that were broken.
pub(crate) fn broken(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("softcuda:")).collect()
}

fn assert_complete(summary: &SpoolSummary, source: TraceSource) {
    let SpoolSummary { sources, activity, expected, activity_expected, .. } = summary;
    assert!(summary.is_complete() && *expected > 50, "{summary:#?}");
    assert_eq!((sources.asked, sources.used, &sources.absent), (source, source, &None));
    if !source.has_activity() {
        assert!(sources.library.is_none() && activity.is_none() && *activity_expected == 0, "{summary:#?}");
        return;
    }
    let counts = activity.as_ref().expect("counts");
    assert!(sources.library.as_ref().is_some_and(|library| library.starts_with("CUPTI 1")), "{sources:?}");
    assert_eq!((counts.nodes, *activity_expected), (*expected, *expected), "{counts:#?}");
    let failed = [counts.invalid, counts.unknown, counts.dropped, counts.lost];
    assert_eq!((failed, &counts.errors, &counts.given_up), ([0; 4], &Vec::new(), &None), "{counts:#?}");
    assert!(counts.copies > 0 && counts.calls > 0 && counts.calls_left_out > 0 && counts.overheads > 0, "{counts:#?}");
    // Single kernels read the clock around the copies of stamped steps, and there are no others.
    assert_eq!(counts.other_kernels > 0, source == TraceSource::Both, "{counts:#?}");
}

/// What is read from its file is whole, too: each node is of a replay, each replay of a step.
fn assert_report(summary: &SpoolSummary, source: TraceSource) {
    let report = Report::load(&summary.path).expect("a recording");
    let completeness = &report.completeness;
    assert!(completeness.complete && completeness.received == summary.expected, "{completeness:#?}");
    // Of most steps: a thread may wait for a core anywhere.
    let steps = &report.account.steps;
    let closed = steps.iter().filter(|step| step.parts.unattributed_share() < 0.01).count();
    assert!(2 * closed > steps.len(), "{steps:#?}");
    assert_eq!(report.account.unaccounted, Unaccounted::default());
    let launch = report.recording.graphs[0].nodes[0].launch.expect("a GPU's node says how it is launched");
    assert!(launch.registers > 0 && launch.block == [256, 1, 1] && launch.blocks_held > 0, "{launch:?}");
    match (&completeness.activity, source) {
        (None, TraceSource::Stamps) => {}
        (Some(activity), TraceSource::Activity | TraceSource::Both) => {
            assert!(activity.complete && activity.received == summary.expected, "{activity:#?}");
            assert_eq!(activity.alone, source == TraceSource::Activity);
        }
        (activity, _) => panic!("{source:?}: {activity:#?}"),
    }
}

#[test]
fn recordings_are_complete_by_each_source_and_version() {
    for version in ["9", "10", "11", "12", "13"] {
        let text = run("sources::child_recordings_are_complete_by_each_source", &[("SOFTCUDA_CUPTI", version)]);
        assert_eq!(broken(&text), Vec::<&str>::new(), "version {version}");
    }
}

#[test]
#[ignore = "run by the test of its name"]
fn child_recordings_are_complete_by_each_source() {
    let engine = start();
    let sources = [TraceSource::Activity, TraceSource::Stamps, TraceSource::Both, TraceSource::Activity];
    let recordings: Vec<_> = sources.iter().map(|source| record(&engine, &folder(), *source)).collect();
    for (source, (summary, answers)) in sources.into_iter().zip(&recordings) {
        assert_complete(summary, source);
        assert_report(summary, source);
        assert!(answers == &recordings[0].1, "recording changes no answer");
    }
    engine.shutdown();
}
