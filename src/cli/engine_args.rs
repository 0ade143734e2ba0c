//! The flags of every command that runs a model: which model, on which device, with which limits.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use thiserror::Error;

use crate::device::{Activations, DeviceChoice, DeviceOptions, NodeDelay};
use crate::engine::EngineOptions;
use crate::formats::WeightFormat;
use crate::isa::IsaChoice;
use crate::kernels::params::PAGE_TOKENS;
use crate::model::{Checkpoint, KvFormat};
use crate::step::{Precision, StepLimits};
use crate::text::{TextError, Tokenizer};
use crate::trace::schema::{Op, Place};
use crate::weights::hub::{ModelFiles, Sources};
use crate::weights::{WeightsError, hub};

/// More tokens than the inputs of any step can hold, and so few that no size computed from them overflows.
const STEP_TOKENS_MAX: usize = 1 << 20;

/// Which model, and how to run it.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArgs {
    /// A .gguf file, a folder that holds one, a folder with config.json and safetensors files, `smollm2`, or a model of
    /// the Hugging Face hub as owner/name; with --load-format dummy a config.json or its folder
    pub(super) model: String,
    /// Which branch, tag or commit of a model of the Hugging Face hub [default: main]
    #[arg(long)]
    revision: Option<String>,
    /// Where weights come from
    #[arg(long, value_enum, default_value_t = LoadFormat::Auto)]
    load_format: LoadFormat,
    /// How the random weights of --load-format dummy are stored [default: bf16]
    #[arg(long, value_parser = format_names())]
    dummy_weights: Option<WeightFormat>,
    /// Seed of the random weights [default: 0]
    #[arg(long)]
    dummy_seed: Option<u64>,
    /// The device; `auto`: the GPU if there is one that this binary has kernels for, and neither --threads nor --isa is
    /// given; else the CPU
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
    /// Worker threads of the CPU device [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Instruction set of the CPU device [default: the best that this machine has]
    #[arg(long, value_enum)]
    isa: Option<IsaArg>,
    /// How linear layers read their input: `reduced` = for quantised weights about 16 bits (int8 twice), in the MLP's
    /// gate and up 8 bits; bf16 for bf16 weights where the machine has a bf16 dot product; `f32` = as it is (quantised
    /// weights are expanded: slow, exact)
    #[arg(long, value_enum, default_value_t = ActivationsArg::Reduced)]
    activations: ActivationsArg,
    /// How keys and values are kept [default: f16; f32 with --activations f32]
    #[arg(long, value_enum)]
    kv_cache_dtype: Option<KvArg>,
    /// The most tokens of prompt and answer together [default: the model's, or what the KV cache holds]
    #[arg(long)]
    max_model_len: Option<usize>,
    /// The most sequences in a step
    #[arg(long, default_value_t = 32)]
    max_num_seqs: usize,
    /// The most tokens in a step
    #[arg(long, default_value_t = 256)]
    max_num_batched_tokens: usize,
    /// The most tokens of one prompt in a step [default: --max-num-batched-tokens]
    #[arg(long)]
    long_prefill_token_threshold: Option<usize>,
    /// Bytes of the KV cache [default: 1 GiB; on a GPU what --gpu-memory-utilization leaves it]
    #[arg(long)]
    kv_cache_memory_bytes: Option<usize>,
    /// The fraction of the GPU's memory, as far as it is free when the weights are there, that the KV cache may fill
    /// unless --kv-cache-memory-bytes is given [default: 0.9]
    #[arg(long)]
    gpu_memory_utilization: Option<f64>,
    /// The most requests that wait; one more is refused
    #[arg(long, default_value_t = 1024)]
    max_waiting: usize,
    /// Capture every graph at start instead of when it is first needed
    #[arg(long)]
    capture_all: bool,
    /// Make one node longer, to see that the profiler shows it: OP:LAYER:MICROSECONDS
    #[arg(long, hide = true, value_parser = parse_delay)]
    test_delay: Option<NodeDelay>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum LoadFormat {
    /// The model's files, GGUF or safetensors
    #[value(alias = "gguf")]
    Auto,
    /// Random weights for the shape in a Hugging Face config.json
    Dummy,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum DeviceArg {
    /// The GPU if there is one, else the CPU
    Auto,
    /// This machine's CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
    /// Computes nothing: every token is 0
    Null,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsaArg {
    Portable,
    Avx2,
    Avx512,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum ActivationsArg {
    Reduced,
    F32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KvArg {
    F32,
    F16,
}

/// A flag whose value does not fit.
#[derive(Debug, Error)]
pub(super) enum FlagError {
    #[error("{flag} is {value}, and has to be {expected}")]
    Range { flag: &'static str, value: usize, expected: String },
    #[error("--gpu-memory-utilization is {0}, and has to be above 0 and at most 1")]
    Fraction(f64),
    #[error("--trace-source: only a GPU has a profiling library besides its stamps: use --device cuda, or stamps")]
    SourceNeedsGpu,
    #[error("{flag} is for {needs} only")]
    Unused { flag: &'static str, needs: &'static str },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Hub(#[from] hub::HubError),
    #[error(transparent)]
    Text(#[from] TextError),
}

/// A model, ready to be put on a device.
pub(super) struct LoadedModel {
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Where it came from: the file or folder.
    pub(super) root: PathBuf,
    /// The device that it is for.
    pub(super) device: DeviceChoice,
}

impl EngineArgs {
    /// Finds and opens the model's files, and builds its tokenizer.
    pub(super) fn load(&self, models: &Sources) -> Result<LoadedModel, FlagError> {
        let device = self.device();
        self.check_unused(device)?;
        let (checkpoint, root) = match self.load_format {
            LoadFormat::Auto => match hub::resolve(&self.model, self.revision.as_deref(), models)? {
                ModelFiles::Gguf(path) => (Checkpoint::open(&path)?, path),
                ModelFiles::Folder(path) => (Checkpoint::open_folder(&path)?, path),
            },
            LoadFormat::Dummy => {
                let given = PathBuf::from(&self.model);
                let path = if given.is_dir() { given.join("config.json") } else { given };
                let format = self.dummy_weights.unwrap_or(WeightFormat::Bf16);
                (Checkpoint::random(&path, format, self.dummy_seed.unwrap_or(0))?, path)
            }
        };
        let tokenizer = match checkpoint.tokenizer() {
            Some(spec) => Tokenizer::from_spec(spec)?,
            None => Tokenizer::numeric(checkpoint.config().vocab),
        };
        Ok(LoadedModel { checkpoint, tokenizer: Arc::new(tokenizer), root, device })
    }

    /// Whether the device may be a GPU, as far as is known before one is looked for.
    pub(super) fn may_use_gpu(&self) -> bool {
        match self.device {
            DeviceArg::Auto => self.threads.is_none() && self.isa.is_none(),
            DeviceArg::Cuda => true,
            DeviceArg::Cpu | DeviceArg::Null => false,
        }
    }

    /// The device that will be opened.
    fn device(&self) -> DeviceChoice {
        let choice = match self.device {
            // Whoever asks for these means the CPU.
            DeviceArg::Auto if self.threads.is_some() || self.isa.is_some() => DeviceChoice::Cpu,
            DeviceArg::Auto => DeviceChoice::Auto,
            DeviceArg::Cpu => DeviceChoice::Cpu,
            DeviceArg::Cuda => DeviceChoice::Cuda,
            DeviceArg::Null => DeviceChoice::Null,
        };
        choice.resolved()
    }

    /// Refuses flags that would have no effect.
    fn check_unused(&self, device: DeviceChoice) -> Result<(), FlagError> {
        let is_dummy = self.load_format == LoadFormat::Dummy;
        let (is_cpu, is_cuda) = (device == DeviceChoice::Cpu, device == DeviceChoice::Cuda);
        let (fraction, bytes) = (self.gpu_memory_utilization.is_some(), self.kv_cache_memory_bytes.is_some());
        let is_of_hub = !is_dummy && hub::is_of_hugging_face(&self.model);
        let flags = [
            ("--revision", self.revision.is_some() && !is_of_hub, "a model of the Hugging Face hub, owner/name,"),
            ("--dummy-weights", self.dummy_weights.is_some() && !is_dummy, "--load-format dummy"),
            ("--dummy-seed", self.dummy_seed.is_some() && !is_dummy, "--load-format dummy"),
            ("--threads", self.threads.is_some() && !is_cpu, "--device cpu"),
            ("--isa", self.isa.is_some() && !is_cpu, "--device cpu"),
            ("--gpu-memory-utilization", fraction && !is_cuda, "--device cuda"),
            ("--gpu-memory-utilization", fraction && bytes, "a KV cache without --kv-cache-memory-bytes"),
        ];
        match flags.into_iter().find(|(_, unused, _)| *unused) {
            Some((flag, _, needs)) => Err(FlagError::Unused { flag, needs }),
            None => Ok(()),
        }
    }

    /// The fraction of a GPU's free memory that the KV cache may fill, unless its bytes are given.
    fn kv_fraction(&self, device: DeviceChoice) -> Result<Option<f64>, FlagError> {
        let fraction = self.gpu_memory_utilization.unwrap_or(0.9);
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(FlagError::Fraction(fraction));
        }
        let is_given = device == DeviceChoice::Cuda && self.kv_cache_memory_bytes.is_none();
        Ok(is_given.then_some(fraction))
    }

    /// The most pages that the KV cache may have; how many a fraction of free memory makes is seen later.
    fn kv_pages(&self, page_bytes: usize, fraction: Option<f64>) -> Result<usize, FlagError> {
        if fraction.is_some() {
            return Ok(usize::MAX);
        }
        let value = self.kv_cache_memory_bytes.unwrap_or(1 << 30);
        match value / page_bytes {
            0 => {
                let expected = format!("at least {page_bytes}, the bytes of one page");
                Err(FlagError::Range { flag: "--kv-cache-memory-bytes", value, expected })
            }
            pages => Ok(pages),
        }
    }

    /// The engine's options for a model.
    pub(super) fn options(&self, model: &LoadedModel, served_name: &str) -> Result<EngineOptions, FlagError> {
        let config = model.checkpoint.config();
        let at_least_1 = |flag, value: usize| match value {
            0 => Err(FlagError::Range { flag, value, expected: "at least 1".into() }),
            _ => Ok(value),
        };
        let kv = match (self.kv_cache_dtype, self.activations) {
            (Some(KvArg::F32), _) | (None, ActivationsArg::F32) => KvFormat::F32,
            (Some(KvArg::F16), _) | (None, ActivationsArg::Reduced) => KvFormat::F16,
        };
        let kv_fraction = self.kv_fraction(model.device)?;
        let kv_pages = self.kv_pages(kv.bytes_per_page(config), kv_fraction)?;
        let max_model_len = match self.max_model_len {
            None => config.max_position.min(kv_pages.saturating_mul(PAGE_TOKENS as usize)),
            Some(value) if (2..=config.max_position).contains(&value) => value,
            Some(value) => {
                let expected = format!("between 2 and the model's {}", config.max_position);
                return Err(FlagError::Range { flag: "--max-model-len", value, expected });
            }
        };
        if let Some(delay) = self.test_delay
            && delay.place.layer >= config.layers as i32
        {
            let expected = format!("below the model's {}", config.layers);
            let value = delay.place.layer as usize;
            return Err(FlagError::Range { flag: "the layer of --test-delay", value, expected });
        }
        let max_tokens = at_least_1("--max-num-batched-tokens", self.max_num_batched_tokens)?;
        if max_tokens > STEP_TOKENS_MAX {
            let expected = format!("at most {STEP_TOKENS_MAX}");
            return Err(FlagError::Range { flag: "--max-num-batched-tokens", value: max_tokens, expected });
        }
        let max_seqs = at_least_1("--max-num-seqs", self.max_num_seqs)?;
        if max_seqs > max_tokens {
            let expected = format!("at most --max-num-batched-tokens, {max_tokens}");
            return Err(FlagError::Range { flag: "--max-num-seqs", value: max_seqs, expected });
        }
        let prompt_chunk =
            at_least_1("--long-prefill-token-threshold", self.long_prefill_token_threshold.unwrap_or(max_tokens))?;
        Ok(EngineOptions {
            served_name: served_name.to_owned(),
            device: DeviceOptions {
                choice: model.device,
                threads: self.threads,
                isa: self.isa.map(IsaChoice::from),
                delay: self.test_delay,
                activity: false,
            },
            precision: Precision { activations: self.activations.into(), kv },
            // No sequence is longer than the model's limit, and a cache beyond all of them is of no use.
            limits: StepLimits {
                max_tokens,
                max_seqs,
                max_model_len,
                kv_pages: kv_pages.min(max_seqs * max_model_len.div_ceil(PAGE_TOKENS as usize)),
            },
            kv_fraction,
            prompt_chunk,
            max_waiting: at_least_1("--max-waiting", self.max_waiting)?,
            capture_all: self.capture_all,
            sample_every: None,
        })
    }
}

impl From<IsaArg> for IsaChoice {
    fn from(arg: IsaArg) -> IsaChoice {
        match arg {
            IsaArg::Portable => IsaChoice::Portable,
            IsaArg::Avx2 => IsaChoice::Avx2,
            IsaArg::Avx512 => IsaChoice::Avx512,
        }
    }
}

impl From<ActivationsArg> for Activations {
    fn from(arg: ActivationsArg) -> Activations {
        match arg {
            ActivationsArg::Reduced => Activations::Reduced,
            ActivationsArg::F32 => Activations::F32,
        }
    }
}

/// Takes a weight format by its name.
fn format_names() -> impl TypedValueParser<Value = WeightFormat> {
    PossibleValuesParser::new(WeightFormat::ALL.map(WeightFormat::as_str)).map(|name| {
        let named = WeightFormat::ALL.into_iter().find(|format| format.as_str() == name);
        named.expect("one of the possible values")
    })
}

/// `OP:LAYER:MICROSECONDS`, the layer −1 outside of layers.
fn parse_delay(text: &str) -> Result<NodeDelay, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [op, layer, micros] = parts[..] else { return Err("OP:LAYER:MICROSECONDS is what it takes".into()) };
    let known = Op::ALL.into_iter().find(|known| known.as_str() == op);
    Ok(NodeDelay {
        place: Place {
            layer: layer.parse().map_err(|error| format!("layer {layer:?}: {error}"))?,
            op: known.ok_or_else(|| format!("op {op:?} is none of {:?}", Op::ALL.map(Op::as_str)))?,
        },
        micros: micros.parse().map_err(|error| format!("microseconds {micros:?}: {error}"))?,
    })
}
