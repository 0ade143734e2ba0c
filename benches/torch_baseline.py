#!/usr/bin/env python3
"""The decode step of a Llama-like model in PyTorch, captured in a CUDA graph: what vitrum's is compared with.

It needs PyTorch (2.5 or newer) and nothing else. Side by side on a machine with a GPU, from the repository's root:

    for model in smollm2-135m llama-3.2-1b llama-3.1-8b; do
        target/release/vitrum bench latency benches/configs/$model.json --load-format dummy --device cuda \\
            --batch-size 8 --input-len 512 --output-len 128 --output-json vitrum-$model.json
        python3 benches/torch_baseline.py benches/configs/$model.json --batch 8 --context 576
    done

--context is the number of positions that a step sees: vitrum's grows while it generates, and 512 + 128 / 2 is its mean.
Compare `decode.step_ms_median` and `decode.gb_s` of vitrum's file with `ms_per_step` and `gb_s` here. Both have random
bf16 weights. They differ in what belongs to a step: vitrum's includes drawing the token, copying inputs and tokens and
the host's work around it; here it is the graph alone, up to the logits. vitrum keeps keys and values in f16, here they
are bf16: as many bytes.

A step: embedding; per layer RMS norm, one matmul for q, k and v, rotary embedding, a write into the preallocated KV
cache, F.scaled_dot_product_attention with grouped queries, output projection, RMS norm, one matmul for gate and up,
SiLU, down projection; norm and vocabulary projection. One JSON line per batch size.

`--device cpu` runs the same step without a graph: to see that the script works, not to measure. `--check` compares the
step with a computation of the whole sequence that has no cache and no fused matmuls.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time

torch = F = None  # imported when the arguments are known to be good

# The most that a logit may differ in --check, as a part of the largest one: sums have another order, and bf16 is
# rounded to 8 bits after every operation.
TOLERANCE = {"float32": 1e-4, "bfloat16": 4e-2}

# Fields of a config.json without which there is no shape.
NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "rms_norm_eps",
)


class Config:
    """The shape of a model: a Hugging Face config.json."""

    def __init__(self, path):
        try:
            fields = json.loads(pathlib.Path(path).read_text())
        except (OSError, ValueError) as error:
            raise SystemExit(f"{path}: not a readable JSON file: {error}")
        if not isinstance(fields, dict):
            raise SystemExit(f"{path}: has to be a JSON object")
        missing = [name for name in NEEDED if name not in fields]
        if missing:
            raise SystemExit(f"{path}: has no {', '.join(missing)}")
        if fields.get("architectures") != ["LlamaForCausalLM"]:
            raise SystemExit(f"{path}: architectures is {fields.get('architectures')}, and has to be LlamaForCausalLM")
        self.name = pathlib.Path(path).stem
        self.hidden = fields["hidden_size"]
        self.ffn = fields["intermediate_size"]
        self.layers = fields["num_hidden_layers"]
        self.heads = fields["num_attention_heads"]
        self.kv_heads = fields.get("num_key_value_heads", self.heads)
        self.head_dim = fields.get("head_dim") or self.hidden // self.heads
        self.vocab = fields["vocab_size"]
        self.eps = fields["rms_norm_eps"]
        self.theta = fields.get("rope_theta", 10000.0)
        self.scaling = fields.get("rope_scaling")
        self.tied = fields.get("tie_word_embeddings", False)
        if self.scaling is not None and self.scaling.get("rope_type") != "llama3":
            raise SystemExit(f"{path}: rope_scaling is {self.scaling}, and only llama3 is known here")


def rope_frequencies(config):
    """Radians per position of each pair, f64 on the host."""
    pair = torch.arange(config.head_dim // 2, dtype=torch.float64)
    frequency = config.theta ** (-2.0 * pair / config.head_dim)
    if config.scaling is None:
        return frequency
    factor, trained = config.scaling["factor"], config.scaling["original_max_position_embeddings"]
    low, high = config.scaling["low_freq_factor"], config.scaling["high_freq_factor"]
    wavelength = 2 * math.pi / frequency
    smooth = ((trained / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequency / factor + smooth * frequency


def rotate(x, cos, sin):
    """x: (batch, heads, rows, head_dim); cos and sin: (rows, head_dim), both halves alike."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Model:
    """Random weights, and the decode step for one batch size and context over them."""

    def __init__(self, config, device, dtype, seed=0):
        self.config, self.device, self.dtype = config, device, dtype
        generator = torch.Generator(device=device).manual_seed(seed)

        def matrix(rows, cols):
            # Standard deviation 1 / sqrt(cols): a product with an input of unit variance has unit variance.
            weight = torch.empty(rows, cols, device=device, dtype=dtype)
            return weight.normal_(0, cols**-0.5, generator=generator)

        def gains():
            return torch.empty(config.hidden, device=device, dtype=dtype).uniform_(0.8, 1.2, generator=generator)

        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.embedding = matrix(config.vocab, config.hidden)
        self.layers = [
            {
                "attn_norm": gains(),
                "qkv": matrix(q + 2 * kv, config.hidden),
                "out": matrix(config.hidden, q),
                "mlp_norm": gains(),
                "gate_up": matrix(2 * config.ffn, config.hidden),
                "down": matrix(config.hidden, config.ffn),
            }
            for _ in range(config.layers)
        ]
        self.norm = gains()
        self.lm_head = self.embedding if config.tied else matrix(config.vocab, config.hidden)

    def angles(self, positions):
        """cos and sin of positions: (len(positions), head_dim) each."""
        angle = positions.to(torch.float64).cpu()[:, None] * rope_frequencies(self.config)
        angle = torch.cat((angle, angle), dim=-1)
        return [table.to(self.device, self.dtype) for table in (angle.cos(), angle.sin())]

    def start(self, batch, context):
        """Fixed buffers of a step that sees `context` positions, its own token's the last of them."""
        config = self.config
        shape = (config.layers, batch, config.kv_heads, context, config.head_dim)
        self.keys = torch.zeros(shape, device=self.device, dtype=self.dtype)
        self.values = torch.zeros(shape, device=self.device, dtype=self.dtype)
        self.tokens = torch.zeros(batch, device=self.device, dtype=torch.long)
        self.position = torch.full((1,), context - 1, device=self.device, dtype=torch.long)
        self.cos, self.sin = self.angles(torch.arange(context))

    def attend(self, q, keys, values, is_causal=False):
        grouped = self.config.heads != self.config.kv_heads
        return F.scaled_dot_product_attention(q, keys, values, is_causal=is_causal, enable_gqa=grouped)

    def step(self):
        """One token of each sequence at `position`; logits (batch, vocab). Nothing is allocated that a graph cannot
        have, and no size depends on data."""
        config, batch = self.config, self.tokens.shape[0]
        cos, sin = self.cos.index_select(0, self.position), self.sin.index_select(0, self.position)
        heads = (config.heads, config.kv_heads, config.kv_heads)
        x = F.embedding(self.tokens, self.embedding)
        for number, layer in enumerate(self.layers):
            normed = F.rms_norm(x, (config.hidden,), layer["attn_norm"], config.eps)
            qkv = F.linear(normed, layer["qkv"]).view(batch, 1, sum(heads), config.head_dim).transpose(1, 2)
            q, k, v = qkv.split(heads, dim=1)
            keys, values = self.keys[number], self.values[number]
            keys.index_copy_(2, self.position, rotate(k, cos, sin))
            values.index_copy_(2, self.position, v)
            attended = self.attend(rotate(q, cos, sin), keys, values)
            x = x + F.linear(attended.transpose(1, 2).reshape(batch, -1), layer["out"])
            normed = F.rms_norm(x, (config.hidden,), layer["mlp_norm"], config.eps)
            gate, up = F.linear(normed, layer["gate_up"]).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer["down"])
        return F.linear(F.rms_norm(x, (config.hidden,), self.norm, config.eps), self.lm_head)

    def bytes_read(self, batch, context):
        """What a step reads at least: all matrices once, the embedding's rows of its tokens, norms, keys and values."""
        matrices = sum(weight.numel() for layer in self.layers for weight in layer.values())
        rows = batch * self.config.hidden
        kv = 2 * self.config.layers * batch * context * self.config.kv_heads * self.config.head_dim
        return (matrices + self.norm.numel() + self.lm_head.numel() + rows + kv) * self.dtype.itemsize


def plain_logits(model, tokens):
    """The last position's logits, from the whole sequences (batch, length) at once and in f32: no cache, no fused
    matmul, no function of F but the plainest."""
    config = model.config

    def norm(x, gain):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.eps) * gain.float()

    batch, length = tokens.shape
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rope_frequencies(config)
    turn = torch.polar(torch.ones_like(angle), angle).to(model.device)  # (length, pairs)
    q_rows, kv_rows = config.heads * config.head_dim, config.kv_heads * config.head_dim
    unseen = torch.ones(length, length, dtype=torch.bool, device=model.device).triu(1)
    x = model.embedding[tokens].float()
    for layer in model.layers:
        normed = norm(x, layer["attn_norm"])
        wq, wk, wv = (part.float() for part in layer["qkv"].split((q_rows, kv_rows, kv_rows)))

        def heads(weight, count, turned):
            made = (normed @ weight.T).view(batch, length, count, config.head_dim)
            if turned:  # pairs are (i, i + head_dim / 2)
                pairs = torch.complex(*made.double().chunk(2, dim=-1)) * turn[None, :, None, :]
                made = torch.cat((pairs.real, pairs.imag), dim=-1).float()
            return made

        q, k, v = heads(wq, config.heads, True), heads(wk, config.kv_heads, True), heads(wv, config.kv_heads, False)
        attended = torch.empty_like(q)
        for head in range(config.heads):
            shared = head // (config.heads // config.kv_heads)
            scores = q[:, :, head] @ k[:, :, shared].transpose(1, 2) / math.sqrt(config.head_dim)
            weights = scores.masked_fill(unseen, -math.inf).softmax(-1)
            attended[:, :, head] = weights @ v[:, :, shared]
        x = x + attended.reshape(batch, length, -1) @ layer["out"].float().T
        normed = norm(x, layer["mlp_norm"])
        gate, up = (part.float() for part in layer["gate_up"].chunk(2))
        gated = normed @ gate.T
        x = x + (gated * torch.sigmoid(gated) * (normed @ up.T)) @ layer["down"].float().T
    return norm(x[:, -1], model.norm) @ model.lm_head.float().T


def check(config, device, dtype, batch=3, length=9):
    """Feeds sequences token by token through the step, and compares the last logits with `plain_logits`."""
    model = Model(config, device, dtype)
    tokens = torch.randint(config.vocab, (batch, length), generator=torch.Generator().manual_seed(1)).to(device)
    # The step sees the whole cache, so each length has its own, with the keys and values so far.
    for position in range(length):
        so_far = None if position == 0 else (model.keys, model.values)
        model.start(batch, position + 1)
        if so_far is not None:
            model.keys[:, :, :, :position], model.values[:, :, :, :position] = so_far
        model.tokens.copy_(tokens[:, position])
        logits = model.step()
    expected = plain_logits(model, tokens)
    error = ((logits.float() - expected).abs().max() / expected.abs().max()).item()
    same = (logits.argmax(-1) == expected.argmax(-1)).tolist()
    name = str(dtype).removeprefix("torch.")
    is_right = error <= TOLERANCE[name]
    print(json.dumps({"check": config.name, "dtype": str(dtype), "largest_difference": error, "same_argmax": same,
                      "tolerance": TOLERANCE[name], "ok": is_right}))
    return is_right


def timed_cuda(model, replays):
    """Milliseconds of each replay of the step's graph, by events around it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.step()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(replays)]
    for _ in range(10):
        graph.replay()
    torch.cuda.synchronize()
    for begin, end in events:
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def timed_cpu(model, replays):
    """The same of the step itself, by the host's clock: there is no graph."""
    model.step()
    times_ms = []
    for _ in range(replays):
        begin = time.perf_counter()
        model.step()
        times_ms.append(1e3 * (time.perf_counter() - begin))
    return times_ms


def driver_version():
    """NVIDIA's driver, by its own tool; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def measure(model, batch, context, replays):
    """The line that is printed for a batch size."""
    model.start(batch, context)
    is_cuda = model.device.type == "cuda"
    times_ms = (timed_cuda if is_cuda else timed_cpu)(model, replays)
    ms, read = statistics.median(times_ms), model.bytes_read(batch, context)
    return {
        "model": model.config.name,
        "batch": batch,
        "context": context,
        "dtype": str(model.dtype).removeprefix("torch."),
        "ms_per_step": ms,
        "replays": replays,
        "bytes_read": read,
        "gb_s": read / (ms * 1e6),
        "cuda_graph": is_cuda,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if is_cuda else "cpu, without a graph",
        "driver": driver_version() if is_cuda else None,
    }


def numbers(text):
    return [int(number) for number in text.split(",")]


def import_torch():
    global torch, F
    try:
        import torch
        import torch.nn.functional as F
    except ImportError as error:
        raise SystemExit(f"PyTorch is needed: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config.json, as in benches/configs")
    parser.add_argument("--batch", type=numbers, default=[1, 8, 64], help="sequences of a step, as 8 or 1,8,64")
    parser.add_argument("--context", type=int, default=576, help="positions that a step sees")
    parser.add_argument("--replays", type=int, default=100, help="the median of so many is printed")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--check", action="store_true", help="compare the step with a plain computation, and end")
    args = parser.parse_args()
    if min(args.batch + [args.context, args.replays]) < 1:
        parser.error("--batch, --context and --replays have to be at least 1")
    config = Config(args.config)
    import_torch()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device; --device cpu tests the script")
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    with torch.inference_mode():
        if args.check:
            sys.exit(0 if check(config, device, dtype) else 1)
        if args.device == "cpu":
            print("on the CPU there is no CUDA graph: these times compare with nothing", file=sys.stderr)
        model = Model(config, device, dtype)
        for batch in args.batch:
            print(json.dumps(measure(model, batch, args.context, args.replays)), flush=True)


if __name__ == "__main__":
    main()
