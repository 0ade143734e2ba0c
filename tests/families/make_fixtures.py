#!/usr/bin/env python3
"""Makes tests/data/families/<variant>.json: what each family of models computes, on tiny models with random weights.

    pip install torch==2.15.0 transformers==5.24.0 gguf==0.19.0 numpy==2.4.6
    python3 tests/families/make_fixtures.py [family or variant ...]

Without arguments every variant is made. `--search N` tries the seeds 1 to N and prints the best instead; the one to
use is then written into the table of the variants.

A variant is a config.json as the repositories of its family have it, but tiny. Its weights are made from a seed and the
tensors' names, so that a test in another language makes the same ones: see `Stream`. They are rounded to bfloat16, and
the model (eager attention, float32, CPU) computes a prompt of 101 tokens and 16 greedy tokens. For each feature that
the variant is for, the script switches the feature off and demands that the top-20 logits move; the distances are
printed, and the fixture has them. README.md says how a fixture is read.
"""

import copy
import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import gguf
import numpy as np
import torch
import transformers

OUT = Path(__file__).resolve().parent.parent / "data" / "families"
PROMPT_TOKENS = 101
GREEDY_TOKENS = 16
TOP = 20
MOVES_MIN = 0.05
FIXTURE_BYTES_MAX = 20_000

# --- Weights -----------------------------------------------------------------------------------------------------

MASK = (1 << 64) - 1
GOLDEN = 0x9E37_79B9_7F4A_7C15
MULTIPLIERS = (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB)


def mix(z):
    """The output function of SplitMix64, of a Python integer."""
    z = ((z ^ (z >> 30)) * MULTIPLIERS[0]) & MASK
    z = ((z ^ (z >> 27)) * MULTIPLIERS[1]) & MASK
    return z ^ (z >> 31)


def mix_array(z):
    """The same of an array of uint64, whose products wrap."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MULTIPLIERS[0])
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIERS[1])
    return z ^ (z >> np.uint64(31))


class Stream:
    """The random numbers of src/formats/random.rs.

    A stream is a state of 64 bits. That of a tensor: mix(seed), then for each byte of its name
    mix((key + GOLDEN) ^ byte). That of its row r: mix(state ^ r * GOLDEN). The n-th output, from n = 1, is
    mix(state + n * GOLDEN); its four 16-bit parts, lowest first, are four signed integers, each times 2^-15, and a
    value is mean + amplitude * that, each operation rounded to float32.

    An example, in 64-bit integers, of the seed 1 and a tensor named "a" (one byte, 0x61):
      mix(1)                               0x5692161d100b05e5
      (mix(1) + GOLDEN) ^ 0x61             0xf4c98fd68f55819b
      its mix, the tensor's state          0x6972ae91607d31a5
      the first output, mix(state + GOLDEN)  0x36c0cd863a3bfe88
      its parts 0xfe88 0x3a3b 0xcd86 0x36c0  -376 14907 -12922 14016
      1 + 0.125 * part / 32768, in float32   0.9985657 1.0568657 0.9507065 1.0534668
      as bfloat16                          0x3f80 0x3f87 0x3f73 0x3f87
      the state of row 1, mix(state ^ GOLDEN)  0x583d60da8043749b
    `check_stream` holds the code to that.
    """

    def __init__(self, state):
        self.state = state

    @staticmethod
    def of_tensor(seed, name):
        key = mix(seed)
        for byte in name.encode():
            key = mix(((key + GOLDEN) & MASK) ^ byte)
        return Stream(key)

    def of_row(self, row):
        return Stream(mix(self.state ^ ((row * GOLDEN) & MASK)))

    def outputs(self, count):
        steps = np.arange(1, count + 1, dtype=np.uint64)
        return mix_array(np.uint64(self.state) + steps * np.uint64(GOLDEN))

    def fill_f32(self, count, mean, amplitude):
        parts = self.outputs((count + 3) // 4).astype("<u8").view("<i2")[:count]
        units = parts.astype(np.float32) * np.float32(1.0 / 32768.0)
        return np.float32(mean) + np.float32(amplitude) * units


def to_bf16(values):
    """Rounded to bfloat16, to nearest, ties to even; as float32. No infinities or NaNs."""
    bits = values.astype(np.float32).view(np.uint32)
    is_odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + is_odd) & np.uint32(0xFFFF_0000)).view(np.float32)


def make_tensor(seed, name, shape, mean, amplitude):
    stream = Stream.of_tensor(seed, name)
    if len(shape) == 1:
        return to_bf16(stream.fill_f32(shape[0], mean, amplitude))
    rows, cols = shape
    return to_bf16(np.stack([stream.of_row(row).fill_f32(cols, mean, amplitude) for row in range(rows)]))


def check_stream():
    assert mix(GOLDEN) == 0xE220_A839_7B1D_CDAF, "the first output of SplitMix64 from 0, as published"
    assert mix(1) == 0x5692_161D_100B_05E5
    stream = Stream.of_tensor(1, "a")
    assert stream.state == 0x6972_AE91_607D_31A5
    assert int(stream.outputs(1)[0]) == 0x36C0_CD86_3A3B_FE88
    values = stream.fill_f32(4, 1.0, 0.125)
    assert [f"{value:.7f}" for value in values] == ["0.9985657", "1.0568657", "0.9507065", "1.0534668"]
    assert list(to_bf16(values).view(np.uint32) >> np.uint32(16)) == [0x3F80, 0x3F87, 0x3F73, 0x3F87]
    assert stream.of_row(1).state == 0x583D_60DA_8043_749B
    for row in (0, 1, 77):  # arrays and integers agree beyond the example
        state = stream.of_row(row).state
        expected = [mix((state + step * GOLDEN) & MASK) for step in range(1, 9)]
        assert [int(output) for output in stream.of_row(row).outputs(8)] == expected


# --- Variants ----------------------------------------------------------------------------------------------------


class Variant:
    """A model, and what shows that each of its features counts.

    `off` has for each feature how to switch it off: changes of the config (None removes a key), or a function that
    changes the model. `scales` multiplies the matrices and gains whose names it matches. `gguf_off` are changes
    of the config that give the model that is left where GGUF has no key for a feature.
    """

    def __init__(self, name, family, about, seed, config, off, scales=(), gguf_off=None, gguf_note=None, prefix=""):
        self.name, self.family, self.about, self.seed, self.config = name, family, about, seed, config
        self.off, self.scales, self.gguf_off, self.gguf_note, self.prefix = off, scales, gguf_off, gguf_note, prefix

    @property
    def is_gemma(self):
        return self.family.startswith("gemma")


def without_tensors(pattern, value):
    """Fills the tensors whose names match with one value."""

    def apply(model):
        found = [tensor for name, tensor in model.named_parameters() if re.search(pattern, name)]
        assert found, pattern
        for tensor in found:
            tensor.data.fill_(value)

    return apply


def without_embedding_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def without_tie(model):
    """The output weights of another seed."""
    shape = list(model.lm_head.weight.shape)
    weights = torch.from_numpy(make_tensor(99, "other", shape, 0.0, amplitude_of(shape)))
    model.lm_head.weight = torch.nn.Parameter(weights)


TINY = {
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128,
}
# Queries and keys of random weights see everything alike; twice as large, they choose. Where they are normed, the
# norms' gains are around 2.
SHARP = (("q_proj", 2.0), ("k_proj", 2.0))
SHARP_NORMS = (("q_norm", 2.0), ("k_norm", 2.0))
# With output weights that are the embeddings, a token's own embedding would decide. These gains make layers louder.
LOUD = (("post_attention_layernorm", 2.5), ("post_feedforward_layernorm", 2.5))


def config(architecture, model_type, **fields):
    return {"architectures": [architecture], "model_type": model_type, **TINY, **fields}


def llama(**fields):
    fields = {"bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5, **fields}
    return config("LlamaForCausalLM", "llama", **fields)


def factors(first, last, count):
    """Factors of longrope that grow, with three decimals."""
    return [round(first * (last / first) ** (index / (count - 1)), 3) for index in range(count)]


def phi3(**fields):
    return config("Phi3ForCausalLM", "phi3", attention_bias=False, attention_dropout=0.0, bos_token_id=1,
                  embd_pdrop=0.0, eos_token_id=2, hidden_act="silu", pad_token_id=2, resid_pdrop=0.0, rms_norm_eps=1e-5,
                  rope_theta=10000.0, **fields)


def smollm3(**fields):
    return config("SmolLM3ForCausalLM", "smollm3", attention_bias=False, attention_dropout=0.0, bos_token_id=1,
                  eos_token_id=2, hidden_act="silu", max_window_layers=28, mlp_bias=False, pad_token_id=4,
                  pretraining_tp=2, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=5000000.0, sliding_window=None,
                  use_sliding_window=False, **{"num_hidden_layers": 4, **fields})


def gemma2(**fields):
    fields = {"head_dim": 32, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0,
              "final_logit_softcapping": 3.0, **fields}
    return config("Gemma2ForCausalLM", "gemma2", attention_bias=False, attention_dropout=0.0, bos_token_id=2,
                  cache_implementation="hybrid", eos_token_id=1, hidden_act="gelu_pytorch_tanh",
                  hidden_activation="gelu_pytorch_tanh", pad_token_id=0, rms_norm_eps=1e-6, rope_theta=10000.0,
                  sliding_window=32, **fields)


def gemma3(**fields):
    fields = {"num_hidden_layers": 7, "head_dim": 32, "query_pre_attn_scalar": 32, **fields}
    return config("Gemma3ForCausalLM", "gemma3_text", attention_bias=False, attention_dropout=0.0,
                  attn_logit_softcapping=None, bos_token_id=2, cache_implementation="hybrid", eos_token_id=[1, 106],
                  final_logit_softcapping=None, hidden_activation="gelu_pytorch_tanh", pad_token_id=0,
                  rms_norm_eps=1e-6, sliding_window=32, **fields)


NORM_GAINS = without_tensors(r"(layernorm|\.norm)\.weight$", 1.0)
GEMMA_GAINS = without_tensors(r"(layernorm|model\.norm)\.weight$", 0.0)
GEMMA2_OFF = {
    "attention soft cap": {"attn_logit_softcapping": None},
    "final soft cap": {"final_logit_softcapping": None},
    "query_pre_attn_scalar": {"query_pre_attn_scalar": 8},
    "window": {"sliding_window": 4096},
    "window of one more": {"sliding_window": 33},
    "windows in the other layers": {"layer_types": ["full_attention", "sliding_attention"] * 2},
    "gains of 1 + w": GEMMA_GAINS,
    "gains behind the attention": without_tensors(r"post_attention_layernorm", 1.5),
    "gains behind the MLP": without_tensors(r"post_feedforward_layernorm", 1.5),
    "embedding scale": without_embedding_scale,
    "GELU instead of SiLU": {"hidden_activation": "silu"},
}
GEMMA3_OFF = {
    "query_pre_attn_scalar": {"query_pre_attn_scalar": 8},
    "window": {"sliding_window": 4096},
    "window of one more": {"sliding_window": 33},
    "gains of 1 + w": GEMMA_GAINS,
    "q norm's gains": without_tensors(r"q_norm", 1.0),
    "k norm's gains": without_tensors(r"k_norm", 1.0),
    "embedding scale": without_embedding_scale,
    "GELU instead of SiLU": {"hidden_activation": "silu"},
}

VARIANTS = [
    Variant(
        "llama2", "llama", "Llama 2: as many kv heads as heads, no rope_theta, no head_dim, untied", 23,
        llama(num_key_value_heads=4, pretraining_tp=1, rope_scaling=None, tie_word_embeddings=False),
        {"rope_theta's default": {"rope_theta": 500000.0}, "norm gains": NORM_GAINS}, SHARP),
    Variant(
        "llama3", "llama", "Llama 3.2: rope scaling llama3, GQA, head_dim given, tied", 17,
        llama(attention_bias=False, attention_dropout=0.0, eos_token_id=[2, 3], head_dim=16,
              max_position_embeddings=512, mlp_bias=False, num_hidden_layers=3, pretraining_tp=1, rope_theta=500000.0,
              tie_word_embeddings=True,
              rope_scaling={"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                            "original_max_position_embeddings": 64, "rope_type": "llama3"}),
        {"rope scaling": {"rope_scaling": None}, "rope_theta": {"rope_theta": None}, "tied": without_tie}, SHARP),
    Variant(
        "llama-linear", "llama", "rope scaling linear in its old spelling (type)", 7,
        llama(rope_scaling={"factor": 4.0, "type": "linear"}, tie_word_embeddings=False),
        {"rope scaling": {"rope_scaling": None}}, SHARP),
    Variant(
        "llama-yarn", "llama", "rope scaling yarn in its old spelling, heads of 32", 10,
        llama(hidden_size=128, max_position_embeddings=128, tie_word_embeddings=False,
              rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32, "type": "yarn"}),
        {"rope scaling": {"rope_scaling": None},
         "yarn's factor on queries and keys": {"rope_scaling": {
             "factor": 4.0, "original_max_position_embeddings": 32, "type": "yarn", "attention_factor": 1.0}},
         "yarn's ramp": {"rope_scaling": {
             "factor": 4.0, "original_max_position_embeddings": 32, "type": "yarn", "beta_slow": 0.25}}}, SHARP),
    Variant(
        "llama-yarn-factors", "llama", "yarn with every field, in rope_parameters", 12,
        llama(hidden_size=128, max_position_embeddings=128, tie_word_embeddings=False,
              rope_parameters={"beta_fast": 3.0, "beta_slow": 0.25, "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5,
                               "original_max_position_embeddings": 32, "rope_theta": 1000.0, "rope_type": "yarn",
                               "truncate": False}),
        {"beta_fast": {"rope_parameters.beta_fast": None}, "beta_slow": {"rope_parameters.beta_slow": None},
         "mscale": {"rope_parameters.mscale": None}, "truncate": {"rope_parameters.truncate": None}}, SHARP,
        {"rope_parameters.mscale": None, "rope_parameters.mscale_all_dim": None, "rope_parameters.truncate": None},
        "GGUF has neither mscale nor truncate"),
    Variant(
        "llama-bias", "llama", "attention_bias and mlp_bias; rope_parameters and dtype in place of the old names", 12,
        {**{key: value for key, value in llama(
            attention_bias=True, mlp_bias=True, head_dim=16, tie_word_embeddings=False,
            rope_parameters={"rope_theta": 50000.0, "rope_type": "default"}).items() if key != "torch_dtype"},
         "dtype": "bfloat16"},
        {"q bias": without_tensors(r"q_proj\.bias", 0.0), "k bias": without_tensors(r"k_proj\.bias", 0.0),
         "v bias": without_tensors(r"v_proj\.bias", 0.0), "o bias": without_tensors(r"o_proj\.bias", 0.0),
         "gate bias": without_tensors(r"gate_proj\.bias", 0.0), "up bias": without_tensors(r"up_proj\.bias", 0.0),
         "down bias": without_tensors(r"down_proj\.bias", 0.0),
         "rope_parameters": {"rope_parameters.rope_theta": 10000.0}}, SHARP),
    Variant(
        "mistral", "mistral", "Mistral 7B v0.1: a sliding window in every layer", 3,
        config("MistralForCausalLM", "mistral", bos_token_id=1, eos_token_id=2, hidden_act="silu", rms_norm_eps=1e-5,
               rope_theta=10000.0, sliding_window=32, tie_word_embeddings=False),
        {"window": {"sliding_window": None}, "window of one more": {"sliding_window": 33}},
        SHARP, {"sliding_window": None}, "the architecture llama has no window in GGUF"),
    Variant(
        "mistral-nemo", "mistral", "Mistral Nemo: heads wider than hidden / heads, no window", 4,
        config("MistralForCausalLM", "mistral", attention_dropout=0.0, bos_token_id=1, eos_token_id=2, head_dim=32,
               hidden_act="silu", rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None,
               tie_word_embeddings=False),
        {"rope_theta": {"rope_theta": 10000.0}}, SHARP),
    Variant(
        "qwen2", "qwen2", "Qwen2.5 0.5B: biases of q, k and v, a window that is not used, tied", 13,
        config("Qwen2ForCausalLM", "qwen2", attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
               max_window_layers=1, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=32,
               tie_word_embeddings=True, use_sliding_window=False),
        {"q bias": without_tensors(r"q_proj\.bias", 0.0), "k bias": without_tensors(r"k_proj\.bias", 0.0),
         "v bias": without_tensors(r"v_proj\.bias", 0.0), "window if it were used": {"use_sliding_window": True},
         "tied": without_tie}, SHARP),
    Variant(
        "qwen2-window", "qwen2", "Qwen2 with use_sliding_window: from layer max_window_layers on", 8,
        config("Qwen2ForCausalLM", "qwen2", attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
               max_window_layers=2, num_hidden_layers=3, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=32,
               tie_word_embeddings=False, use_sliding_window=True),
        {"window": {"use_sliding_window": False}, "window of one more": {"sliding_window": 33},
         "max_window_layers": {"max_window_layers": 0}}, SHARP,
        {"use_sliding_window": False}, "the architecture qwen2 has no window in GGUF"),
    Variant(
        "qwen3", "qwen3", "Qwen3 0.6B: norms of each head's q and k, heads wider than hidden / heads, tied", 3,
        config("Qwen3ForCausalLM", "qwen3", attention_bias=False, attention_dropout=0.0, bos_token_id=1,
               eos_token_id=2, head_dim=32, hidden_act="silu", max_window_layers=2, rms_norm_eps=1e-6,
               rope_scaling=None, rope_theta=1000000, sliding_window=None, tie_word_embeddings=True,
               use_sliding_window=False),
        {"q norm's gains": without_tensors(r"q_norm", 2.0), "k norm's gains": without_tensors(r"k_norm", 2.0),
         "tied": without_tie}, SHARP_NORMS),
    Variant(
        "qwen3-yarn", "qwen3", "Qwen3 with yarn, as its model card has it, and biases", 3,
        config("Qwen3ForCausalLM", "qwen3", attention_bias=True, attention_dropout=0.0, bos_token_id=1,
               eos_token_id=2, head_dim=16, hidden_act="silu", max_window_layers=2, max_position_embeddings=128,
               rms_norm_eps=1e-6, rope_theta=1000000, sliding_window=None, tie_word_embeddings=False,
               rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32, "rope_type": "yarn"},
               use_sliding_window=False),
        {"rope scaling": {"rope_scaling": None}, "biases": without_tensors(r"(q|k|v|o)_proj\.bias", 0.0)},
        SHARP_NORMS),
    Variant(
        "olmo2", "olmo2", "OLMo 2: norms behind attention and MLP only, q and k norms over the whole width", 9,
        config("Olmo2ForCausalLM", "olmo2", attention_bias=False, attention_dropout=0.0, eos_token_id=2,
               hidden_act="silu", pad_token_id=1, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=500000,
               tie_word_embeddings=False),
        {"q norm's gains": without_tensors(r"q_norm", 2.0), "k norm's gains": without_tensors(r"k_norm", 2.0),
         "gains behind the attention": without_tensors(r"post_attention_layernorm", 1.0),
         "gains behind the MLP": without_tensors(r"post_feedforward_layernorm", 1.0)}, SHARP_NORMS),
    Variant(
        "granite", "granite", "Granite 3: the four multipliers, tied", 2,
        config("GraniteForCausalLM", "granite", attention_bias=False, attention_dropout=0.1, attention_multiplier=0.125,
               bos_token_id=1, embedding_multiplier=2.0, eos_token_id=1, hidden_act="silu", logits_scaling=0.5,
               mlp_bias=False, num_hidden_layers=3, pad_token_id=1, residual_multiplier=0.75, rms_norm_eps=1e-5,
               rope_scaling=None, rope_theta=5000000.0, tie_word_embeddings=True),
        {"attention_multiplier": {"attention_multiplier": 0.25}, "embedding_multiplier": {"embedding_multiplier": None},
         "residual_multiplier": {"residual_multiplier": None}, "logits_scaling": {"logits_scaling": None}}, SHARP),
    Variant(
        "phi3", "phi3", "Phi-3 mini 4k: fused qkv_proj and gate_up_proj, a window in every layer, untied", 20,
        phi3(num_key_value_heads=4, original_max_position_embeddings=256, rope_scaling=None, sliding_window=32,
             tie_word_embeddings=False),
        {"window": {"sliding_window": None}, "window of one more": {"sliding_window": 33}}, (("qkv_proj", 1.5),)),
    Variant(
        "phi3-long", "phi3", "Phi-3 mini 128k: longrope beyond the original length, so its long factors", 7,
        phi3(num_key_value_heads=4, original_max_position_embeddings=32, sliding_window=262144,
             rope_scaling={"long_factor": factors(1.05, 24.0, 8), "short_factor": factors(1.0, 3.0, 8),
                           "type": "longrope"}, tie_word_embeddings=False),
        {"long factors": {"rope_scaling.long_factor": factors(1.0, 3.0, 8)},
         "factor on queries and keys": {"rope_scaling.attention_factor": 1.0}}, (("qkv_proj", 1.5),)),
    Variant(
        "phi3-short", "phi3", "Phi-3 mini 128k: longrope within the original length, so its short factors", 6,
        phi3(num_key_value_heads=4, max_position_embeddings=2048, original_max_position_embeddings=128,
             sliding_window=262144,
             rope_scaling={"long_factor": factors(1.05, 24.0, 8), "short_factor": factors(1.0, 3.0, 8),
                           "type": "longrope"}, tie_word_embeddings=False),
        {"short factors": {"rope_scaling.short_factor": factors(1.05, 24.0, 8)},
         "factor on queries and keys": {"rope_scaling.attention_factor": 1.0}}, (("qkv_proj", 1.5),)),
    Variant(
        "phi4-mini", "phi3", "Phi-4 mini: rope of three quarters of a head, longrope, GQA, tied", 4,
        phi3(full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False,
             original_max_position_embeddings=32, partial_rotary_factor=0.75, sliding_window=262144,
             rope_scaling={"long_factor": factors(1.0, 12.0, 6), "short_factor": factors(1.0, 2.0, 6),
                           "type": "longrope"}, tie_word_embeddings=True),
        {"long factors": {"rope_scaling.long_factor": factors(1.0, 2.0, 6)},
         "partial_rotary_factor": {"partial_rotary_factor": 0.5, "rope_scaling.long_factor": factors(1.0, 12.0, 4),
                                   "rope_scaling.short_factor": factors(1.0, 2.0, 4)},
         "factor on queries and keys": {"rope_scaling.attention_factor": 1.0}, "tied": without_tie},
        (("qkv_proj", 1.5),)),
    Variant(
        "smollm3", "smollm3", "SmolLM3: no rope in every fourth layer, tied by default", 6,
        smollm3(layer_types=["full_attention"] * 4, no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0]),
        {"layers without rope": {"no_rope_layers": [1, 1, 1, 1]}, "another layer": {"no_rope_layers": [0, 1, 1, 1]},
         "tied": without_tie}, SHARP),
    Variant(
        "smollm3-interval", "smollm3", "SmolLM3 with no_rope_layer_interval alone, untied", 22,
        smollm3(no_rope_layer_interval=2, tie_word_embeddings=False),
        {"no_rope_layer_interval": {"no_rope_layer_interval": None}}, SHARP,
        {"no_rope_layer_interval": 4}, "GGUF has no key for the layers without rope: every fourth is read"),
    Variant(
        "gemma2", "gemma2", "Gemma 2: sandwich norms, both soft caps, windows in even layers, heads of 32", 31,
        gemma2(num_hidden_layers=4), GEMMA2_OFF, SHARP + LOUD),
    Variant(
        "gemma2-wide", "gemma2", "Gemma 2 with heads of 256, four times the hidden width", 12,
        gemma2(head_dim=256, num_attention_heads=2, num_hidden_layers=3, num_key_value_heads=1,
               query_pre_attn_scalar=256),
        {**GEMMA2_OFF, "query_pre_attn_scalar": {"query_pre_attn_scalar": 64},
         "windows in the other layers": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}},
        SHARP + LOUD),
    Variant(
        "gemma2-scalar", "gemma2", "Gemma 2 27B: query_pre_attn_scalar is hidden / heads, not the head's width", 3,
        gemma2(num_hidden_layers=3, query_pre_attn_scalar=16),
        {"query_pre_attn_scalar": {"query_pre_attn_scalar": 32}}, SHARP + LOUD,
        {"query_pre_attn_scalar": 32}, "GGUF has no key for query_pre_attn_scalar: the head's width is read"),
    Variant(
        "gemma3", "gemma3", "Gemma 3: five local layers and a global one, two ropes, the global one linear", 29,
        gemma3(rope_local_base_freq=10000, rope_scaling={"factor": 8.0, "rope_type": "linear"}, rope_theta=1000000,
               sliding_window_pattern=6),
        {**GEMMA3_OFF, "rope scaling": {"rope_scaling": None}, "rope_theta": {"rope_theta": 10000},
         "rope_local_base_freq": {"rope_local_base_freq": 1000000},
         "sliding_window_pattern": {"sliding_window_pattern": 7}}, SHARP_NORMS + LOUD),
    Variant(
        "gemma3-layers", "gemma3", "Gemma 3 in the new spelling: layer_types and rope_parameters by layer type", 6,
        gemma3(num_hidden_layers=4, layer_types=[
            "sliding_attention", "full_attention", "full_attention", "sliding_attention"],
            rope_parameters={"full_attention": {"factor": 8.0, "rope_theta": 1000000.0, "rope_type": "linear"},
                             "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}),
        {"layer_types": {"layer_types": None}, "query_pre_attn_scalar": {"query_pre_attn_scalar": 8},
         "rope scaling": {"rope_parameters.full_attention.factor": 1.0},
         "rope of the local layers": {"rope_parameters.sliding_attention.rope_theta": 1000000.0}}, SHARP_NORMS + LOUD,
        {"layer_types": None}, "GGUF has no key for the layers' types here: every sixth layer is global"),
    Variant(
        "gemma3-nested", "gemma3", "Gemma 3 4B: text_config with most fields absent, tensors with a prefix", 27,
        {"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 90, "eoi_token_index": 91,
         "eos_token_id": [1, 106], "image_token_index": 92, "initializer_range": 0.02, "mm_tokens_per_image": 256,
         "model_type": "gemma3",
         "text_config": {"hidden_size": 64, "intermediate_size": 96, "model_type": "gemma3_text",
                         "num_hidden_layers": 7, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                         "sliding_window": 32, "vocab_size": 128},
         "torch_dtype": "bfloat16",
         "vision_config": {"hidden_size": 32, "image_size": 28, "intermediate_size": 64,
                           "model_type": "siglip_vision_model", "num_attention_heads": 2, "num_hidden_layers": 1,
                           "patch_size": 14, "vision_use_head": False}},
        {"window": {"text_config.sliding_window": 4096}, "rope scaling": {"text_config.rope_scaling": None},
         "rope_theta's default": {"text_config.rope_theta": 10000.0},
         "pattern's default": {"text_config.sliding_window_pattern": 7},
         "gains of 1 + w": GEMMA_GAINS}, SHARP_NORMS + LOUD, prefix="language_model."),
    Variant(
        "falcon3", "falcon3", "Falcon 3: a Llama with wide heads and its own rope_theta, untied", 26,
        llama(attention_bias=False, attention_dropout=0.0, bos_token_id=None, eos_token_id=11, head_dim=32,
              hidden_size=128, mlp_bias=False, num_hidden_layers=3, rms_norm_eps=1e-6, rope_scaling=None,
              rope_theta=1000042, tie_word_embeddings=False),
        {"rope_theta": {"rope_theta": 10000.0}}, SHARP),
]


# --- Models ------------------------------------------------------------------------------------------------------


def changed(config_json, changes):
    """A config with some keys changed, removed where the value is None; dots lead into objects."""
    result = copy.deepcopy(config_json)
    for path, value in changes.items():
        *folders, key = path.split(".")
        place = result
        for folder in folders:
            place = place[folder]
        if value is None and key not in ("rope_scaling", "sliding_window", "attn_logit_softcapping",
                                         "final_logit_softcapping"):
            place.pop(key, None)
        else:
            place[key] = value  # null where repositories have null, too
    return result


def read_config(config_json):
    """The config as transformers reads it from a folder; the text part of a multimodal one."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config_json))
        return transformers.AutoConfig.from_pretrained(folder).get_text_config()


def amplitude_of(shape):
    """So that a row's product with an input of unit variance has unit variance."""
    return np.sqrt(np.float32(3.0) / np.float32(shape[-1]), dtype=np.float32)


def distribution(variant, name, shape):
    if name.endswith(".bias"):
        return 0.0, 0.5
    factor = next((factor for pattern, factor in variant.scales if pattern in name), 1.0)
    if len(shape) == 1:
        return factor - (1.0 if variant.is_gemma else 0.0), 0.125 * factor
    return 0.0, float(amplitude_of(shape) * np.float32(factor))


def tensors_of(variant, model, tied):
    """Names as the files have them, shapes and distributions, in the model's order."""
    tensors = []
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        shape = list(tensor.shape)
        tensors.append((variant.prefix + name, shape, *distribution(variant, name, shape)))
    return tensors


def build(variant, config_json, seed):
    text_config = read_config(config_json)
    text_config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(text_config, attn_implementation="eager",
                                                          dtype=torch.float32).eval()
    assert model.config._attn_implementation == "eager"
    state = model.state_dict()
    tensors = tensors_of(variant, model, text_config.tie_word_embeddings)
    with torch.no_grad():
        for name, shape, mean, amplitude in tensors:
            values = torch.from_numpy(make_tensor(seed, name, shape, mean, amplitude))
            state[name.removeprefix(variant.prefix)].copy_(values)
    model.tie_weights()
    return model, tensors


def prompt_of(seed, vocabulary):
    return [int(output % vocabulary) for output in Stream.of_tensor(seed, "prompt").outputs(PROMPT_TOKENS)]


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def short(value):
    """The shortest decimal that is this float32."""
    return float(str(np.float32(value)))


def top(logits):
    order = np.argsort(-logits, kind="stable")[:TOP]
    return [[int(token), short(logits[token])] for token in order]


def greedy(model, prompt):
    """Without a cache: each step computes the whole sequence, as if it were a prompt."""
    tokens, margins = list(prompt), []
    for _ in range(GREEDY_TOKENS):
        last = logits_of(model, tokens)[-1]
        order = np.argsort(-last, kind="stable")
        margins.append(round(float(last[order[0]] - last[order[1]]), 5))
        tokens.append(int(order[0]))
    return tokens[len(prompt):], margins


def results(model, prompt):
    logits = logits_of(model, prompt)
    tokens, margins = greedy(model, prompt)
    return {"last": top(logits[-1]), "position_50": top(logits[50]), "greedy": tokens, "greedy_margins": margins}


def distances(variant, model, prompt, seed):
    """How far the top-20 logits of the last position move without each feature."""
    logits = logits_of(model, prompt)[-1]
    ids = [token for token, _ in top(logits)]
    moved = {}
    for feature, off in variant.off.items():
        other, _ = build(variant, changed(variant.config, off) if isinstance(off, dict) else variant.config, seed)
        if callable(off):
            off(other)
        difference = np.abs(logits_of(other, prompt)[-1][ids] - logits[ids]).max()
        moved[feature] = round(float(difference), 4)
    return moved


# --- GGUF --------------------------------------------------------------------------------------------------------

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3, "olmo2": gguf.MODEL_ARCH.OLMO2, "granite": gguf.MODEL_ARCH.GRANITE,
    "phi3": gguf.MODEL_ARCH.PHI3, "smollm3": gguf.MODEL_ARCH.SMOLLM3, "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
# Whose files have the rows of q and k in the order of rope over neighbours.
PERMUTED = ("llama", "granite", "smollm3")


def gguf_metadata(variant, text_config):
    """The keys that llama.cpp's converter writes, without the tokenizer's: integers are uint32, others float32.

    It reads the config through transformers, so that absent fields have the defaults that transformers gives them.
    """
    fields = text_config.to_dict()
    arch = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[text_config.model_type]]
    keys, rope_keys = gguf.Keys, gguf.Keys.Rope
    heads, hidden = fields["num_attention_heads"], fields["hidden_size"]
    head_dim = None if arch == "granite" else fields.get("head_dim")
    metadata = {
        keys.General.ARCHITECTURE: arch,
        keys.General.TYPE: "model",
        keys.General.NAME: variant.name,
        keys.General.FILE_TYPE: int(gguf.LlamaFileType.MOSTLY_BF16),
        keys.General.QUANTIZATION_VERSION: gguf.GGML_QUANT_VERSION,
        keys.LLM.BLOCK_COUNT: fields["num_hidden_layers"],
        keys.LLM.CONTEXT_LENGTH: fields["max_position_embeddings"],
        keys.LLM.EMBEDDING_LENGTH: hidden,
        keys.LLM.FEED_FORWARD_LENGTH: fields["intermediate_size"],
        keys.Attention.HEAD_COUNT: heads,
        keys.Attention.HEAD_COUNT_KV: fields["num_key_value_heads"],
        keys.Attention.LAYERNORM_RMS_EPS: float(fields["rms_norm_eps"]),
    }
    ropes = fields["rope_parameters"]
    rope = ropes.get("full_attention", ropes)
    if arch not in ("gemma2", "phi3"):  # neither has what all others share
        if rope["rope_type"] in ("linear", "yarn"):
            metadata[rope_keys.SCALING_TYPE] = rope["rope_type"]
            metadata[rope_keys.SCALING_FACTOR] = float(rope["factor"])
        if rope["rope_type"] == "yarn":
            metadata[rope_keys.SCALING_ORIG_CTX_LEN] = rope["original_max_position_embeddings"]
            for field, key in (("attention_factor", rope_keys.SCALING_YARN_ATTN_FACTOR),
                               ("beta_fast", rope_keys.SCALING_YARN_BETA_FAST),
                               ("beta_slow", rope_keys.SCALING_YARN_BETA_SLOW)):
                if rope.get(field) is not None:
                    metadata[key] = float(rope[field])
        metadata[rope_keys.FREQ_BASE] = float(rope["rope_theta"])
    if "sliding_attention" in ropes:
        metadata[rope_keys.FREQ_BASE_SWA] = float(ropes["sliding_attention"]["rope_theta"])
    if head_dim is not None and arch != "phi3":
        metadata[keys.Attention.KEY_LENGTH] = head_dim
        metadata[keys.Attention.VALUE_LENGTH] = head_dim
    if arch in PERMUTED:
        metadata[keys.LLM.VOCAB_SIZE] = fields["vocab_size"]
        metadata[rope_keys.DIMENSION_COUNT] = head_dim or hidden // heads
    if arch == "granite":
        metadata[keys.Attention.SCALE] = float(fields["attention_multiplier"])
        metadata[keys.LLM.EMBEDDING_SCALE] = float(fields["embedding_multiplier"])
        metadata[keys.LLM.RESIDUAL_SCALE] = float(fields["residual_multiplier"])
        metadata[keys.LLM.LOGIT_SCALE] = float(fields["logits_scaling"])
    if arch == "gemma2":
        metadata[keys.LLM.ATTN_LOGIT_SOFTCAPPING] = float(fields["attn_logit_softcapping"])
        metadata[keys.LLM.FINAL_LOGIT_SOFTCAPPING] = float(fields["final_logit_softcapping"])
    if arch in ("gemma2", "gemma3"):
        metadata[keys.Attention.SLIDING_WINDOW] = fields["sliding_window"]
    if arch == "phi3":
        original = fields["original_max_position_embeddings"]
        metadata[rope_keys.SCALING_ORIG_CTX_LEN] = original
        metadata[rope_keys.DIMENSION_COUNT] = int(rope["partial_rotary_factor"] * hidden) // heads
        metadata[rope_keys.FREQ_BASE] = float(rope["rope_theta"])
        metadata[keys.Attention.SLIDING_WINDOW] = fields["sliding_window"] or 0
        if rope.get("long_factor"):
            scale = fields["max_position_embeddings"] / original
            attention = np.sqrt(1 + np.log(scale) / np.log(original)) if scale > 1 else 1.0
            metadata[rope_keys.SCALING_ATTN_FACTOR] = float(attention)
    return {key.format(arch=arch): value for key, value in metadata.items()}


def llama3_factors(rope, head_dim):
    """What llama3 divides each frequency by, as llama.cpp's converter has it in rope_freqs.weight."""
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    result = []
    for frequency in 1.0 / np.float32(rope["rope_theta"]) ** exponents:
        wavelength = 2 * np.pi / float(frequency)
        smooth = (original / wavelength - low) / (high - low)
        result.append(factor if smooth < 0 else 1.0 if smooth > 1 else 1 / ((1 - smooth) / factor + smooth))
    return result


def check_rope(model):
    """The factors that GGUF has are those that the model uses."""
    rotary, ropes = model.model.rotary_emb, model.config.rope_parameters
    if ropes.get("rope_type") not in ("llama3", "longrope"):
        return
    dimensions = 2 * len(rotary.inv_freq)
    frequencies = ropes["rope_theta"] ** (-np.arange(0, dimensions, 2) / dimensions)
    if ropes["rope_type"] == "llama3":
        divisors = llama3_factors(ropes, dimensions)
    else:
        is_long = PROMPT_TOKENS > ropes["original_max_position_embeddings"]
        divisors = ropes["long_factor" if is_long else "short_factor"]
        scale = model.config.max_position_embeddings / ropes["original_max_position_embeddings"]
        expected = np.sqrt(1 + np.log(scale) / np.log(ropes["original_max_position_embeddings"]))
        assert abs(rotary.attention_scaling - expected) < 1e-6
    assert np.allclose(frequencies / np.array(divisors), rotary.inv_freq.numpy(), rtol=1e-5, atol=0)


def gguf_tensors(variant, text_config, tensors):
    """The names in GGUF, and what becomes of the values on the way there."""
    arch = ARCHITECTURES[text_config.model_type]
    names = gguf.get_tensor_name_map(arch, text_config.num_hidden_layers)
    heads = {"q_proj": text_config.num_attention_heads, "k_proj": text_config.num_key_value_heads}
    result = []
    for name, shape, _, _ in tensors:
        plain = name.removeprefix(variant.prefix)
        entry = {"name": names.get_name(plain, (".weight", ".bias")), "hf": name, "transform": "none"}
        projection = plain.split(".")[-2]
        if gguf.MODEL_ARCH_NAMES[arch] in PERMUTED and projection in heads:
            entry |= {"transform": "permute", "heads": heads[projection]}
        elif variant.is_gemma and plain.endswith("norm.weight"):
            entry["transform"] = "plus_one"
        assert entry["name"], f"{plain} has no name in GGUF"
        result.append(entry | {"shape": shape, "type": "F32" if len(shape) == 1 else "BF16"})
    rope = text_config.rope_parameters
    generated = {}
    if rope.get("rope_type") == "llama3":
        head_dim = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
        generated["rope_freqs.weight"] = ("rope_factors_llama3", llama3_factors(rope, head_dim))
    if rope.get("rope_type") == "longrope":
        generated["rope_factors_long.weight"] = ("rope_factors_long", rope["long_factor"])
        generated["rope_factors_short.weight"] = ("rope_factors_short", rope["short_factor"])
    for name, (transform, values) in generated.items():
        values = [short(value) for value in values]
        result.append({"name": name, "hf": None, "transform": transform, "shape": [len(values)], "type": "F32",
                       "values": values})
    return result


def transformed(entry, values):
    """The values of a tensor in GGUF."""
    if entry["transform"] == "permute":
        halves = values.reshape(entry["heads"], 2, -1, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    if entry["transform"] == "plus_one":
        return values + np.float32(1.0)
    return values


def check_gguf(variant, fixture):
    """Writes the GGUF file that a fixture describes and lets transformers find the model's own tensors in it."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES, load_gguf_checkpoint

    model, _ = build(variant, variant.config, variant.seed)
    metadata = fixture["gguf"]["metadata"]
    arch = metadata["general.architecture"]
    if arch == "llama":
        model.config.model_type = arch  # a Mistral is a Llama there
    tensors = expanded(fixture["gguf"]["tensors"], fixture["layers"])
    written = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, arch)
        for key, value in metadata.items():
            if key != "general.architecture":
                add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
                add(key, value if key != gguf.Keys.General.NAME else "model")  # some names are read as architectures
        distributions = {entry["name"]: entry for entry in expanded(fixture["tensors"], fixture["layers"])}
        for entry in tensors:
            if "values" in entry:
                values = np.array(entry["values"], dtype=np.float32)
            else:
                of = distributions[entry["hf"]]
                values = make_tensor(fixture["seed"], of["name"], of["shape"], of["mean"], of["amplitude"])
            values = transformed(entry, values)
            kind = gguf.GGMLQuantizationType[entry["type"]]
            writer.add_tensor(entry["name"], gguf.quants.quantize(values, kind), raw_dtype=kind)
            written[entry["name"]] = values
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if arch not in GGUF_SUPPORTED_ARCHITECTURES:
            return "not read by transformers"
        found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    expected = {name: tensor for name, tensor in model.state_dict().items()
                if variant.prefix + name in distributions}
    missing = set(expected) - set(found)
    assert not missing, missing
    for name, tensor in expected.items():
        difference = np.abs(tensor.numpy() - np.asarray(found[name], dtype=np.float32)).max()
        assert difference <= 1e-7, f"{name} differs by {difference}"
    return f"transformers reads {len(expected)} tensors alike"


# --- Fixtures ----------------------------------------------------------------------------------------------------


def compact(entries, keys):
    """Entries that differ in their layer only become one, with {layer} in its names."""
    result = []
    for entry in entries:
        for key in keys:
            if isinstance(entry[key], str):
                entry = {**entry, key: re.sub(r"(layers|blk)\.\d+\.", r"\1.{layer}.", entry[key])}
        if entry not in result:
            result.append(entry)
    return result


def expanded(entries, layers):
    """The inverse of `compact`, as a reader does it."""
    result = []
    for entry in entries:
        per_layer = "{layer}" in entry["name"]
        for layer in range(layers if per_layer else 1):
            result.append({key: value.replace("{layer}", str(layer)) if isinstance(value, str) else value
                           for key, value in entry.items()})
    return result


def make_fixture(variant):
    model, tensors = build(variant, variant.config, variant.seed)
    text_config = model.config
    prompt = prompt_of(variant.seed, text_config.vocab_size)
    entries = [dict(zip(("name", "shape", "mean", "amplitude"), tensor)) for tensor in tensors]
    described = compact(entries, ("name",))
    layers = text_config.num_hidden_layers
    key = lambda entry: entry["name"]
    assert sorted(expanded(described, layers), key=key) == sorted(entries, key=key), "the layers are not alike"
    moved, in_bfloat16 = distances(variant, model, prompt, variant.seed), round(rounding(model, prompt), 4)
    print(f"{variant.name}: in bfloat16 the logits move by {in_bfloat16}")
    for feature, distance in moved.items():
        print(f"  without {feature}: {distance}")
        assert distance >= MOVES_MIN, f"{variant.name} does not show {feature}"
    check_rope(model)
    container = {
        "metadata": gguf_metadata(variant, text_config),
        "tensors": compact(gguf_tensors(variant, text_config, tensors), ("name", "hf")),
    }
    if variant.gguf_off is not None:
        other, _ = build(variant, changed(variant.config, variant.gguf_off), variant.seed)
        container |= {"differs": variant.gguf_note, "expect": results(other, prompt)}
        difference = np.abs(logits_of(other, prompt)[-1] - logits_of(model, prompt)[-1]).max()
        print(f"  as GGUF has it: {difference:.4f}")
        assert difference >= MOVES_MIN
    return {
        "variant": variant.name,
        "family": variant.family,
        "about": variant.about,
        "made_with": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
                      "gguf": "0.19.0"},
        "seed": variant.seed,
        "config": variant.config,
        "layers": layers,
        "tensors": described,
        "prompt": prompt,
        "expect": results(model, prompt),
        "moves_without": moved,
        "moves_in_bfloat16": in_bfloat16,
        "gguf": container,
    }


def written(value, indent=0):
    """JSON, with everything that fits on a line of 160 columns on one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent < 160 or not isinstance(value, (dict, list)):
        return line
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {written(item, indent + 1)}" for key, item in value.items()]
    elif all(isinstance(item, int) for item in value):
        items = [", ".join(map(str, value[at:at + 24])) for at in range(0, len(value), 24)]
    elif all(isinstance(item, list) and len(item) == 2 for item in value):
        items = [", ".join(map(json.dumps, value[at:at + 5])) for at in range(0, len(value), 5)]
    else:
        items = [written(item, indent + 1) for item in value]
    brackets = "{}" if isinstance(value, dict) else "[]"
    return brackets[0] + "\n" + pad + (",\n" + pad).join(items) + "\n" + " " * indent + brackets[1]


# --- The program -------------------------------------------------------------------------------------------------


def rounding(model, prompt):
    """How far the top-20 logits of the last position move where the model computes in bfloat16."""
    logits = logits_of(model, prompt)[-1]
    ids = [token for token, _ in top(logits)]
    rounded = logits_of(copy.deepcopy(model).to(torch.bfloat16), prompt)[-1]
    return float(np.abs(rounded[ids] - logits[ids]).max())


def search_seeds(variant, count):
    """The seeds of the largest smallest margin, and what else is to be known of them."""
    found = []
    for seed in range(1, count + 1):
        model, _ = build(variant, variant.config, seed)
        prompt = prompt_of(seed, model.config.vocab_size)
        tokens, margins = greedy(model, prompt)
        found.append((min(margins), seed, len(set(tokens)), rounding(model, prompt)))
    for margin, seed, distinct, moves in sorted(found, key=lambda one: (min(one[2], 8), one[0]), reverse=True)[:4]:
        model, _ = build(variant, variant.config, seed)
        moved = distances(variant, model, prompt_of(seed, model.config.vocab_size), seed)
        worst = min(moved, key=moved.get)
        print(f"{variant.name} seed {seed}: margin {margin:.4f}, {distinct} tokens, bfloat16 {moves:.3f}, "
              f"{worst} {moved[worst]}", flush=True)


def main():
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    check_stream()
    arguments = sys.argv[1:]
    count = int(arguments.pop(arguments.index("--search") + 1)) if "--search" in arguments else 0
    names = [argument for argument in arguments if not argument.startswith("--")]
    variants = [variant for variant in VARIANTS if not names or variant.name in names or variant.family in names]
    for variant in variants:
        if count:
            search_seeds(variant, count)
            continue
        fixture = make_fixture(variant)
        text = written(fixture) + "\n"
        assert json.loads(text) == fixture
        assert len(text.encode()) <= FIXTURE_BYTES_MAX, f"{variant.name}: {len(text.encode())} bytes"
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{variant.name}.json").write_text(text)
        print(f"  {len(text.encode())} bytes; as GGUF: {check_gguf(variant, fixture)}", flush=True)


if __name__ == "__main__":
    main()
