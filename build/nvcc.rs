//! NVIDIA's compiler, and the images of csrc/*.cu that it makes: each once for all builds in a target folder.
//!
//! build.rs embeds the images and `cargo xtask kernels` checks them. Both include this file, so they see the same ones.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What images are built for. Code: A100, H100 and H200, B200, and workstation Blackwell; all but the `a` run on later
/// minor versions of the same major one, too. Then [`ARCH_PTX`].
pub(crate) const ARCHS: &[&str] = &["sm_80", "sm_90a", "sm_100", "sm_120", ARCH_PTX];
/// Portable code, which the driver compiles for devices that came later.
pub(crate) const ARCH_PTX: &str = "compute_90";
/// What is built in development.
pub(crate) const ARCH_DEFAULT: &str = "sm_90a";

/// The first release that knows all of [`ARCHS`].
const RELEASE_MIN: (u32, u32) = (12, 8);

/// `fmad=false`: a product and a sum become one operation only where the source says `fmaf`. So the roundings are in
/// the source, the same in every variant of a kernel and in its host build.
const FLAGS: &[&str] = &["-O3", "-std=c++17", "-fmad=false", "-Werror", "all-warnings", "-Xptxas", "-v"];

/// A compiler that runs.
pub(crate) struct Nvcc {
    pub(crate) path: PathBuf,
    /// All that `nvcc --version` says.
    version: String,
}

/// One compiled file.
pub(crate) struct Image {
    /// `embed` for csrc/embed.cu.
    pub(crate) file: String,
    pub(crate) arch: &'static str,
    /// The image: an ELF file; for [`ARCH_PTX`], text that ends with a zero byte.
    pub(crate) path: PathBuf,
    /// What the compiler said: registers, spills.
    pub(crate) log: PathBuf,
}

/// Where `cargo xtask cuda-toolchain` writes the path of its nvcc.
pub(crate) fn toolchain_note(target: &Path) -> PathBuf {
    target.join("cuda-toolchain.txt")
}

/// The architectures that a list like `sm_80,sm_90a` names; `all` is all of them.
pub(crate) fn archs(list: &str) -> Result<Vec<&'static str>, String> {
    if list == "all" {
        return Ok(ARCHS.to_vec());
    }
    let known = |name: &str| ARCHS.iter().copied().find(|arch| *arch == name);
    let unknown = |name: &str| format!("no architecture is named {name:?}: there are all, {}", ARCHS.join(", "));
    list.split(',').map(|name| known(name).ok_or_else(|| unknown(name))).collect()
}

impl Nvcc {
    pub(crate) fn at(path: PathBuf) -> Result<Nvcc, String> {
        let output = Command::new(&path).arg("--version").output();
        let output = output.map_err(|error| format!("{}: could not start: {error}", path.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        match release(&version) {
            Some(found) if found >= RELEASE_MIN => Ok(Nvcc { path, version }),
            Some((major, minor)) => {
                let (major_min, minor_min) = RELEASE_MIN;
                let path = path.display();
                Err(format!("{path} is of CUDA {major}.{minor}, at least {major_min}.{minor_min} is needed"))
            }
            None => Err(format!("{} does not say its version", path.display())),
        }
    }

    /// The images of every .cu file of `csrc` for these architectures. Those that are not in `cache` yet are compiled,
    /// `jobs` at a time.
    pub(crate) fn images(
        &self,
        csrc: &Path,
        cache: &Path,
        archs: &[&'static str],
        jobs: usize,
    ) -> Result<Vec<Image>, String> {
        let said = |path: &Path, error| format!("{}: {error}", path.display());
        fs::create_dir_all(cache).map_err(|error| said(cache, error))?;
        let files = files(csrc).map_err(|error| said(csrc, error))?;
        // Any header may be in any file: a change of one compiles all.
        let headers = files.iter().filter(|path| !is_source(path));
        let mut common = Fnv::default();
        for bytes in headers.map(|path| fs::read(path).map_err(|error| said(path, error))) {
            common.write(&bytes?);
        }
        common.write(self.version.as_bytes());
        let mut images = Vec::new();
        for source in files.iter().filter(|path| is_source(path)) {
            let text = fs::read(source).map_err(|error| said(source, error))?;
            for &arch in archs {
                let mut key = common;
                key.write(&text);
                flags(arch).for_each(|flag| key.write(flag.as_bytes()));
                let file = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let name = format!("{file}.{arch}.{:032x}", key.0);
                let (path, log) = (cache.join(&name), cache.join(name + ".log"));
                images.push((source, Image { file, arch, path, log }));
            }
        }
        let missing: Vec<_> = images.iter().filter(|(_, image)| !image.path.is_file()).collect();
        side_by_side(&missing, jobs, |(source, image)| self.compile(source, image))?;
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }

    fn compile(&self, source: &Path, image: &Image) -> Result<(), String> {
        let what = format!("{} for {}", source.display(), image.arch);
        let partial = PathBuf::from(format!("{}.{}", image.path.display(), std::process::id()));
        let mut nvcc = Command::new(&self.path);
        nvcc.args(flags(image.arch)).arg("-o").arg(&partial).arg(source).stdin(Stdio::null());
        let output = nvcc.output().map_err(|error| format!("{what}: {}: {error}", self.path.display()))?;
        let words = [output.stdout, output.stderr].concat();
        if !output.status.success() {
            return Err(format!("{what}: nvcc failed:\n{}", String::from_utf8_lossy(&words).trim_end()));
        }
        let keep = || {
            if image.arch == ARCH_PTX {
                fs::File::options().append(true).open(&partial)?.write_all(b"\0")?; // drivers take it as a C string
            }
            // The image comes last and at once: where it is, the log is, and both are whole.
            fs::write(&image.log, &words)?;
            fs::rename(&partial, &image.path)
        };
        keep().map_err(|error| format!("{what}: {error}"))
    }
}

fn flags(arch: &str) -> impl Iterator<Item = String> {
    let kind = if arch == ARCH_PTX { "-ptx" } else { "-cubin" };
    FLAGS.iter().map(|flag| flag.to_string()).chain([kind.to_owned(), format!("-arch={arch}")])
}

/// Does `work` on every item, `jobs` at a time; the first error by the items' order.
fn side_by_side<T: Sync>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let worker = || -> Vec<(usize, String)> {
        let mut failed = Vec::new();
        while let Some((at, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
        {
            failed.extend(work(item).err().map(|error| (at, error)));
        }
        failed
    };
    let mut failed: Vec<(usize, String)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, items.len().max(1))).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    failed.sort();
    failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Every file of a folder and of those in it, in order.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "cu")
}

/// `release 13.0` in what `nvcc --version` says.
fn release(version: &str) -> Option<(u32, u32)> {
    let (_, rest) = version.split_once("release ")?;
    let (major, minor) = rest.split([',', '\n']).next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// FNV-1a, 128 bits: tells contents apart, as long as nobody makes them collide on purpose.
#[derive(Clone, Copy)]
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0x6c62272e07bb014262b821756295c58d)
    }
}

impl Fnv {
    /// Takes a piece, and that it ends here.
    fn write(&mut self, piece: &[u8]) {
        for &byte in piece.iter().chain(&(piece.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000000001000000000000000000013b);
        }
    }
}
