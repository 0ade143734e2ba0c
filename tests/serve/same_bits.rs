//! SmolLM2's log probabilities are the same, bit for bit, alone, among others, cut into chunks and streamed.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;

use crate::support::client::{Reply, read_until, sent, wait_until};
use crate::support::golden::{Reference, golden};
use crate::support::server::Server;
use crate::support::smollm2;

const COMPLETIONS: &str = "/v1/completions";
const MAX_TOKENS: usize = 8;
/// The most that a request may ask for.
const LOGPROBS: usize = 20;

/// A step's most likely token is the reference's if it leads by this: tests/golden.rs measures deviations below it.
const SAFE_MARGIN: f32 = 0.3;

/// The token ids of the golden prompts, and of a prompt of more than 64 tokens that is made of them.
fn prompts() -> Vec<Vec<u32>> {
    let golden: Vec<Vec<u32>> = golden().into_iter().map(|prompt| prompt.token_ids).collect();
    let long = [golden.concat(), golden.concat()].concat();
    assert!(long.len() > 64);
    golden.into_iter().chain([long]).collect()
}

/// An answer, its numbers as they were sent: the shortest text that gives an `f32` back is another for other bits.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    tokens: Vec<String>,
    token_logprobs: Vec<String>,
    top_logprobs: Vec<String>,
}

#[derive(Deserialize)]
struct Body {
    choices: [Choice; 1],
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    logprobs: Logprobs,
}

#[derive(Deserialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Box<RawValue>>,
    top_logprobs: Vec<Box<RawValue>>,
}

impl Answer {
    fn add(&mut self, json: &str) {
        let Body { choices: [choice] } = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        let texts = |values: Vec<Box<RawValue>>| values.into_iter().map(|value| value.get().to_owned());
        self.text += &choice.text;
        self.tokens.extend(choice.logprobs.tokens);
        self.token_logprobs.extend(texts(choice.logprobs.token_logprobs));
        self.top_logprobs.extend(texts(choice.logprobs.top_logprobs));
    }

    fn of(reply: &Reply, stream: bool) -> Answer {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut answer = Answer::default();
        match stream {
            true => reply.event_texts().into_iter().for_each(|event| answer.add(event)),
            false => answer.add(reply.text()),
        }
        assert_eq!(answer.tokens.len(), MAX_TOKENS);
        assert_eq!((answer.token_logprobs.len(), answer.top_logprobs.len()), (MAX_TOKENS, MAX_TOKENS));
        assert!(answer.top_logprobs.iter().all(|top| top.matches(':').count() >= LOGPROBS / 2), "{answer:?}");
        answer
    }
}

async fn ask(server: &Server, prompt: &[u32], stream: bool) -> Answer {
    let body = json!({
        "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0, "logprobs": LOGPROBS, "ignore_eos": true,
        "stream": stream,
    });
    Answer::of(&server.post(COMPLETIONS, body).await, stream)
}

/// Every prompt's answer, one after the other, with nothing else in the server.
async fn alone(server: &Server) -> Vec<Answer> {
    let mut answers = Vec::new();
    for prompt in prompts() {
        answers.push(ask(server, &prompt, false).await);
    }
    answers
}

fn smollm2(flags: &[&str]) -> Server {
    Server::start(&smollm2::path(), flags)
}

async fn steps(server: &Server) -> f64 {
    server.metric("vllm:iteration_tokens_total_count", "").await
}

#[tokio::test]
async fn a_prompt_alone_has_the_references_tokens_and_the_same_bits_in_every_process() {
    let server = smollm2(&[]);
    let first = alone(&server).await;
    let mut compared = 0;
    for (prompt, answer) in golden().iter().zip(&first) {
        let Reference { greedy_ids, step_margin, .. } = &prompt.f32_dequant_weights;
        let sure = step_margin.iter().take(MAX_TOKENS).take_while(|margin| **margin > SAFE_MARGIN).count();
        compared += sure;
        let body = json!({"tokens": greedy_ids[..sure]});
        let expected = server.post("/detokenize", body).await.json()["prompt"].as_str().unwrap().to_owned();
        assert!(answer.text.starts_with(&expected), "{}: {:?} is not {expected:?}", prompt.name, answer.text);
    }
    assert!(compared >= 8, "only {compared} tokens have a margin");
    assert_eq!(alone(&server).await, first, "a second time");
    assert_eq!(alone(&smollm2(&["--threads", "1"])).await, first, "one worker instead of one per core");
}

#[tokio::test]
async fn a_stream_has_the_same_bits() {
    let server = smollm2(&[]);
    for (prompt, expected) in prompts().iter().zip(alone(&server).await) {
        assert_eq!(ask(&server, prompt, true).await, expected);
    }
}

/// A prompt that depends on `seed`, below SmolLM2's 49152 tokens and beyond its special ones.
fn other_prompt(seed: u32) -> Vec<u32> {
    let length = 3 + seed * 7 % 90;
    (0..length).map(|i| 100 + (i * 7919 + seed * 104_729) % 40_000).collect()
}

/// Requests that stream and cannot end before they are dropped, each beyond its first token.
async fn others(server: &Server, count: u32) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for seed in 0..count {
        let temperature = seed % 2; // greedy and drawn ones
        let body = json!({
            "prompt": other_prompt(seed), "max_tokens": 8000, "ignore_eos": true, "stream": true,
            "temperature": temperature, "logprobs": seed % 3,
        });
        streams.push(sent(server.address, COMPLETIONS, body).await);
    }
    for stream in &mut streams {
        read_until(stream, "\"choices\":[{").await;
    }
    streams
}

#[tokio::test]
async fn sixteen_others_in_flight_change_no_bit() {
    const OTHERS: u32 = 16;
    let server = smollm2(&[]);
    let expected = alone(&server).await;
    let others = others(&server, OTHERS).await;
    for (index, (prompt, expected)) in prompts().iter().zip(&expected).enumerate() {
        let stream = index % 2 == 0;
        assert!(server.running().await >= f64::from(OTHERS), "they run before");
        // One whose prompt is read in the same steps as ours, beside those that draw.
        let newcomer = json!({"prompt": other_prompt(30 + index as u32), "max_tokens": 2, "stream": true});
        let newcomer = sent(server.address, COMPLETIONS, newcomer).await;
        let answer = ask(&server, prompt, stream).await;
        assert!(server.running().await >= f64::from(OTHERS), "they run on");
        assert_eq!(answer, *expected, "prompt {index}, stream {stream}");
        drop(newcomer);
    }
    // All prompts at once, too.
    let prompts = prompts();
    let [one, two, three, four] = [0, 1, 2, 3].map(|index| ask(&server, &prompts[index], false));
    let (one, two, three, four) = tokio::join!(one, two, three, four);
    assert!(server.running().await >= f64::from(OTHERS), "they still run");
    assert_eq!([one, two, three, four], expected[..]);
    drop(others);
    wait_until("the others end with their connections", async || server.running().await == 0.0).await;
}

#[tokio::test]
async fn prompts_cut_into_chunks_have_the_same_bits() {
    let expected = alone(&smollm2(&[])).await;
    for chunk in [1, 7, 64] {
        let text = chunk.to_string();
        // One prompt's tokens in a step, and all tokens of a step.
        for flags in [
            vec!["--long-prefill-token-threshold", &text],
            vec!["--max-num-batched-tokens", &text, "--max-num-seqs", "1"],
        ] {
            let server = smollm2(&flags);
            for (prompt, expected) in prompts().iter().zip(&expected) {
                let before = steps(&server).await;
                assert_eq!(ask(&server, prompt, false).await, *expected, "{flags:?}, {} tokens", prompt.len());
                // The last chunk draws the first token.
                let taken = (prompt.len().div_ceil(chunk) + MAX_TOKENS - 1) as f64;
                let what = format!("{} tokens with {flags:?} take {taken} steps", prompt.len());
                wait_until(&what, async || steps(&server).await - before == taken).await;
            }
        }
    }
}
