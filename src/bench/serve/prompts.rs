//! Random prompts of a given length in tokens, made with the server's own tokeniser.
//!
//! The client has no vocabulary. It has the server tokenise made-up words once and draws from the ids that come back:
//! they exist, and none is special. A prompt sent as token ids is then exact by construction. A prompt sent as text is
//! detokenised and tokenised again, because text need not give its tokens back, and mended until its length is right.

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::ServeArgs;
use super::rng::Rng;
use crate::bench::client::{Client, ClientError};

/// Words that the server tokenises for the pool of ids.
const POOL_WORDS: usize = 512;
/// Tries at a text that has the wanted number of tokens.
const MENDING_ROUNDS: usize = 10;

/// What one request asks.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    /// Text, or an array of token ids.
    pub(super) content: Value,
    /// Its tokens by the server's count.
    pub(super) tokens: usize,
    /// Tokens to generate.
    pub(super) max_tokens: usize,
}

/// Prompts, and how many of them have not the length that was drawn for them.
#[derive(Debug)]
pub(super) struct Prompts {
    pub(super) prompts: Vec<Prompt>,
    pub(super) inexact: usize,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Text {
    prompt: String,
}

/// Makes `--num-prompts` prompts.
pub(super) async fn random(client: &Client, model: &str, args: &ServeArgs) -> Result<Prompts, ClientError> {
    let mut rng = Rng::new(args.seed);
    let server = Tokeniser { client, model };
    let pool = server.pool(&mut rng).await?;
    let draw = |rng: &mut Rng| pool[rng.between(0, pool.len() - 1)];
    let prefix: Vec<u32> = (0..args.random_prefix_len).map(|_| draw(&mut rng)).collect();
    let input_len = args.input_len.unwrap_or(args.random_input_len);
    let output_len = args.output_len.unwrap_or(args.random_output_len);

    let (mut prompts, mut inexact) = (Vec::with_capacity(args.num_prompts), 0);
    for _ in 0..args.num_prompts {
        let wanted = args.random_prefix_len + around(input_len, args.random_range_ratio, &mut rng);
        let max_tokens = around(output_len, args.random_range_ratio, &mut rng);
        let mut ids = prefix.clone();
        ids.resize_with(wanted, || draw(&mut rng));
        let (content, tokens) = if args.prompt_token_ids {
            (json!(ids), ids.len())
        } else {
            let (text, tokens) = server.text_of_length(ids, wanted, || draw(&mut rng)).await?;
            (Value::String(text), tokens)
        };
        inexact += usize::from(tokens != wanted);
        prompts.push(Prompt { content, tokens, max_tokens });
    }
    Ok(Prompts { prompts, inexact })
}

/// Uniform from `len * (1 - ratio)` to `len * (1 + ratio)`, at least 1.
fn around(len: usize, ratio: f64, rng: &mut Rng) -> usize {
    let low = (len as f64 * (1.0 - ratio)).floor() as usize;
    let high = (len as f64 * (1.0 + ratio)).ceil() as usize;
    rng.between(low.max(1), high.max(1))
}

struct Tokeniser<'a> {
    client: &'a Client,
    model: &'a str,
}

impl Tokeniser<'_> {
    async fn tokens(&self, text: &str) -> Result<Vec<u32>, ClientError> {
        let body = json!({"model": self.model, "prompt": text, "add_special_tokens": false});
        Ok(self.client.post::<Tokens>("/tokenize", &body).await?.tokens)
    }

    async fn text(&self, tokens: &[u32]) -> Result<String, ClientError> {
        Ok(self.client.post::<Text>("/detokenize", &json!({"model": self.model, "tokens": tokens})).await?.prompt)
    }

    /// Token ids to draw from.
    async fn pool(&self, rng: &mut Rng) -> Result<Vec<u32>, ClientError> {
        let words: Vec<String> = (0..POOL_WORDS).map(|_| word(rng)).collect();
        let mut pool = match self.tokens(&words.join(" ")).await {
            Ok(tokens) => tokens,
            Err(ClientError::Status { status, .. }) if status.is_client_error() => self.numbers().await?,
            Err(error) => return Err(error),
        };
        pool.sort_unstable();
        pool.dedup();
        if pool.is_empty() {
            return Err(ClientError::NoTokens);
        }
        Ok(pool)
    }

    /// A model without a tokeniser takes only numbers for text, those of its vocabulary, which may be a small one.
    async fn numbers(&self) -> Result<Vec<u32>, ClientError> {
        let mut count = POOL_WORDS;
        loop {
            let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            match self.tokens(&numbers.join(" ")).await {
                Err(ClientError::Status { status, .. }) if status.is_client_error() && count > 1 => count /= 2,
                answer => return answer,
            }
        }
    }

    /// Text that has `wanted` tokens, if a few rounds find one; and the tokens it has.
    async fn text_of_length(
        &self,
        mut ids: Vec<u32>,
        wanted: usize,
        mut draw: impl FnMut() -> u32,
    ) -> Result<(String, usize), ClientError> {
        let mut round = 1;
        loop {
            let text = self.text(&ids).await?;
            ids = self.tokens(&text).await?;
            if ids.len() == wanted || round == MENDING_ROUNDS {
                return Ok((text, ids.len()));
            }
            ids.resize_with(wanted, &mut draw);
            round += 1;
        }
    }
}

/// Consonant, vowel, consonant: tokenisers cut a thousand of these into a wide choice of tokens.
fn word(rng: &mut Rng) -> String {
    const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";
    const VOWELS: &[u8] = b"aeiouy";
    [CONSONANTS, VOWELS, CONSONANTS].iter().map(|set| char::from(set[rng.between(0, set.len() - 1)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stay_in_their_range() {
        let mut rng = Rng::new(3);
        let drawn: Vec<usize> = (0..500).map(|_| around(10, 0.5, &mut rng)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&5), Some(&15)));
        assert_eq!(around(128, 0.0, &mut rng), 128);
        assert_eq!(around(0, 0.0, &mut rng), 1);
    }
}
