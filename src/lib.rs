//! vitrum: an LLM inference engine that you can see through.
//!
//! Every step that it takes, prefill too, is a captured graph of its own kernels, and every node of every graph has a
//! name, a place in the model, a cost and, in a build with feature `profiling`, a measured time.
//!
//! # The picture
//!
//! ```text
//!  src/http (async)                 engine thread: owns the device, one loop (src/engine/run.rs)
//!  ┌──────────────┐  Submission  ┌──────────────────────────────────────────────────────────────────┐
//!  │ axum routes  │────────────▶ │ receive → schedule → upload → replay → download → apply → emit   │
//!  │ SSE streams  │ ◀────────────│              │          │        │          │                    │
//!  └──────────────┘  TokenEvent  │         StepBatch  fixed buffers graph    tokens               │
//!         ▲   bounded queues     └──────────────────────────────│─────────────────────────────────┘
//!         │                                                      ▼
//!    src/text: tokenise,      src/step: bucket → two captured graphs, forward and sample
//!    chat template,           src/model: a family: keys, tensors, ops  src/kernels: node = params + place + cost
//!    detokenise               src/weights: GGUF, folders, dummy         src/device: cpu (pinned pool) · cuda · null
//!                             src/formats: a file a weight format      src/isa: 16 lanes on every instruction set
//!                             src/trace: the record's words and bytes, always compiled
//!                             src/trace/record: only with `profiling`: blocks, a writer thread, CUPTI, samples
//!  src/weights/hub: from what a model is called to its files: a path, a name, the Hugging Face hub
//!  src/report reads recordings: Chrome JSON, a page, flame graphs, SQLite, tables, merge, diff
//!  src/bench: load generators      src/cli: the commands
//!  src/doctor compares kernels with their references, measures devices
//!  src/console is standard output, standard error and the log, whose failures end nothing
//! ```
//!
//! Imports go one way: `main → cli → {http, bench, report, doctor} → engine → step → model → weights → device → kernels
//! → formats → isa`; [`doctor`] names no engine. [`text`] is used by http, bench and cli; [`trace`], [`console`],
//! [`request`] and [`isa`] are leaves; [`config`] is read by main and cli only and handed down as values.
//! `tests/tidy.rs` holds this.
//!
//! # I want to add
//!
//! | what | where |
//! | --- | --- |
//! | a family of models | `src/model/qwen3.rs` is one: keys, tensors, ops; its line in `src/model/mod.rs` |
//! | a weight format | `src/formats/q4_1.rs` and `csrc/formats/q4_1.cuh` are one; its line in `src/formats/mod.rs` |
//! | a container of weights | `src/weights/folder/mod.rs` is one: a `Container`; opened in `src/model/checkpoint.rs` |
//! | an op | `src/kernels/norm_qkv/mod.rs` and `csrc/norm_qkv.cu` are one; its line in `src/kernels/mod.rs` |
//! | an HTTP parameter | `src/http/parse/generation.rs`, where it is honoured or refused |
//! | a column of the node table | `src/report/stats/nodes.rs` (text, JSON), `src/report/html/places.rs` (page) |
//!
//! # The life of a request
//!
//! 1. A route in [`http`] reads the body within its limits, parses it, refuses what it cannot honour, tokenises the
//!    prompt: on threads beside those of connections (`src/http/lanes.rs`) if it is long. A conversation is first made
//!    a prompt by another process of this program (`src/text/chat/worker.rs`), which a chat template may end.
//! 2. [`engine::Engine::submit`] checks it against the model's limits, takes a place in the waiting queue and sends it
//!    to the engine's thread. The answer is a stream; dropping it ends the request.
//! 3. The scheduler (`src/engine/scheduler.rs`) gives it a slot and KV pages, and rows in a step: prompt rows in
//!    chunks, beside the decode rows of others.
//! 4. [`step::StepRunner`] copies the batch to fixed addresses (one upload) and replays two captured graphs: *forward*,
//!    whose bucket is a number of rows, and *sample*, whose bucket is a number of rows that draw a token.
//! 5. The token is written into the sequence's slot on the device, where the next step, submitted before this one has
//!    been read, takes it from. The engine reads it one step later, decides whether it is the last, and sends it.
//! 6. [`http`] turns it into text and writes one chunk. A recording, if one runs, got the node times of the step; of
//!    one step in N so did the sampler (`--profile-sample N`), whose histograms `GET /profile/nodes` reads.
//!
//! # Invariants
//!
//! 1. After the engine has started nothing allocates device memory but a first capture: the graph, and scratch
//!    memory if its kernels need more than those before.
//! 2. Only `http` and `bench` are async; only `device`, `kernels`, `formats`, `isa`, `weights` and `trace/record/cupti`
//!    hold `unsafe`, each block with the fact relied on; only [`config`] reads the command line and the environment
//!    (three variables of vitrum's, CUDA_HOME, and those of the Hugging Face hub's own tools).
//! 3. `engine` and `step` name no backend; `device` names no model, and only `model` names a family.
//! 4. Everything has a limit: queue, batch, rows, pages, record buffers, spool bytes, request body, bodies together,
//!    prompt length, connections, time to send and to read (docs/reliability.md has them).
//! 5. A parameter is honoured or refused by name.
//! 6. Without feature `profiling` the binary has no recorder in it (`cargo xtask verify-off`).
//! 7. Every node of every graph has a place and a cost.
//! 8. The order of every reduction depends on the shape of one row, never on the batch: a request's logits are
//!    bit-equal alone, among others and in any chunking of its prompt, on one device and instruction set.
//! 9. No write to standard output, standard error or the log ends anything, or holds up a thread that serves.
//!
//! # Two sources of node times
//!
//! A graph times itself: workers of the CPU read the clock around each node, kernels of a GPU write its clock into
//! cells that are copied away (*stamps*). Stamps are there on every device, alone, beside other profilers and under
//! programmatic edges. On an NVIDIA GPU there is CUPTI too, NVIDIA's own profiling library
//! (`src/trace/record/cupti/mod.rs`): it sees copies and calls of the driver besides, and it may cost more, and change
//! what it sees. Its records name a node by an id that the device asks for when it captures the node, and a launch by
//! the call's correlation; the engine writes down when it made the call, by the same clock, so that a launch is known
//! as a replay when the recording is read (`src/report/model`). With both, every node is compared.
//!
//! # The CUDA device has not run on a GPU yet
//!
//! `csrc` holds the kernels, `src/device/cuda` captures them in the driver's graphs, with programmatic dependent launch
//! from kernel to kernel. All of it was written and tested without a GPU: the same kernels, compiled for the host, give
//! what the references say, and NVIDIA's compiler takes them. That a GPU computes the same, and how fast, is not known.
//! Nodes are timed by their own stamps, copies by the same clock, and so are the loops that measure the GPU's peaks.
//! CUPTI has been loaded, and walked records; a GPU's records it has not made here: those of the tests are a software
//! CUPTI's, which follows its headers.
//! `vitrum doctor` is what is to be run first on one.
//!
//! # Deliberately absent
//!
//! No tensor type and no operator dispatch: a model is a list of nodes. No eager path beside the graphs. No prefix
//! cache, no speculative decoding, no LoRA, no tensor parallelism. No plug-ins: devices, kernels, weight formats and
//! families are closed lists.

pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod device;
pub mod doctor;
pub mod engine;
pub mod formats;
pub mod http;
pub mod isa;
pub mod kernels;
pub mod model;
pub mod report;
pub mod request;
pub mod step;
pub mod text;
pub mod trace;
pub mod weights;
