//! Whole steps: a small model with random weights, and a real one if there is one.
//!
//! What is compared is fed the same tokens: those that the CPU draws on the exact path. So one token that differs,
//! where two logits are nearly equal, does not make all the others differ.

use std::error::Error;
use std::path::Path;

use super::{Doctor, Finding, Found, ModelChoice, open};
use crate::device::{Activations, DeviceChoice, monotonic_ns};
use crate::formats::WeightFormat;
use crate::kernels::params::SampleRow;
use crate::model::{Checkpoint, KvFormat};
use crate::request::TokenId;
use crate::step::{Precision, RowTokens, Rows, StepLimits, StepRunner};
use crate::trace::schema::{NodeSources, NodeStamp};
use crate::weights::Dummy;

/// Odd sizes on purpose: 3 query heads per KV head, a vocabulary that is no multiple of 32.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 160,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// The formats that it is made in, each with how far logits may be from the exact ones: by what rounded activations and
/// an f16 cache cost, as a part of the logits' root mean square.
const FORMATS: [(WeightFormat, f64); 3] =
    [(WeightFormat::Bf16, 0.01), (WeightFormat::Q8_0, 0.02), (WeightFormat::Q4_1, 0.02)];

/// How far the logits of two devices may be apart on a real model, whose layers are many and whose weights are 4 bits.
const REAL_ALLOWED: f64 = 0.08;

/// A token has to be the same where its logit is above the next one by this many times what is allowed: a logit may be
/// off by several times the root mean square of all errors.
const MARGIN: f64 = 6.0;

const LIMITS: StepLimits = StepLimits { max_tokens: 64, max_seqs: SEQS, max_model_len: 320, kv_pages: SEQS * PAGES };
const SEQS: usize = 3;
/// KV pages of a sequence.
const PAGES: usize = 20;

/// Beyond a chunk of attention, so that results of chunks are combined.
const PROMPT: usize = 270;
const DECODED: usize = 12;

/// "The capital of France is", in SmolLM2's tokens; below the vocabulary of any model in use.
const REAL_PROMPT: [u32; 5] = [504, 3575, 282, 4649, 314];

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What a model gave, fed with the same tokens everywhere: logits and tokens after the prompt and after each token.
#[derive(Clone, Debug, Default)]
struct Answers {
    logits: Vec<Vec<f32>>,
    tokens: Vec<TokenId>,
}

/// What the CPU gave: on the exact path, and as it runs models.
#[derive(Debug, Default)]
pub(super) struct Reference {
    exact: Vec<Answers>,
    cpu: Vec<Answers>,
}

impl Reference {
    /// Computes what is missing.
    fn fill(&mut self) -> Fallible<()> {
        for (index, (format, _)) in FORMATS.into_iter().enumerate() {
            if self.exact.len() == index {
                let exact = Precision { activations: Activations::F32, kv: KvFormat::F32 };
                let mut runner = runner(DeviceChoice::Cpu, &small(format)?, exact)?;
                self.exact.push(answers(&mut runner, &prompt(PROMPT), 64, None)?);
            }
            if self.cpu.len() == index {
                let mut runner = runner(DeviceChoice::Cpu, &small(format)?, REDUCED)?;
                self.cpu.push(answers(&mut runner, &prompt(PROMPT), 50, Some(&self.exact[index].tokens))?);
            }
        }
        Ok(())
    }
}

/// As models are run unless a flag says otherwise.
const REDUCED: Precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };

/// The small model in a format.
fn small(format: WeightFormat) -> Fallible<Checkpoint> {
    let dummy = Dummy::of_text(CONFIG, Path::new("doctor/config.json"), format, 1)?;
    Ok(Checkpoint::of(Box::new(dummy))?)
}

fn runner(choice: DeviceChoice, checkpoint: &Checkpoint, precision: Precision) -> Fallible<StepRunner> {
    Ok(StepRunner::open(open(choice)?, checkpoint, &LIMITS, precision, None)?)
}

/// A runner of the small model, as the questions about a GPU need one.
pub(super) fn small_runner(choice: DeviceChoice) -> Fallible<StepRunner> {
    runner(choice, &small(WeightFormat::Q4_1)?, REDUCED)
}

fn prompt(len: usize) -> Vec<TokenId> {
    (0..len as u32).map(|i| TokenId((i * 37 + 517) % 331)).collect()
}

/// Rows of one sequence, in a part of the pages that is its own, not in order. Slot 0 begins a new batch.
pub(super) fn push(runner: &mut StepRunner, slot: u32, tokens: &[TokenId], first_position: usize) {
    let pages: Vec<u32> = (0..PAGES as u32).rev().map(|page| page * SEQS as u32 + slot).collect();
    let sample = Some(SampleRow { slot, top_p: 1.0, ..SampleRow::default() });
    let batch = if slot == 0 { runner.start_batch() } else { runner.batch() };
    batch.push(&Rows { slot, tokens: RowTokens::Host(tokens), first_position, pages: &pages, sample });
}

/// Runs the batch: logits of the first row that draws, and its token.
fn run(runner: &mut StepRunner) -> Fallible<(Vec<f32>, TokenId)> {
    let step = runner.submit(NodeSources::NONE)?;
    let token = runner.wait(step)?.token(0);
    Ok((runner.logits(1).swap_remove(0), token))
}

/// Feeds a prompt in chunks; what came of the last one.
fn prefill(runner: &mut StepRunner, prompt: &[TokenId], chunk: usize) -> Fallible<(Vec<f32>, TokenId)> {
    let mut last = (Vec::new(), TokenId(0));
    for (index, part) in prompt.chunks(chunk).enumerate() {
        push(runner, 0, part, index * chunk);
        last = run(runner)?;
    }
    Ok(last)
}

/// Feeds a prompt in chunks, then these tokens one by one, or those that are drawn.
fn answers(runner: &mut StepRunner, prompt: &[TokenId], chunk: usize, fed: Option<&[TokenId]>) -> Fallible<Answers> {
    let mut found = Answers::default();
    let (mut logits, mut token) = prefill(runner, prompt, chunk)?;
    for step in 0..DECODED {
        found.logits.push(logits);
        found.tokens.push(token);
        let next = fed.map_or(token, |fed| fed[step]);
        push(runner, 0, &[next], prompt.len() + step);
        (logits, token) = run(runner)?;
    }
    Ok(found)
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    values.for_each(|value| (sum, count) = (sum + value * value, count + 1.0));
    f64::sqrt(sum / f64::max(count, 1.0))
}

/// Root mean square of what differs, as a part of that of the values, of all steps together.
fn deviation(got: &Answers, expected: &Answers) -> f64 {
    let pairs = || got.logits.iter().flatten().zip(expected.logits.iter().flatten());
    let difference = pairs().map(|(got, expected)| f64::from(*got) - f64::from(*expected));
    root_mean_square(difference) / root_mean_square(pairs().map(|(_, expected)| f64::from(*expected)))
}

/// How far the largest logit is above the next one, as a part of their root mean square.
fn margin(logits: &[f32]) -> f64 {
    let mut largest = [f64::NEG_INFINITY; 2];
    for logit in logits.iter().map(|logit| f64::from(*logit)) {
        if logit > largest[0] {
            largest = [logit, largest[0]];
        } else if logit > largest[1] {
            largest[1] = logit;
        }
    }
    (largest[0] - largest[1]) / root_mean_square(logits.iter().map(|logit| f64::from(*logit)))
}

/// Tokens that are equal, those compared, and all. One that differs where the margin is clear is an error.
fn compare_tokens(got: &Answers, expected: &Answers, allowed: f64) -> Result<[usize; 3], String> {
    let (mut equal, mut compared) = (0, 0);
    for (step, (token, expected_token)) in got.tokens.iter().zip(&expected.tokens).enumerate() {
        let margin = margin(&expected.logits[step]);
        let is_clear = margin > MARGIN * allowed;
        if token != expected_token && is_clear {
            let (token, expected) = (token.0, expected_token.0);
            return Err(format!(
                "token {step} is {token}, and {expected} on the CPU, whose logit is {margin:.3} of their root mean \
                 square above the next one"
            ));
        }
        equal += usize::from(token == expected_token);
        compared += usize::from(is_clear);
    }
    Ok([equal, compared, got.tokens.len()])
}

/// All that the small model shows.
pub(super) fn check(doctor: &mut Doctor, choice: DeviceChoice, reference: &mut Reference) {
    doctor.check("tiny model: logits and tokens", choice, || {
        reference.fill()?;
        small_model(choice, reference)
    });
    doctor.check("tiny model: same bits", choice, || same_bits(choice));
    doctor.check("tiny model: stamps", choice, || stamps(choice));
}

fn small_model(choice: DeviceChoice, reference: &Reference) -> Found {
    let (mut off, mut sums) = (0f64, [0; 3]);
    for (index, (format, allowed)) in FORMATS.into_iter().enumerate() {
        let (exact, cpu) = (&reference.exact[index], &reference.cpu[index]);
        let got = match choice {
            DeviceChoice::Cpu => cpu.clone(),
            _ => answers(&mut runner(choice, &small(format)?, REDUCED)?, &prompt(PROMPT), 50, Some(&exact.tokens))?,
        };
        let is_off = deviation(&got, exact);
        let is_near = is_off <= allowed;
        if !is_near {
            return Err(format!(
                "{}: logits are off by {is_off:.5} of the exact ones' root mean square, and may be by {allowed}",
                format.as_str()
            )
            .into());
        }
        // The CPU is compared with its own exact path, another device with the CPU as it runs models.
        let other = if choice == DeviceChoice::Cpu { exact } else { cpu };
        let counted = compare_tokens(&got, other, allowed).map_err(|error| format!("{}: {error}", format.as_str()))?;
        off = off.max(is_off);
        sums.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
    }
    let whose = if choice == DeviceChoice::Cpu { "the exact path's" } else { "the CPU's" };
    Finding::of(tokens_note(sums, whose, off), token_figures(sums, off))
}

fn tokens_note([equal, compared, all]: [usize; 3], whose: &str, off: f64) -> String {
    format!(
        "{equal} of {all} tokens are {whose}, {compared} of them by a clear margin; logits are off by {off:.4} of \
         their root mean square"
    )
}

fn token_figures([equal, compared, all]: [usize; 3], off: f64) -> Vec<(&'static str, f64)> {
    let counts = [("tokens_equal", equal), ("tokens_clear", compared), ("tokens", all)];
    let counts = counts.map(|(name, count)| (name, count as f64));
    counts.into_iter().chain([("logits_off_of_rms", off)]).collect()
}

fn same_bits(choice: DeviceChoice) -> Found {
    let prompt = prompt(PROMPT);
    for format in [WeightFormat::Bf16, WeightFormat::Q4_0] {
        let mut runner = runner(choice, &small(format)?, REDUCED)?;
        let alone = prefill(&mut runner, &prompt, 64)?;
        let wrong = |what: &str| format!("{}: other logits {what}", format.as_str());
        if !alone.0.iter().all(|logit| logit.is_finite()) {
            return Err(format!("{}: logits that are no numbers", format.as_str()).into());
        }
        if prefill(&mut runner, &prompt, 23)? != alone {
            return Err(wrong("in chunks of 23 than in chunks of 64").into());
        }
        let last = prompt.len() - 1;
        let mut last_row = |others: &[usize]| {
            push(&mut runner, 0, &prompt[last..], last);
            (1..).zip(others).for_each(|(slot, rows)| push(&mut runner, slot, &prompt[..*rows], 0));
            run(&mut runner)
        };
        // The first one replays the graph of one row, the third one does it again.
        for (what, others) in
            [("by itself", &[][..]), ("beside two other sequences", &[20, 13]), ("when its graph is replayed", &[])]
        {
            if last_row(others)? != alone {
                return Err(wrong(what).into());
            }
        }
    }
    Finding::of("in two formats: alone, in chunks, beside others, replayed", vec![])
}

/// Steps that are traced have a valid stamp for each node, within the step's time, in order.
fn stamps(choice: DeviceChoice) -> Found {
    if !crate::trace::record::ENABLED {
        return Finding::absent("nodes are stamped in builds with feature `profiling`");
    }
    let mut runner = small_runner(choice)?;
    let mut stamped = 0;
    for rows in [20, 1] {
        push(&mut runner, 0, &prompt(rows), 0);
        let begin_ns = monotonic_ns();
        let step = runner.submit(NodeSources::STAMPS)?;
        let nodes: usize = step.graphs.iter().flatten().map(|graph| runner.graph(*graph).nodes.len()).sum();
        let stamps = runner.wait(step)?.stamps.to_vec();
        let end_ns = monotonic_ns();
        if stamps.len() != nodes {
            return Err(format!("{} stamps of {nodes} nodes", stamps.len()).into());
        }
        if let Some(node) = stamps.iter().position(|stamp| !stamp.is_valid()) {
            return Err(format!("node {node} of {nodes} has no valid stamp: {:?}", stamps[node]).into());
        }
        if let Some(node) = stamps.windows(2).position(|pair: &[NodeStamp]| pair[0].start_ns > pair[1].start_ns) {
            return Err(format!("node {} of {nodes} begins before the one ahead of it", node + 1).into());
        }
        let (first_ns, last_ns) = (stamps[0].start_ns, stamps[nodes - 1].end_ns);
        if first_ns < begin_ns || last_ns > end_ns {
            return Err(format!("stamps from {first_ns} to {last_ns} of a step from {begin_ns} to {end_ns} ns").into());
        }
        stamped += nodes;
    }
    Finding::of(format!("{stamped} of {stamped} nodes of two steps, in order"), vec![("nodes", stamped as f64)])
}

/// A real model: a GPU's tokens are the CPU's.
pub(super) fn check_real(doctor: &mut Doctor, choice: DeviceChoice, model: &ModelChoice) {
    let software = doctor.software && choice == DeviceChoice::Cuda;
    doctor.check("real model: tokens", choice, || {
        let path = match model {
            ModelChoice::Absent(reason) => return Finding::absent(reason.as_str()),
            ModelChoice::Found(_) if software => {
                return Finding::absent(
                    "software that stands for a GPU takes many minutes for it: --model asks for it",
                );
            }
            ModelChoice::Found(path) | ModelChoice::Named(path) => path,
        };
        let checkpoint = Checkpoint::open(path)?;
        let vocab = checkpoint.config().vocab as u32;
        let prompt: Vec<TokenId> = REAL_PROMPT.iter().map(|id| TokenId(id % vocab)).collect();
        let cpu = answers(&mut runner(DeviceChoice::Cpu, &checkpoint, REDUCED)?, &prompt, 64, None)?;
        let name = &checkpoint.config().name;
        if choice == DeviceChoice::Cpu {
            if !cpu.logits.iter().flatten().all(|logit| logit.is_finite()) {
                return Err(format!("{name}: logits that are no numbers").into());
            }
            let again = answers(&mut runner(choice, &checkpoint, REDUCED)?, &prompt, 2, None)?;
            if again.logits != cpu.logits {
                return Err(format!("{name}: other logits when its prompt comes in chunks of 2").into());
            }
            return Finding::of(format!("{name}: {} tokens, the same in chunks of 2", cpu.tokens.len()), vec![]);
        }
        let got = answers(&mut runner(choice, &checkpoint, REDUCED)?, &prompt, 64, Some(&cpu.tokens))?;
        let off = deviation(&got, &cpu);
        let is_near = off <= REAL_ALLOWED;
        if !is_near {
            return Err(format!("{name}: logits are off by {off:.4} of their root mean square from the CPU's").into());
        }
        let counted = compare_tokens(&got, &cpu, REAL_ALLOWED).map_err(|error| format!("{name}: {error}"))?;
        Finding::of(format!("{name}: {}", tokens_note(counted, "the CPU's", off)), token_figures(counted, off))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers_of(logits: &[[f32; 3]]) -> Answers {
        let token = |logits: &[f32; 3]| (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        Answers {
            logits: logits.iter().map(|logits| logits.to_vec()).collect(),
            tokens: logits.iter().map(|logits| TokenId(token(logits))).collect(),
        }
    }

    #[test]
    fn a_token_may_differ_only_where_two_are_near_each_other() {
        let cpu = answers_of(&[[1.0, 2.0, 0.0], [1.0, 1.01, 0.0]]);
        assert_eq!(compare_tokens(&cpu, &cpu, 0.02), Ok([2, 1, 2]));
        let near = answers_of(&[[1.0, 2.0, 0.0], [1.01, 1.0, 0.0]]);
        assert_eq!(compare_tokens(&near, &cpu, 0.02), Ok([1, 1, 2]));
        let wrong = answers_of(&[[2.0, 1.0, 0.0], [1.0, 1.01, 0.0]]);
        assert!(compare_tokens(&wrong, &cpu, 0.02).unwrap_err().starts_with("token 0 is 0, and 1 on the CPU"));
        let off = deviation(&near, &cpu);
        assert!((0.005..0.006).contains(&off), "{off}");
        let broken = answers_of(&[[f32::NAN, 2.0, 0.0], [1.0, 1.01, 0.0]]);
        assert!(deviation(&broken, &cpu).is_nan());
    }
}
