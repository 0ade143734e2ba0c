//! What a model file says about its tokenizer, as plain data: the input of `text`.

use std::path::PathBuf;

/// What a tokenizer is made from.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSpec {
    /// A vocabulary, with merges or scores, for the algorithms of `text`.
    Vocabulary(VocabularySpec),
    /// Hugging Face's description of a pipeline, for the crate `tokenizers`.
    Json(TokenizerJson),
}

/// A `tokenizer.json`, and what the files beside it say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerJson {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub json: String,
    /// The text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// The text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

/// A tokenizer as a vocabulary, in GGUF's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VocabularySpec {
    /// The algorithm: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// How text is split before BPE.
    pub pre_tokenizer: Option<String>,
    /// The vocabulary, in the order of ids.
    pub tokens: StringTable,
    /// Scores of the tokens, for SentencePiece; otherwise empty.
    pub scores: Vec<f32>,
    /// Kinds of the tokens.
    pub kinds: Vec<TokenKind>,
    /// BPE merges in the order of their rank, each two tokens separated by a space.
    pub merges: StringTable,
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Ends a sequence.
    pub eos: Option<u32>,
    /// Ends a speaker's turn.
    pub end_of_turn: Option<u32>,
    /// Ends a message, within a turn.
    pub end_of_message: Option<u32>,
    /// Stands for text that no token covers.
    pub unknown: Option<u32>,
    /// Begin every prompt with `bos`; `None`: as the algorithm's default says.
    pub add_bos: Option<bool>,
    /// End every prompt with `eos`.
    pub add_eos: Option<bool>,
    /// Put a space before the text; `None`: as the algorithm's default says.
    pub add_space_prefix: Option<bool>,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

/// What a token is, in GGUF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Of no kind; treated as text.
    Undefined,
    /// Text.
    Normal,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Structure, such as the end of a turn; no text.
    Control,
    /// Text that is found before any splitting.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// From GGUF's number.
    pub fn from_gguf(number: i32) -> Option<TokenKind> {
        use TokenKind::*;
        let kinds = [Undefined, Normal, Unknown, Control, UserDefined, Unused, Byte];
        usize::try_from(number).ok().and_then(|index| kinds.get(index)).copied()
    }
}

/// Names of tokens that end an answer in the chat formats of the common model families.
///
/// Files often declare only one of them as end of sequence, while the model, tuned on several formats, says another.
const END_TOKENS: [&str; 11] = [
    "<|im_end|>",         // ChatML
    "<|eot_id|>",         // Llama 3
    "<|eom_id|>",         // Llama 3, before a tool's answer
    "<|end_of_text|>",    // Llama 3, Granite
    "<|endoftext|>",      // GPT-2, Qwen, SmolLM
    "<|end|>",            // Phi
    "<end_of_turn>",      // Gemma
    "<end_of_utterance>", // SmolVLM
    "<|end_of_turn|>",    // OpenChat
    "<EOT>",              // Command, CodeLlama
    "</s>",               // Llama 2, Mistral
];

impl TokenizerSpec {
    /// The Jinja template of conversations.
    pub fn chat_template(&self) -> Option<&str> {
        match self {
            TokenizerSpec::Vocabulary(vocabulary) => vocabulary.chat_template.as_deref(),
            TokenizerSpec::Json(tokenizer) => tokenizer.chat_template.as_deref(),
        }
    }

    /// The text of the token that begins a sequence.
    pub fn bos_text(&self) -> Option<&str> {
        match self {
            TokenizerSpec::Vocabulary(vocabulary) => vocabulary.text(vocabulary.bos),
            TokenizerSpec::Json(tokenizer) => tokenizer.bos_token.as_deref(),
        }
    }

    /// The text of the token that ends a sequence.
    pub fn eos_text(&self) -> Option<&str> {
        match self {
            TokenizerSpec::Vocabulary(vocabulary) => vocabulary.text(vocabulary.eos),
            TokenizerSpec::Json(tokenizer) => tokenizer.eos_token.as_deref(),
        }
    }
}

impl VocabularySpec {
    fn text(&self, id: Option<u32>) -> Option<&str> {
        id.and_then(|id| self.tokens.get(id as usize))
    }

    /// The tokens that end an answer: the declared ones first, then control tokens known by name.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = [self.eos, self.end_of_turn, self.end_of_message].into_iter().flatten().collect();
        let named = self.tokens.iter().zip(&self.kinds).zip(0..);
        let named = named.filter(|((text, kind), _)| **kind == TokenKind::Control && END_TOKENS.contains(text));
        ends.extend(named.map(|(_, id)| id));
        let mut seen = std::collections::HashSet::new();
        ends.retain(|id| seen.insert(*id));
        ends
    }
}

/// Many strings in one allocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StringTable {
    text: String,
    ends: Vec<usize>,
}

impl StringTable {
    /// An empty table with room for the bounds of `count` strings.
    pub fn with_capacity(count: usize) -> StringTable {
        StringTable { text: String::new(), ends: Vec::with_capacity(count) }
    }

    /// Appends a string.
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    /// How many strings there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A string by its index.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

impl<'a> FromIterator<&'a str> for StringTable {
    fn from_iter<I: IntoIterator<Item = &'a str>>(strings: I) -> StringTable {
        let mut table = StringTable::default();
        strings.into_iter().for_each(|string| table.push(string));
        table
    }
}
