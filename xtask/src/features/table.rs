//! The rows of features.md.

/// A group of rows.
pub(super) struct Section {
    pub(super) title: &'static str,
    /// Heading of the first column.
    pub(super) column: &'static str,
    pub(super) rows: &'static [Row],
}

/// One thing that there is, or is not yet.
pub(super) struct Row {
    pub(super) what: &'static str,
    /// Where it is, from the tree's root; empty for what is not there yet.
    pub(super) file: &'static str,
    pub(super) proof: Proof,
}

/// What shows that it works.
pub(super) enum Proof {
    /// A test function, in this file.
    Test(&'static str, &'static str),
    /// A task that fails otherwise.
    Task(&'static str),
    /// It does not work yet.
    NotYet,
}

/// A row that a test in another file proves.
const fn row(what: &'static str, file: &'static str, test_file: &'static str, test: &'static str) -> Row {
    Row { what, file, proof: Proof::Test(test_file, test) }
}

/// A row that a test in its own file proves.
const fn own(what: &'static str, file: &'static str, test: &'static str) -> Row {
    Row { what, file, proof: Proof::Test(file, test) }
}

/// A row that a task proves.
const fn task(what: &'static str, file: &'static str, task: &'static str) -> Row {
    Row { what, file, proof: Proof::Task(task) }
}

/// What is not there yet.
const fn not_yet(what: &'static str) -> Row {
    Row { what, file: "", proof: Proof::NotYet }
}

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Benchmarks",
        column: "`vitrum bench`",
        rows: &[
            row(
                "`serve`: prompts of exact lengths, connections reused, `--profile`, `--num-warmups`, JSON file",
                "src/bench/serve/mod.rs",
                "src/bench/serve/tests.rs",
                "text_prompts_have_exact_lengths_and_connections_are_reused",
            ),
            row(
                "`serve --prompt-token-ids`, `--backend openai-chat`",
                "src/bench/serve/prompts.rs",
                "src/bench/serve/tests.rs",
                "token_ids_and_chat",
            ),
            row(
                "`serve`: printed block of `vllm bench serve`",
                "src/bench/serve/output.rs",
                "src/bench/serve/output_tests.rs",
                "the_block_has_the_lines_and_widths",
            ),
            row(
                "`serve --save-result --save-detailed --metadata --goodput`: its JSON keys",
                "src/bench/serve/output.rs",
                "src/bench/serve/output_tests.rs",
                "the_json_file_has_the_keys",
            ),
            own("`serve --request-rate --burstiness`", "src/bench/serve/load.rs", "a_rate_is_kept_exactly"),
            row(
                "`serve`: a failed request is counted with its reason",
                "src/bench/serve/request.rs",
                "src/bench/serve/tests.rs",
                "failures_are_counted_with_their_reason",
            ),
            own(
                "`latency`: statistics and JSON of `vllm bench latency`",
                "src/bench/latency.rs",
                "warm_up_is_not_measured",
            ),
            own("percentiles as numpy computes them", "src/bench/stats.rs", "agrees_with_numpy"),
            not_yet("`throughput`"),
            not_yet("`serve` with other data sets than `random`, `--ramp-up-strategy`, https"),
        ],
    },
    Section {
        title: "The project's own rules and tasks",
        column: "rule or task",
        rows: &[
            row("import order without a cycle", "tests/tidy/imports.rs", "tests/tidy.rs", "imports_keep_the_order"),
            row(
                "places of `unsafe`, async, environment; lengths, names, leftovers",
                "tests/tidy/rules.rs",
                "tests/tidy.rs",
                "every_file_keeps_the_rules",
            ),
            row("places of `cfg(feature)`", "tests/tidy.rs", "tests/tidy.rs", "features_are_decided_in_few_places"),
            task("kernel parameters: one header, generated twin", "csrc/params.h", "bindings --check"),
            task("without feature `profiling`, no trace of the recorder", "src/trace/mod.rs", "verify-off"),
            task("one command from a checkout to a profile", "xtask/src/profile_serve.rs", "profile-serve"),
            own(
                "a server never outlives the task that started it",
                "xtask/src/process.rs",
                "dropping_ends_the_whole_group",
            ),
        ],
    },
    Section {
        title: "Not there yet",
        column: "what",
        rows: &[
            not_yet("CUDA device: kernels, capture, replay"),
            not_yet("CUPTI as a second source of node times"),
            not_yet("models other than Llama-like ones"),
            not_yet("safetensors; GGUF formats Q4_K and Q6_K"),
            not_yet("`vitrum profile diff`, `merge`, `report`; export to sqlite and HTML"),
            not_yet("`vitrum doctor`"),
            not_yet("prefix cache, speculative decoding, structured output, LoRA"),
            not_yet("more than one device or process"),
        ],
    },
];
