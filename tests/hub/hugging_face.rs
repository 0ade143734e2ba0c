//! Models of the Hugging Face hub, against a server that stands for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vitrum::weights::hub::{self, HubEnvironment, HubError, ModelFiles, Sources, Token};

use crate::server::{HubServer, ID, commit};
use crate::support::temp::TempDir;

const WEIGHTS: &[u8] = &[7; 5000];
const MODEL: &[(&str, &[u8])] = &[
    ("README.md", b"read"),
    ("config.json", b"{}"),
    ("generation_config.json", b"{ }"),
    ("model.safetensors", WEIGHTS),
    ("original/params.json", b"{}"),
    ("pytorch_model.bin", b"pickle"),
    ("q4.gguf", b"GGUF"),
    ("special_tokens_map.json", b""),
    ("tokenizer.json", b"{  }"),
    ("tokenizer_config.json", b"{   }"),
];
const FETCHED: &[&str] =
    &["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// A hub and a machine's cache of it.
struct Scene {
    server: HubServer,
    folder: TempDir,
}

impl Scene {
    fn new(files: &[(&str, &[u8])]) -> Scene {
        Scene { server: HubServer::start(files), folder: TempDir::new() }
    }

    fn sources(&self) -> Sources {
        let hugging_face = HubEnvironment {
            cache_dir: self.folder.path().join("hub"),
            endpoint: self.server.endpoint(),
            token: None,
            is_offline: false,
        };
        Sources { cache_dir: self.folder.path().join("named"), hugging_face }
    }

    fn with(&self, revision: Option<&str>, change: impl Fn(&mut HubEnvironment)) -> Result<PathBuf, HubError> {
        let mut sources = self.sources();
        change(&mut sources.hugging_face);
        match hub::resolve(ID, revision, &sources)? {
            ModelFiles::Folder(folder) => Ok(folder),
            ModelFiles::Gguf(path) => panic!("{} is no folder", path.display()),
        }
    }

    fn fetch(&self) -> Result<PathBuf, HubError> {
        self.with(None, |_| {})
    }

    fn offline(&self) -> Result<PathBuf, HubError> {
        self.with(None, |environment| environment.is_offline = true)
    }

    fn fails(&self, words: &[&str]) {
        says(self.fetch(), words);
    }

    fn model_folder(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--model")
    }

    fn snapshot(&self, digit: char) -> PathBuf {
        self.model_folder().join("snapshots").join(commit(digit))
    }

    /// Contents that are whole or begun.
    fn blobs(&self) -> Vec<String> {
        names_in(&self.model_folder().join("blobs")).into_iter().filter(|name| !name.ends_with(".lock")).collect()
    }
}

fn says(result: Result<PathBuf, HubError>, words: &[&str]) {
    let said = result.expect_err("an error").to_string();
    assert!(!said.contains('\n'), "{said}");
    for words in words.iter().chain([&ID]) {
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Requests for bytes of files, which are not those that only ask how long a file is.
fn downloads(asked: &[String]) -> Vec<&str> {
    let bytes = asked.iter().filter(|line| line.contains("bytes=") && !line.ends_with("bytes=0-0"));
    bytes.map(String::as_str).collect()
}

#[test]
fn a_model_is_fetched_once_into_the_cache_of_the_hubs_tools() {
    let scene = Scene::new(MODEL);
    let folder = scene.fetch().expect("a model");
    assert_eq!(folder, scene.snapshot('1'));
    assert_eq!(names_in(&folder), FETCHED);
    for (name, content) in MODEL.iter().filter(|(name, _)| FETCHED.contains(name)) {
        let path = folder.join(name);
        assert_eq!(fs::read(&path).expect("a file"), *content, "{name}");
        assert!(fs::read_link(&path).expect("a link").starts_with("../../blobs"), "{name}");
    }
    let noted = fs::read_to_string(scene.model_folder().join("refs/main")).expect("a ref");
    assert_eq!(noted, commit('1'));

    scene.server.asked();
    assert_eq!(scene.fetch().expect("the same model"), folder);
    let asked = scene.server.asked();
    assert_eq!(asked, [format!("/api/models/{ID}/revision/main?blobs=true")], "only which commit it is");
    assert_eq!(scene.offline().expect("the same model"), folder);
    assert_eq!(scene.with(Some(&commit('1')), |_| {}).expect("the same model"), folder);
    assert!(scene.server.asked().is_empty(), "neither offline nor for a commit that is there");
}

#[test]
fn a_branch_that_has_moved_brings_what_has_changed() {
    let scene = Scene::new(MODEL);
    scene.fetch().expect("a model");
    let mut files = MODEL.to_vec();
    files[1].1 = b"{\"changed\": 1}";
    scene.server.commit("main", '2', &files);
    scene.server.asked();
    assert_eq!(scene.fetch().expect("the new commit"), scene.snapshot('2'));
    let asked = scene.server.asked();
    // A file's bytes are asked for under its own name first, and then where that leads.
    assert!(downloads(&asked).iter().all(|line| line.contains("/config.json ")), "{asked:?}");
    assert_eq!(names_in(&scene.snapshot('2')), FETCHED);
    assert_eq!(fs::read(scene.snapshot('2').join("config.json")).expect("a file"), files[1].1);
    assert_eq!(fs::read(scene.snapshot('1').join("config.json")).expect("a file"), MODEL[1].1, "the old one stays");
    assert_eq!(scene.offline().expect("the new commit"), scene.snapshot('2'));
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let scene = Scene::new(MODEL);
    scene.server.commit("refs/pr/7", '7', MODEL);
    scene.server.commit("v1.0", '8', MODEL);
    let at = |revision: &str| scene.with(Some(revision), |_| {});
    assert_eq!(at("refs/pr/7").expect("a branch"), scene.snapshot('7'));
    assert_eq!(at("v1.0").expect("a tag"), scene.snapshot('8'));
    assert_eq!(at(&commit('1')).expect("a commit"), scene.snapshot('1'));
    let offline = |revision: &str| scene.with(Some(revision), |environment| environment.is_offline = true);
    assert_eq!(offline("refs/pr/7").expect("a branch"), scene.snapshot('7'));
    says(offline("main"), &["refs/main is missing"]);
    says(at("v2"), &["has no revision v2: --revision takes a branch, a tag or a full commit hash"]);
    says(at("../v2").map_err(|error| name_model(&error)), &["--revision ../v2: no part between slashes"]);
}

/// An error of the command line alone names no model.
fn name_model(error: &HubError) -> HubError {
    HubError::Unknown { model: format!("{ID}: {error}") }
}

#[test]
fn without_a_network_the_cache_is_what_there_is() {
    let scene = Scene::new(MODEL);
    let cache = scene.folder.path().join("hub").display().to_string();
    says(scene.offline(), &["refs/main is missing", "HF_HUB_OFFLINE", &cache]);
    let unreachable = |environment: &mut HubEnvironment| environment.endpoint = "http://127.0.0.1:1".into();
    says(scene.with(None, unreachable), &["the list of its files could not be asked for", "127.0.0.1:1", "network"]);
    assert!(scene.server.asked().is_empty());
    let folder = scene.fetch().expect("a model");
    assert_eq!(scene.with(None, unreachable).expect("from the cache"), folder);
    fs::remove_file(folder.join("model.safetensors")).expect("the weights");
    says(scene.offline(), &["model.safetensors is missing"]);
    says(scene.with(None, unreachable), &["could not be asked for"]);

    let mut sources = scene.sources();
    let smollm2 = "HuggingFaceTB/SmolLM2-135M-Instruct";
    for (is_offline, endpoint) in [(true, ENDPOINT_UNUSED), (false, "http://127.0.0.1:1")] {
        (sources.hugging_face.is_offline, sources.hugging_face.endpoint) = (is_offline, endpoint.into());
        let said = hub::resolve(smollm2, None, &sources).expect_err("not there").to_string();
        assert!(said.contains("the name smollm2 gives this model, as Q4_1"), "{said}");
    }
}

const ENDPOINT_UNUSED: &str = "http://nowhere.invalid";

#[test]
fn a_connection_that_is_cut_is_gone_on_with_by_the_next_run() {
    let scene = Scene::new(MODEL);
    scene.server.hub().cut_after = Some(1000);
    scene.fails(&["the connection ended within model.safetensors", "run it again"]);
    assert!(!scene.snapshot('1').join("model.safetensors").exists(), "nothing broken is in the snapshot");
    says(scene.offline(), &["is missing"]);
    scene.server.hub().cut_after = None;
    scene.server.asked();
    let folder = scene.fetch().expect("the rest");
    assert_eq!(fs::read(folder.join("model.safetensors")).expect("the weights"), WEIGHTS);
    let asked = scene.server.asked();
    let ranges: Vec<&str> = downloads(&asked);
    assert!(ranges.iter().all(|line| line.ends_with("bytes=1000-")), "only what was missing: {ranges:?}");
}

#[test]
fn what_is_not_what_the_hub_says_is_not_kept() {
    let scene = Scene::new(MODEL);
    scene.server.hub().is_damaged = true;
    scene.fails(&["model.safetensors", "it has SHA-256", "was not kept"]);
    assert!(!scene.snapshot('1').join("model.safetensors").exists());
    scene.server.hub().is_damaged = false;
    let folder = scene.fetch().expect("a model");

    // A run that was killed behind the last byte, a file that something has cut, and a link to nothing.
    let blob = fs::canonicalize(folder.join("model.safetensors")).expect("the content");
    fs::remove_file(folder.join("model.safetensors")).expect("the link");
    fs::rename(&blob, blob.with_extension("part")).expect("the content");
    scene.fetch().expect("the weights");
    fs::write(&blob, b"cut").expect("the content");
    scene.fetch().expect("the weights");
    assert_eq!(fs::read(folder.join("model.safetensors")).expect("the weights"), WEIGHTS);
    fs::remove_file(&blob).expect("the content");
    scene.fetch().expect("the weights");
    assert_eq!(fs::read(folder.join("model.safetensors")).expect("the weights"), WEIGHTS);
    assert_eq!(scene.blobs().len(), FETCHED.len(), "{:?}", scene.blobs());
}

#[test]
fn an_index_names_the_shards() {
    let index = |second: &str| {
        let map = format!(r#"{{"a": "m-1.safetensors", "b": "{second}", "c": "m-1.safetensors"}}"#);
        format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#).into_bytes()
    };
    let whole = index("m-2.safetensors");
    let name = "model.safetensors.index.json";
    let files: Vec<(&str, &[u8])> = vec![
        ("config.json", b"{}"),
        (name, &whole),
        ("m-1.safetensors", b"one"),
        ("m-2.safetensors", b"two"),
        ("other.safetensors", b"three"),
    ];
    let scene = Scene::new(&files);
    let folder = scene.fetch().expect("a model");
    assert_eq!(names_in(&folder), ["config.json", "m-1.safetensors", "m-2.safetensors", name]);
    scene.server.asked();
    scene.fetch().expect("the same model");
    assert_eq!(scene.server.asked().len(), 1);
    fs::remove_file(folder.join("m-2.safetensors")).expect("a shard");
    says(scene.offline(), &["m-2.safetensors is missing"]);

    for (second, words) in [
        ("m-3.safetensors", "names m-3.safetensors, which the repository does not have"),
        ("../../x.safetensors", "no plain name"),
    ] {
        let bad = index(second);
        let scene = Scene::new(&[files[0], (name, &bad), files[2], files[3]]);
        scene.fails(&[name, words]);
    }
}

#[test]
fn what_the_hub_refuses_is_said_with_what_helps() {
    let scene = Scene::new(MODEL);
    let refuse = |part, status, code, words: &[&str]| {
        scene.server.hub().refused = Some((part, status, code));
        scene.fails(words);
    };
    refuse("/api/", 404, Some("RepoNotFound"), &["has no such model"]);
    refuse("/api/", 401, Some("RepoNotFound"), &["set HF_TOKEN", "there is none of this name", "revision main"]);
    refuse("config.json", 401, Some("GatedRepo"), &["config.json", "accept the licence", "HF_TOKEN"]);
    refuse("config.json", 404, Some("EntryNotFound"), &["lists config.json and does not have it"]);
    refuse("/api/", 503, None, &["status 503", "try again later"]);
    refuse("/large/", 500, None, &["status 500", "model.safetensors"]);
    let known = |environment: &mut HubEnvironment| environment.token = Some(Token::new("secret"));
    scene.server.hub().refused = Some(("/large/", 403, Some("GatedRepo")));
    says(scene.with(None, known), &["to the owner of this access token", "accept the licence"]);
    scene.server.hub().refused = None;

    scene.server.hub().token = Some("secret".into());
    scene.fails(&["set HF_TOKEN"]);
    scene.with(None, known).expect("whoever has the token has the model");
    scene.server.hub().token = None;

    for (description, words) in [("<html>", "does not answer as"), (r#"{"sha": "../.."}"#, "is no commit")] {
        scene.server.hub().description = Some(description.into());
        scene.fails(&[words, "HF_ENDPOINT"]);
    }
    Scene::new(&[("config.json", b"{}"), ("m.Q4_1.gguf", b"GGUF")]).fails(&["GGUF files only", "m.Q4_1.gguf"]);
    Scene::new(&[("config.json", b"{}"), ("pytorch_model.bin", b"")]).fails(&["has no model.safetensors"]);
    Scene::new(&[("model.safetensors", b"x")]).fails(&["has no config.json"]);
}

#[test]
fn two_at_once_fetch_once() {
    let scene = Scene::new(MODEL);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| scene.fetch().expect("a model"));
        }
    });
    let asked = scene.server.asked();
    let weights = asked.iter().filter(|line| line.starts_with("/large/") && line.ends_with("bytes=0-"));
    assert_eq!(weights.count(), 1, "{asked:?}");
}

/// The command, with these variables and no other of the hub's.
fn vitrum(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    for name in ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(name);
    }
    let output = command.args(args).envs(variables.iter().copied()).output().expect("the command");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_command_takes_the_hubs_variables() {
    let scene = Scene::new(MODEL);
    let home = scene.folder.path().join("home");
    fs::create_dir(&home).expect("a folder");
    fs::write(home.join("token"), "secret\n").expect("a token");
    scene.server.hub().token = Some("secret".into());
    let (endpoint, home) = (scene.server.endpoint(), home.display().to_string());
    let variables = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str())];
    let generate = ["generate", ID, "-p", "x", "--device", "null"];
    // The files are no model: what matters is that they have come.
    vitrum(&generate, &variables);
    let model = Path::new(&home).join("hub/models--org--model");
    assert_eq!(names_in(&model.join("snapshots").join(commit('1'))), FETCHED);

    let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    scene.server.asked();
    let said = vitrum(&[&generate[..], &["--revision", "v9"]].concat(), &offline);
    assert!(said.contains("refs/v9 is missing") && said.contains(&home), "{said}");
    assert!(scene.server.asked().is_empty());
    let said = vitrum(&["generate", "smollm2", "-p", "x", "--revision", "main"], &offline);
    assert!(said.contains("--revision is for a model of the Hugging Face hub"), "{said}");
    let said = vitrum(&["generate", "a/b/../c", "-p", "x"], &offline);
    assert!(said.contains("is no model"), "{said}");
}
