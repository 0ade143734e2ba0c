//! Model files with legal values that few have, and with wrong ones.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::gguf::{Format, Gguf};
use super::victim::Ground;
use super::{Attack, Finding, write};
use crate::process::Group;

const END_MAX: Duration = Duration::from_secs(30);

/// How a command has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With 1 and one sentence that begins with `error: `.
    Refused,
    /// With 0.
    Served,
    /// One or the other.
    Either,
}

type Change = fn(&mut Gguf);

pub(super) fn attacks() -> Vec<Attack> {
    const REFUSED: &str = "one sentence, exit 1";
    vec![
        Attack::new(
            "models-unusual",
            "heads of 8, 512 and 1,024; F16 or F32 beside Q8_0 in one layer",
            "formats are served; heads are, or one sentence and exit 1",
            |ground| each(ground, "models-unusual", &UNUSUAL),
        ),
        Attack::new("models-wrong", "24 files with one odd value each, `generate` and `graph`", REFUSED, |ground| {
            each(ground, "models-wrong", &WRONG)
        }),
        Attack::new("models-cut", "a file cut off at each of 120 lengths", REFUSED, cut),
    ]
}

const UNUSUAL: [(&str, End, Change); 5] = [
    ("head_dim 512", End::Either, |model| head(model, 512)),
    ("head_dim 8", End::Either, |model| head(model, 8)),
    ("head_dim 1024", End::Either, |model| head(model, 1024)),
    ("F16 query beside Q8_0", End::Served, |model| {
        (model.query_format, model.matrix_format) = (Format::F16, Format::Q8_0);
    }),
    ("Q8_0 query beside F32", End::Served, |model| model.query_format = Format::Q8_0),
];

fn head(model: &mut Gguf, size: u32) {
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        model.set(key, size);
    }
}

const WRONG: [(&str, End, Change); 24] = [
    ("no layer", End::Refused, |model| model.set("block_count", 0)),
    ("2³²−1 layers", End::Refused, |model| model.set("block_count", u32::MAX)),
    ("two layers of one", End::Refused, |model| model.set("block_count", 2)),
    ("no context", End::Refused, |model| model.set("context_length", 0)),
    ("context of 1", End::Either, |model| model.set("context_length", 1)),
    ("context of 2³²−1", End::Either, |model| model.set("context_length", u32::MAX)),
    ("hidden size 0", End::Refused, |model| model.set("embedding_length", 0)),
    ("hidden size 2³²−1", End::Refused, |model| model.set("embedding_length", u32::MAX)),
    ("hidden size 33", End::Either, |model| model.set("embedding_length", 33)),
    ("no feed-forward", End::Refused, |model| model.set("feed_forward_length", 0)),
    ("no head", End::Refused, |model| model.set("attention.head_count", 0)),
    ("no KV head", End::Refused, |model| model.set("attention.head_count_kv", 0)),
    ("3 heads on 2", End::Refused, |model| {
        model.set("attention.head_count", 3);
        model.set("attention.head_count_kv", 2);
    }),
    ("2³²−1 heads", End::Refused, |model| model.set("attention.head_count", u32::MAX)),
    ("odd head", End::Refused, |model| head(model, 31)),
    ("head of 2³¹", End::Refused, |model| head(model, 1 << 31)),
    ("rotates more than a head", End::Refused, |model| model.set("rope.dimension_count", 4096)),
    ("rotates nothing", End::Either, |model| model.set("rope.dimension_count", 0)),
    ("epsilon NaN", End::Refused, |model| model.set_fraction("attention.layer_norm_rms_epsilon", f32::NAN)),
    ("epsilon −1", End::Refused, |model| model.set_fraction("attention.layer_norm_rms_epsilon", -1.0)),
    ("base 0", End::Refused, |model| model.set_fraction("rope.freq_base", 0.0)),
    ("base ∞", End::Refused, |model| model.set_fraction("rope.freq_base", f32::INFINITY)),
    ("query of another shape", End::Refused, |model| model.shapes.push(("attn_q.weight", vec![32, 64]))),
    ("embedding without rows", End::Refused, |model| model.shapes.push(("token_embd.weight", vec![32, 0]))),
];

/// Runs two commands on each changed file.
fn each(ground: &Ground, name: &str, changes: &[(&str, End, Change)]) -> Finding {
    let path = ground.folder(name)?.join("model.gguf");
    let (mut wrong, mut served) = (Vec::new(), 0);
    for (what, wanted, change) in changes {
        let mut model = Gguf::new();
        change(&mut model);
        write(&path, model.bytes())?;
        for command in [vec!["generate", "-p", "hello", "--max-tokens", "2"], vec!["graph", "--bucket", "1"]] {
            match run(ground, &command, &path) {
                Ok(End::Served) if *wanted == End::Refused => wrong.push(format!("{what} ({}): served", command[0])),
                Ok(End::Refused) if *wanted == End::Served => wrong.push(format!("{what} ({}): refused", command[0])),
                Ok(End::Served) => served += 1,
                Ok(_) => {}
                Err(why) => wrong.push(format!("{what} ({}): {why}", command[0])),
            }
        }
    }
    let words = format!("{} of {} commands right, {served} served", 2 * changes.len() - wrong.len(), 2 * changes.len());
    if wrong.is_empty() { Ok(words) } else { Err(format!("{words}; {}", wrong.join("; "))) }
}

fn run(ground: &Ground, args: &[&str], path: &Path) -> Result<End, String> {
    let mut command = ground.vitrum(args);
    command.args(["--device", "cpu", "--threads", "1"]).arg(path);
    let mut group = Group::spawn(command, io::sink()).map_err(|error| error.to_string())?;
    let Some(status) = group.wait_within(END_MAX).map_err(|error| error.to_string())? else {
        return Err(format!("not over in {} s", END_MAX.as_secs()));
    };
    group.wait().map_err(|error| error.to_string())?; // its output is read
    let said = group.tail();
    let errors = said.lines().filter(|line| line.trim_start().starts_with("error: ")).count();
    match status.code() {
        Some(0) => Ok(End::Served),
        Some(1) if errors == 1 => Ok(End::Refused),
        Some(1) => Err(format!("exit 1 with {errors} errors named")),
        _ => {
            let panic = said.lines().find(|line| line.contains("panicked at")).unwrap_or_default().trim().to_owned();
            Err(format!("{status} {panic}"))
        }
    }
}

fn cut(ground: &Ground) -> Finding {
    const STEP: usize = 64;
    const CUTS: usize = 120;
    let path = ground.folder("models-cut")?.join("model.gguf");
    let bytes = Gguf::new().bytes();
    let mut wrong = Vec::new();
    for index in 0..CUTS {
        let length = index * STEP;
        write(&path, &bytes[..length])?;
        match run(ground, &["graph", "--bucket", "1"], &path) {
            Ok(End::Refused) => {}
            Ok(_) => wrong.push(format!("{length} bytes: served")),
            Err(why) => wrong.push(format!("{length} bytes: {why}")),
        }
    }
    let words = format!("{} of {CUTS} refused", CUTS - wrong.len());
    if wrong.is_empty() { Ok(words) } else { Err(format!("{words}; {}", wrong.join("; "))) }
}
