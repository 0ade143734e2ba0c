//! A GGUF file of a model of some kilobytes, whose every value can be made wrong. All its tensors are zeros: what it
//! says does not matter here.

/// GGUF's numbers of the types that are written.
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_TEXT: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const TYPE_U32: u32 = 4;
/// Where tensors' data begin.
const ALIGNMENT: usize = 32;

/// How a matrix is stored.
#[derive(Clone, Copy)]
pub(super) enum Format {
    F32,
    F16,
    Q8_0,
}

impl Format {
    fn type_id(self) -> u32 {
        match self {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::Q8_0 => 8,
        }
    }

    fn bytes(self, values: usize) -> usize {
        match self {
            Format::F32 => values * 4,
            Format::F16 => values * 2,
            Format::Q8_0 => values / 32 * 34,
        }
    }
}

/// The model, with what may be wrong in it.
pub(super) struct Gguf {
    /// Numbers by their key below `llama.`; later ones take the place of earlier ones.
    pub(super) numbers: Vec<(&'static str, u32)>,
    pub(super) fractions: Vec<(&'static str, f32)>,
    pub(super) name: String,
    pub(super) template: String,
    pub(super) query_format: Format,
    pub(super) matrix_format: Format,
    /// Shapes of tensors that differ from what the numbers want, by the end of their names.
    pub(super) shapes: Vec<(&'static str, Vec<u64>)>,
}

pub(super) const TEMPLATE: &str = "{% for message in messages %}{{ message['content'] }}{% endfor %}";
const CONTROL_TOKENS: [&str; 2] = ["<|endoftext|>", "<|im_end|>"];

impl Gguf {
    pub(super) fn new() -> Gguf {
        let numbers = vec![
            ("block_count", 1),
            ("context_length", 16384),
            ("embedding_length", 32),
            ("feed_forward_length", 32),
            ("attention.head_count", 1),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 32),
            ("attention.value_length", 32),
            ("rope.dimension_count", 32),
        ];
        let fractions = vec![("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 10_000.0)];
        let matrix_format = Format::F32;
        let (name, template) = ("tiny".to_owned(), TEMPLATE.to_owned());
        Gguf { numbers, fractions, name, template, query_format: matrix_format, matrix_format, shapes: Vec::new() }
    }

    pub(super) fn set(&mut self, key: &'static str, value: u32) {
        self.numbers.retain(|(known, _)| *known != key);
        self.numbers.push((key, value));
    }

    pub(super) fn set_fraction(&mut self, key: &'static str, value: f32) {
        self.fractions.retain(|(known, _)| *known != key);
        self.fractions.push((key, value));
    }

    fn number(&self, key: &str) -> u64 {
        self.numbers.iter().find(|(known, _)| *known == key).map_or(0, |(_, value)| u64::from(*value))
    }

    /// The file. Sizes beyond reason are in its metadata only: its tensors are never more than some kilobytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        let (count, metadata) = self.metadata();
        out.extend(count.to_le_bytes());
        out.extend(metadata);
        let mut offset = 0;
        for (name, dims, format) in &tensors {
            put_text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(format.type_id().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            let values = dims.iter().fold(1u64, |product, dim| product.saturating_mul(*dim)).min(1 << 20);
            offset = (offset + format.bytes(values as usize)).next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT) + offset, 0);
        out
    }

    fn metadata(&self) -> (u64, Vec<u8>) {
        let tokens: Vec<String> =
            CONTROL_TOKENS.map(str::to_owned).into_iter().chain((0..=255).map(byte_letter)).collect();
        let kinds: Vec<u8> =
            (0..tokens.len()).flat_map(|id| if id < CONTROL_TOKENS.len() { 3i32 } else { 1 }.to_le_bytes()).collect();
        let mut out = Vec::new();
        let texts = [
            ("general.architecture", "llama"),
            ("general.name", &self.name),
            ("tokenizer.ggml.model", "gpt2"),
            ("tokenizer.ggml.pre", "gpt-2"),
            ("tokenizer.chat_template", &self.template),
        ];
        for (key, text) in texts {
            put_key(&mut out, key, TYPE_TEXT);
            put_text(&mut out, text);
        }
        for (key, value) in &self.numbers {
            put_key(&mut out, &format!("llama.{key}"), TYPE_U32);
            out.extend(value.to_le_bytes());
        }
        for (key, value) in &self.fractions {
            put_key(&mut out, &format!("llama.{key}"), TYPE_F32);
            out.extend(value.to_le_bytes());
        }
        put_key(&mut out, "tokenizer.ggml.eos_token_id", TYPE_U32);
        out.extend(1u32.to_le_bytes());
        put_array(&mut out, "tokenizer.ggml.tokens", TYPE_TEXT, tokens.len());
        tokens.iter().for_each(|token| put_text(&mut out, token));
        put_array(&mut out, "tokenizer.ggml.merges", TYPE_TEXT, 0);
        put_array(&mut out, "tokenizer.ggml.token_type", TYPE_I32, tokens.len());
        out.extend(kinds);
        ((texts.len() + self.numbers.len() + self.fractions.len() + 4) as u64, out)
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>, Format)> {
        let (hidden, ffn) = (self.number("embedding_length"), self.number("feed_forward_length"));
        let head = self.number("attention.key_length");
        let (q, kv) = (self.number("attention.head_count") * head, self.number("attention.head_count_kv") * head);
        let vocab = (CONTROL_TOKENS.len() + 256) as u64;
        let (norm, matrix) = (Format::F32, self.matrix_format);
        let all = [
            ("token_embd.weight", vec![hidden, vocab], matrix),
            ("output_norm.weight", vec![hidden], norm),
            ("blk.0.attn_norm.weight", vec![hidden], norm),
            ("blk.0.attn_q.weight", vec![hidden, q], self.query_format),
            ("blk.0.attn_k.weight", vec![hidden, kv], matrix),
            ("blk.0.attn_v.weight", vec![hidden, kv], matrix),
            ("blk.0.attn_output.weight", vec![q, hidden], matrix),
            ("blk.0.ffn_norm.weight", vec![hidden], norm),
            ("blk.0.ffn_gate.weight", vec![hidden, ffn], matrix),
            ("blk.0.ffn_up.weight", vec![hidden, ffn], matrix),
            ("blk.0.ffn_down.weight", vec![ffn, hidden], matrix),
        ];
        let shape =
            |name: &str, dims| self.shapes.iter().find(|(end, _)| name.ends_with(end)).map_or(dims, |s| s.1.clone());
        all.map(|(name, dims, format)| (name.to_owned(), shape(name, dims), format)).into()
    }
}

fn put_key(out: &mut Vec<u8>, key: &str, kind: u32) {
    put_text(out, key);
    out.extend(kind.to_le_bytes());
}

fn put_array(out: &mut Vec<u8>, key: &str, kind: u32, count: usize) {
    put_key(out, key, TYPE_ARRAY);
    out.extend(kind.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The letter that stands for a byte in a byte-level vocabulary: itself if it can be seen, else one from U+0100 on.
fn byte_letter(byte: u8) -> String {
    let is_seen = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let unseen_before = (0..byte).filter(|other| !is_seen(other)).count() as u32;
    let letter = if is_seen(&byte) { u32::from(byte) } else { 256 + unseen_before };
    char::from_u32(letter).expect("letters below U+0144 exist").to_string()
}
