//! Chat templates that a grammar makes, rendered by processes of the real binary: a text or a sentence, in time and in
//! bounded memory, and a good template is rendered afterwards.
//!
//! `VITRUM_FUZZ_SECONDS` says for how long, and fifty templates are tried at least; `VITRUM_FUZZ_SEED` says where to
//! begin. A template is its seed's alone; what fails is saved, and its path is said.

#[path = "support/fuzz.rs"]
#[allow(dead_code, reason = "memory is watched with that of other processes")]
mod fuzz;
#[path = "templates/grammar.rs"]
mod grammar;
#[path = "templates/processes.rs"]
mod processes;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vitrum::text::{ChatLimits, ChatMessage, ChatRenderer, TemplateError, TemplateSource, TextError};

use self::fuzz::{Run, save};
use self::processes::Watch;

const SECONDS_DEFAULT: u64 = 3;
/// However slow the machine is.
const TEMPLATES_LEAST: u64 = 50;
const DEADLINE: Duration = Duration::from_secs(1);
/// Machines are shared: what hangs takes longer than this.
const SLACK: Duration = Duration::from_secs(20);
/// Of a process that renders, its code and libraries besides.
const MEMORY_BYTES: u64 = 256 << 20;
const CODE_MIB: u64 = 64;
/// Of this process, whatever comes back.
const OWN_MIB_MAX: u64 = 256;
/// Renderings by the good template are this far apart.
const GOOD_EVERY: u64 = 16;

/// How renderings ended.
#[derive(Debug, Default)]
struct Ends {
    texts: u64,
    refused: u64,
    invalid: u64,
    late: u64,
    long: u64,
    died: u64,
    panicked: u64,
}

impl fmt::Display for Ends {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends { texts, refused, invalid, late, long, died, panicked } = self;
        write!(out, "{texts} rendered, {refused} refused, {invalid} did not compile, {late} took too long, ")?;
        write!(out, "{long} wrote too much, {died} died, {panicked} panicked")
    }
}

#[test]
fn no_template_ends_or_holds_up_whoever_has_it_rendered() {
    let mut run = Run::asked(SECONDS_DEFAULT, TEMPLATES_LEAST);
    let watch = Watch::start(MEMORY_BYTES);
    let good = renderer("{{ messages[0].content }}".to_owned());
    let (mut ends, mut longest) = (Ends::default(), Duration::ZERO);
    while let Some(seed) = run.next() {
        let template = grammar::template(seed);
        let since = Instant::now();
        let result = renderer(template.clone()).render(&conversation(), true);
        let took = since.elapsed();
        longest = longest.max(took);
        let is_held = took < DEADLINE + SLACK && watch.own_mib() < OWN_MIB_MAX;
        if !is_held || !count(&mut ends, &result) {
            let path = save(&format!("template-fuzz-{seed}.jinja"), &template);
            panic!("seed {seed}: {took:?}, {} MiB, {:.300?}, by {}", watch.own_mib(), result, path.display());
        }
        if seed % GOOD_EVERY == 0 {
            assert_eq!(good.render(&conversation(), true).expect("a good template"), "hi", "after seed {seed}");
        }
    }
    let (own, most) = (watch.own_mib(), watch.child_mib());
    println!(
        "{} templates: {ends}; the longest took {:.2} s, the largest process had {most} MiB, and this one {own} MiB",
        run.count(),
        longest.as_secs_f64()
    );
    assert!(most <= (MEMORY_BYTES >> 20) + CODE_MIB, "{most} MiB");
    assert!(watch.workers() <= 2, "{} processes", watch.workers());
    // Templates that are all refused, or that all render, find nothing.
    assert!(ends.texts > 0 && ends.refused > 0 && ends.died + ends.late + ends.long > 0, "{ends}");
}

fn renderer(template: String) -> ChatRenderer {
    let source = TemplateSource { template, bos_token: Some("<s>".to_owned()), eos_token: None };
    let limits = ChatLimits { deadline: DEADLINE, memory_bytes: MEMORY_BYTES, ..ChatLimits::default() };
    ChatRenderer::new(PathBuf::from(env!("CARGO_BIN_EXE_vitrum")), source, limits)
}

fn conversation() -> Vec<ChatMessage> {
    let message = |role: &str, content: &str| ChatMessage { role: role.to_owned(), content: content.to_owned() };
    vec![message("user", "hi"), message("assistant", "é\n"), message("user", "x y z")]
}

/// Counts an end; false if it is none that a template may have.
fn count(ends: &mut Ends, result: &Result<String, TextError>) -> bool {
    let end = match result {
        Ok(_) => &mut ends.texts,
        Err(TextError::ChatTemplate(error)) => match error {
            TemplateError::Refused { .. } => &mut ends.refused,
            TemplateError::Compile { .. } => &mut ends.invalid,
            TemplateError::Deadline { .. } => &mut ends.late,
            TemplateError::Output { .. } => &mut ends.long,
            TemplateError::Memory { .. } => &mut ends.died,
            TemplateError::Engine { .. } => &mut ends.panicked,
            TemplateError::Busy { .. } | TemplateError::Process { .. } | TemplateError::Abandoned => return false,
        },
        Err(_) => return false,
    };
    *end += 1;
    true
}
