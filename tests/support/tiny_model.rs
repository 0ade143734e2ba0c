//! Models of some kilobytes with every part that real ones have, for tests of everything above the kernels.

use std::path::PathBuf;

use vitrum::formats::WeightFormat;

use super::gguf_writer::GgufWriter;
use super::temp::TempDir;

/// A Llama of any shape, with random weights and a byte-level vocabulary.
#[derive(Clone, Debug)]
pub struct TinyModel {
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_position: usize,
    /// Format of the layers' matrices.
    pub format: WeightFormat,
    /// Gives every matrix a format of its own, drawn with this seed.
    pub formats_seed: Option<u64>,
    /// Format of the embedding and the vocabulary projection.
    pub embedding_format: WeightFormat,
    pub tied_embeddings: bool,
    /// Divides the rotary embedding's frequencies, one factor per pair.
    pub rope_factors: Option<Vec<f32>>,
    pub seed: u64,
}

impl Default for TinyModel {
    fn default() -> TinyModel {
        TinyModel {
            layers: 2,
            hidden: 64,
            ffn: 96,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            max_position: 512,
            format: WeightFormat::Q4_1,
            formats_seed: None,
            embedding_format: WeightFormat::Q8_0,
            tied_embeddings: true,
            rope_factors: None,
            seed: 1,
        }
    }
}

/// Tokens of the vocabulary: three control tokens, then one per byte, then some merges.
pub const CONTROL_TOKENS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
pub const END_OF_TURN: u32 = 2;

const MERGES: [&str; 8] = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "i n"];
const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] \
     + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

impl TinyModel {
    /// The model as a file under construction, to be changed or written.
    pub fn writer(&self) -> GgufWriter {
        let mut writer = GgufWriter::new();
        self.add_metadata(&mut writer);
        let tokens = add_tokenizer(&mut writer);
        self.add_tensors(&mut writer, tokens);
        writer
    }

    /// Writes the model into a folder.
    pub fn write(&self, folder: &TempDir) -> PathBuf {
        folder.write("tiny.gguf", self.writer().bytes())
    }

    fn add_metadata(&self, writer: &mut GgufWriter) {
        writer.set("general.architecture", "llama").set("general.name", "tiny");
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.max_position),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.ffn),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
        ];
        for (key, size) in sizes {
            writer.set(&format!("llama.{key}"), size as u32);
        }
        writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5);
        writer.set("llama.rope.freq_base", 10_000.0);
    }

    fn add_tensors(&self, writer: &mut GgufWriter, vocab: usize) {
        let mut random = Random(self.seed);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut formats = self.formats_seed.map(Random);
        let mut matrix = |writer: &mut GgufWriter, name: &str, format, rows: usize, cols: usize| {
            let scale = (3.0 / cols as f32).sqrt();
            let format = formats.as_mut().map_or(format, |random| any_format(random, cols));
            let values: Vec<f32> = (0..rows * cols).map(|_| scale * random.next()).collect();
            writer.tensor(name, format, rows, &values);
        };
        matrix(writer, "token_embd.weight", self.embedding_format, vocab, self.hidden);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            self.add_norm(writer, &name("attn_norm"));
            matrix(writer, &name("attn_q"), self.format, q, self.hidden);
            matrix(writer, &name("attn_k"), self.format, kv, self.hidden);
            matrix(writer, &name("attn_v"), self.format, kv, self.hidden);
            matrix(writer, &name("attn_output"), self.format, self.hidden, q);
            self.add_norm(writer, &name("ffn_norm"));
            matrix(writer, &name("ffn_gate"), self.format, self.ffn, self.hidden);
            matrix(writer, &name("ffn_up"), self.format, self.ffn, self.hidden);
            matrix(writer, &name("ffn_down"), self.format, self.hidden, self.ffn);
        }
        self.add_norm(writer, "output_norm.weight");
        if !self.tied_embeddings {
            matrix(writer, "output.weight", self.embedding_format, vocab, self.hidden);
        }
        if let Some(factors) = &self.rope_factors {
            writer.tensor("rope_freqs.weight", WeightFormat::F32, 1, factors);
        }
    }

    fn add_norm(&self, writer: &mut GgufWriter, name: &str) {
        // Gains that differ, so that a norm that is left out or misplaced changes the result.
        let values: Vec<f32> = (0..self.hidden).map(|i| 1.0 + 0.25 * (i as f32 * 0.7).sin()).collect();
        writer.tensor(name, WeightFormat::F32, 1, &values);
    }
}

/// Returns the number of tokens.
fn add_tokenizer(writer: &mut GgufWriter) -> usize {
    let mut tokens: Vec<String> = CONTROL_TOKENS.map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| byte_letter(byte).to_string()));
    tokens.extend(MERGES.map(|merge| merge.replace(' ', "")));
    let kinds: Vec<i32> = (0..tokens.len()).map(|id| if id < CONTROL_TOKENS.len() { 3 } else { 1 }).collect();
    let vocab = tokens.len();
    writer.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "gpt-2");
    writer.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", kinds);
    writer.set("tokenizer.ggml.merges", MERGES.map(str::to_owned).to_vec());
    writer.set("tokenizer.ggml.bos_token_id", 1u32).set("tokenizer.ggml.eos_token_id", END_OF_TURN);
    writer.set("tokenizer.ggml.add_bos_token", false);
    writer.set("tokenizer.chat_template", TEMPLATE);
    vocab
}

/// The letter that stands for a byte in a byte-level vocabulary.
fn byte_letter(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if is_itself(byte) {
        return char::from(byte);
    }
    let others_before = (0..byte).filter(|other| !is_itself(*other)).count() as u32;
    char::from_u32(256 + others_before).expect("a letter between U+0100 and U+0143")
}

/// A format that rows of so many values can have.
fn any_format(random: &mut Random, cols: usize) -> WeightFormat {
    use WeightFormat::*;
    let known = if cols.is_multiple_of(32) { &[F32, F16, Bf16, Q8_0, Q4_0, Q4_1][..] } else { &[F32, F16, Bf16] };
    known[((random.next() + 1.0) / 2.0 * known.len() as f32) as usize % known.len()]
}

/// Uniform in ±1.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
