//! What `profile-serve` found, for a reader and as JSON; and whether it is good.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// Places with the most time that are shown.
const PLACES_SHOWN: usize = 10;

/// `vitrum profile stats` of a recording.
pub(crate) struct Tables {
    pub(crate) kernels_text: String,
    pub(crate) ops_text: String,
    pub(crate) account_text: String,
    pub(crate) completeness_text: String,
    pub(crate) dominates: String,
    /// Every table, by name, as lists of rows.
    pub(crate) all: Value,
}

/// Everything that is known at the end.
pub(crate) struct Summary {
    pub(crate) model: String,
    pub(crate) out: PathBuf,
    /// The device was not one.
    pub(crate) software_gpu: bool,
    /// The load generator's figures.
    pub(crate) load: Value,
    /// The answer of /stop_profile.
    pub(crate) recording: Value,
    pub(crate) tables: Tables,
    /// The page that `vitrum profile report` wrote.
    pub(crate) page: PathBuf,
    /// The row of table `perturbation`; `Null` if there were too few steps to compare.
    pub(crate) perturbation: Option<Value>,
    pub(crate) parts: Vec<(&'static str, f64)>,
}

impl Summary {
    /// An error if the recording is not whole.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        if self.recording["complete"] == json!(true) {
            return Ok(());
        }
        let count = |key: &str| self.recording[key].to_string();
        Err(format!(
            "record: the recording is not complete: {} node times expected, {} received, {} dropped, {} invalid",
            count("expected"),
            count("received"),
            count("dropped"),
            count("invalid")
        ))
    }

    pub(crate) fn json(&self) -> Value {
        let seconds = self.parts.iter().map(|(part, seconds)| ((*part).to_owned(), json!(seconds)));
        json!({
            "model": self.model,
            "software_gpu": self.software_gpu,
            "load": self.load,
            "recording": self.recording,
            "complete": self.recording["complete"],
            "dominates": self.tables.dominates,
            "unattributed_percent": self.unattributed_percent(),
            "perturbation": self.perturbation,
            "tables": self.tables.all,
            "page": self.page,
            "seconds": seconds.collect::<Map<_, _>>(),
            "total_seconds": self.total_seconds(),
            "out": self.out,
        })
    }

    pub(crate) fn text(&self) -> String {
        let tables = &self.tables;
        let mut text = format!("\nKernels\n{}\nOps\n{}\n", tables.kernels_text, tables.ops_text);
        text += &self.places();
        write!(text, "\nAccount of step time\n{}\n", tables.account_text).expect("a String takes all");
        write!(text, "Completeness\n{}\n", tables.completeness_text).expect("a String takes all");
        let lines = [tables.dominates.clone(), self.load_line(), self.recording_line(), self.perturbation_line()];
        for line in lines.into_iter().chain(self.sources_line()) {
            text += &format!("{line}\n");
        }
        if self.software_gpu {
            text += "The GPU was one in software (tests/softcuda): no time above says anything about a GPU.\n";
        }
        let parts: Vec<String> = self.parts.iter().map(|(part, s)| format!("{part} {s:.1}")).collect();
        text += &format!("{:.1} s in all ({})\n\nFiles\n", self.total_seconds(), parts.join(", "));
        let files = self.recording["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let others = [self.page.clone(), self.out.join("stats.txt")].map(|file| file.display().to_string());
        for file in files.map(str::to_owned).chain(others) {
            text += &format!("  {file}\n");
        }
        text += "Open the .html in a browser, the .json.gz at ui.perfetto.dev or in what else reads Chrome traces.\n";
        text
    }

    /// The layers and ops that take the most time.
    fn places(&self) -> String {
        let rows = self.tables.all["node_sum"].as_array().cloned().unwrap_or_default();
        let share = |row: &Value| row["Time (%)"].as_f64().unwrap_or(0.0);
        let mut rows: Vec<&Value> = rows.iter().collect();
        rows.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let mut text = format!("Nodes: the first {} of {} places by time\n", PLACES_SHOWN.min(rows.len()), rows.len());
        for row in rows.iter().take(PLACES_SHOWN) {
            let layer = row["Layer"].as_i64().map_or("-".to_owned(), |layer| layer.to_string());
            let op = row["Op"].as_str().unwrap_or("?");
            writeln!(text, "  {:>6.2} %  layer {layer:>3}  {op}", share(row)).expect("a String takes all");
        }
        text
    }

    fn load_line(&self) -> String {
        let figure = |key: &str| self.load[key].as_f64().unwrap_or(f64::NAN);
        format!(
            "{} requests: {:.1} tokens/s out, first token after {:.1} ms, {:.2} ms per token (means, while recording).",
            self.load["completed"],
            figure("output_throughput"),
            figure("mean_ttft_ms"),
            figure("mean_tpot_ms")
        )
    }

    fn recording_line(&self) -> String {
        let recording = &self.recording;
        let whole = if recording["complete"] == json!(true) { "Complete" } else { "NOT COMPLETE" };
        format!(
            "{whole}: {} node times expected, {} received, {} dropped, {} invalid. {} of step time unattributed. \
             Stopped in {} ms, rendered in {} ms.",
            recording["expected"],
            recording["received"],
            recording["dropped"],
            recording["invalid"],
            self.unattributed_percent().map_or("?".into(), |percent| format!("{percent:.2} %")),
            milliseconds(&recording["stop_ms"]),
            milliseconds(&recording["render_ms"])
        )
    }

    /// What timed the nodes, where that is not the stamps alone, as asked for.
    fn sources_line(&self) -> Option<String> {
        let (sources, activity) = (&self.recording["sources"], &self.recording["activity"]);
        if let Some(reason) = sources["absent"].as_str() {
            return Some(format!("Nodes were timed by stamps alone: {reason}."));
        }
        let library = sources["library"].as_str()?;
        let seen = format!(
            "{library} saw {} of {} nodes ({} without times, {} records dropped)",
            activity["nodes"], self.recording["activity_expected"], activity["invalid"], activity["dropped"]
        );
        Some(match sources["used"].as_str() {
            Some("both") => format!("Nodes were timed by stamps; {seen}: table source_sum compares them."),
            _ => format!("Nodes were timed by the driver's profiling library: {seen}."),
        })
    }

    fn perturbation_line(&self) -> String {
        let Some(row) = &self.perturbation else { return "What recording costs was not measured.".into() };
        match (row["Ratio"].as_f64(), row["Low"].as_f64(), row["High"].as_f64()) {
            (Some(ratio), Some(low), Some(high)) => format!(
                "Recording{} costs {:+.2} % of step time (95 % interval {:+.2} to {:+.2} %, {} pairs of steps).",
                // A library cannot be switched from step to step.
                if self.recording["sources"]["library"].is_null() { "" } else { " by stamps alone" },
                100.0 * (ratio - 1.0),
                100.0 * (low - 1.0),
                100.0 * (high - 1.0),
                row["Pairs"]
            ),
            _ => "What recording costs is not known: too few equal steps to compare. Try more --num-prompts.".into(),
        }
    }

    /// Of the account's wall time.
    fn unattributed_percent(&self) -> Option<f64> {
        let rows = self.tables.all["account"].as_array()?;
        rows.iter().find(|row| row["Part"] == json!("unattributed"))?["Wall (%)"].as_f64()
    }

    fn total_seconds(&self) -> f64 {
        self.parts.iter().map(|(_, seconds)| seconds).sum()
    }
}

fn milliseconds(value: &Value) -> String {
    value.as_f64().map_or("?".into(), |ms| format!("{ms:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let tables = Tables {
            kernels_text: "K".into(),
            ops_text: "O".into(),
            account_text: "A".into(),
            completeness_text: "C".into(),
            dominates: "mlp.up takes 40 % of node time.".into(),
            all: json!({
                "node_sum": [
                    {"Layer": 0, "Op": "mlp.up", "Time (%)": 12.5},
                    {"Layer": null, "Op": "lm_head", "Time (%)": 30.0},
                ],
                "account": [{"Part": "nodes", "Wall (%)": 97.0}, {"Part": "unattributed", "Wall (%)": 0.25}],
            }),
        };
        let recording = json!({
            "complete": true, "expected": 10, "received": 10, "dropped": 0, "invalid": 0,
            "stop_ms": 3.4, "render_ms": 51.0, "files": ["a.vtr", "a.pt.trace.json.gz"],
        });
        Summary {
            model: "m".into(),
            out: "out".into(),
            software_gpu: false,
            load: json!({"completed": 20, "output_throughput": 300.0, "mean_ttft_ms": 12.0, "mean_tpot_ms": 3.0}),
            recording,
            tables,
            page: "a.html".into(),
            perturbation: Some(json!({"Ratio": 1.004, "Low": 0.999, "High": 1.009, "Pairs": 80})),
            parts: vec![("build", 1.0), ("record", 2.5)],
        }
    }

    #[test]
    fn a_reader_sees_the_facts() {
        let text = summary().text();
        for fact in [
            "30.00 %  layer   -  lm_head",
            "mlp.up takes 40 %",
            "Complete: 10 node times expected, 10 received, 0 dropped, 0 invalid. 0.25 % of step time unattributed.",
            "Stopped in 3 ms, rendered in 51 ms",
            "+0.40 % of step time (95 % interval -0.10 to +0.90 %, 80 pairs",
            "3.5 s in all",
            "a.pt.trace.json.gz",
            "a.html",
        ] {
            assert!(text.contains(fact), "{fact} is not in\n{text}");
        }
        assert_eq!(summary().json()["unattributed_percent"], json!(0.25));
        assert_eq!(summary().verdict(), Ok(()));
    }

    #[test]
    fn what_timed_the_nodes_is_said() {
        let mut summary = summary();
        assert!(!summary.text().contains("timed by"), "{}", summary.text());
        let activity = json!({"nodes": 9, "invalid": 1, "dropped": 0});
        let sources = json!({"asked": "both", "used": "both", "library": "CUPTI 13.0 (130001)", "absent": null});
        (summary.recording["activity"], summary.recording["activity_expected"]) = (activity, json!(10));
        summary.recording["sources"] = sources;
        let text = summary.text();
        let fact = "timed by stamps; CUPTI 13.0 (130001) saw 9 of 10 nodes (1 without times, 0 records dropped)";
        assert!(text.contains(fact) && text.contains("Recording by stamps alone costs +0.40 %"), "{text}");
        summary.recording["sources"]["used"] = json!("activity");
        assert!(summary.text().contains("timed by the driver's profiling library: CUPTI 13.0"));
        summary.recording["sources"] =
            json!({"asked": "both", "used": "stamps", "library": null, "absent": "a reason"});
        assert!(summary.text().contains("timed by stamps alone: a reason."));
    }

    #[test]
    fn an_incomplete_recording_is_an_error() {
        let mut summary = summary();
        summary.recording["complete"] = json!(false);
        summary.recording["dropped"] = json!(3);
        assert!(summary.verdict().unwrap_err().contains("3 dropped"));
        assert!(summary.text().contains("NOT COMPLETE"));
        summary.perturbation = Some(Value::Null);
        assert!(summary.text().contains("too few equal steps") && !summary.text().contains("software"));
        summary.software_gpu = true;
        assert!(summary.text().contains("no time above says anything about a GPU"));
    }
}
