//! What the emulated machine is made of, from Debian: the emulator's source, its BIOS, a kernel, a boot loader and a
//! shell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{output, run};
use crate::tools;

/// Bochs 3.0, which Debian 13 has. AVX512_BF16 came with 2.8; Debian 12 has 2.7. `dfsg`: without its BIOS binaries.
const SOURCE: &str = "/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz";
const SOURCE_SHA256: &str = "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b";
const SOURCE_FOLDER: &str = "bochs-3.0";
const CONFIGURE: [&str; 11] = [
    "--with-nogui",
    "--enable-x86-64",
    "--enable-cpu-level=6",
    "--enable-avx",
    "--enable-evex",
    "--enable-repeat-speedups",
    "--enable-fast-function-calls",
    "--enable-handlers-chaining",
    "--disable-show-ips", // it prints from a signal handler, which can lock up
    "--disable-docbook",
    "--disable-plugins",
];
/// The package that names Debian's newest kernel of the kind with the fewest drivers.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Fetches a file as apt does, and checks it.
pub(super) const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// Files of Debian packages: the package, and the file that is used.
const BIOS: (&str, &str) = ("bochsbios", "/usr/share/bochs/BIOS-bochs-latest");
const VGA_BIOS: (&str, &str) = ("vgabios", "/usr/share/vgabios/vgabios.bin");
const ISOLINUX: (&str, &str) = ("isolinux", "/usr/lib/ISOLINUX/isolinux.bin");
const LDLINUX: (&str, &str) = ("syslinux-common", "/usr/lib/syslinux/modules/bios/ldlinux.c32");
const XORRISO: (&str, &str) = ("xorriso", "/usr/bin/xorriso");
const BUSYBOX: (&str, &str) = ("busybox-static", "/bin/busybox");
const COMPILER: (&str, &str) = ("g++", "/usr/bin/g++");
const MAKE: (&str, &str) = ("make", "/usr/bin/make");
const XZ: (&str, &str) = ("xz-utils", "/usr/bin/xz");
const STRIP: (&str, &str) = ("binutils", "/usr/bin/strip");
const FILES: [(&str, &str); 10] = [BIOS, VGA_BIOS, ISOLINUX, LDLINUX, XORRISO, BUSYBOX, COMPILER, MAKE, XZ, STRIP];

pub(super) struct Needs {
    pub(super) bochs: PathBuf,
    pub(super) bios: PathBuf,
    pub(super) vga_bios: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) boot_sector: PathBuf,
    pub(super) loader: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Finds everything; installs, fetches or builds what is missing.
pub(super) fn get(folder: &Path) -> Result<Needs, String> {
    let missing: Vec<_> = FILES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        tools::install(&missing)?;
    }
    if let Some((package, file)) = FILES.iter().find(|(_, file)| !Path::new(file).exists()) {
        return Err(format!("package {package} is installed and there is no {file}"));
    }
    Ok(Needs {
        bochs: bochs(folder)?,
        kernel: kernel(folder)?,
        bios: BIOS.1.into(),
        vga_bios: VGA_BIOS.1.into(),
        boot_sector: ISOLINUX.1.into(),
        loader: LDLINUX.1.into(),
        busybox: BUSYBOX.1.into(),
    })
}

/// The emulator, built once.
fn bochs(folder: &Path) -> Result<PathBuf, String> {
    let (source, built) = (folder.join(SOURCE_FOLDER), folder.join(format!("{SOURCE_FOLDER}.built")));
    if built.exists() {
        return Ok(built);
    }
    eprintln!("building the emulator: some minutes, once");
    let archive = folder.join("bochs.tar.xz");
    let mut fetch = Command::new(APT_HELPER);
    fetch
        .args(["download-file", &format!("{}{SOURCE}", mirror()?)])
        .arg(&archive)
        .arg(format!("SHA256:{SOURCE_SHA256}"));
    run("apt-helper download-file", fetch, io::sink())?;
    fs::remove_dir_all(&source).ok();
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&archive).arg("-C").arg(folder);
    run("tar", unpack, io::sink())?;
    let mut configure = Command::new("./configure");
    configure.args(CONFIGURE).env("CFLAGS", "-O2 -w").env("CXXFLAGS", "-O2 -w").current_dir(&source);
    run("configure", configure, io::sink())?;
    let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut make = Command::new("make");
    make.arg(format!("-j{jobs}")).arg("bochs").current_dir(&source);
    run("make", make, io::sink())?;
    fs::rename(source.join("bochs"), &built).map_err(|error| format!("{}: {error}", built.display()))?;
    fs::remove_dir_all(&source).ok();
    Ok(built)
}

/// The address that this machine has Debian's packages from.
fn mirror() -> Result<String, String> {
    let ask = || {
        let mut ask = Command::new("apt-get");
        let text = output("apt-get download", ask.args(["download", "--quiet", "--print-uris", BIOS.0]))?;
        mirror_of(&text).ok_or(format!("apt-get names no place of package {}: {text}", BIOS.0))
    };
    ask().or_else(|_| tools::update_packages().and_then(|()| ask()))
}

/// Of a line like `'http://a.mirror/debian/pool/main/b/bochs/bochsbios_2.7_all.deb' bochsbios_2.7_all.deb 1 SHA256:1`.
fn mirror_of(uris: &str) -> Option<String> {
    let uris = uris.lines().filter_map(|line| line.strip_prefix('\'')?.split('\'').next());
    uris.filter_map(|uri| uri.split_once("/pool/")).map(|(mirror, _)| mirror.to_owned()).next_back()
}

/// Debian's kernel, taken out of its package: it is not to be installed here.
fn kernel(folder: &Path) -> Result<PathBuf, String> {
    let kernel = folder.join("vmlinuz");
    if kernel.exists() {
        return Ok(kernel);
    }
    let named = || {
        let depends = output("apt-cache depends", Command::new("apt-cache").args(["depends", KERNEL]))?;
        let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned));
        name.ok_or(format!("package {KERNEL} depends on no kernel"))
    };
    let package = folder.join("kernel-package");
    let download = |name: &str| {
        fs::remove_dir_all(&package).ok();
        fs::create_dir_all(&package).map_err(|error| format!("{}: {error}", package.display()))?;
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet", name]).current_dir(&package);
        run("apt-get download", download, io::sink())
    };
    // A list of packages that is missing or old names a kernel that is no longer there.
    if named().and_then(|name| download(&name)).is_err() {
        tools::update_packages()?;
        download(&named()?)?;
    }
    let archive = only_file(&package, ".deb")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&archive).arg(&package);
    run("dpkg-deb", unpack, io::sink())?;
    let unpacked = only_file(&package.join("boot"), "amd64")?;
    fs::rename(&unpacked, &kernel).map_err(|error| format!("{}: {error}", unpacked.display()))?;
    fs::remove_dir_all(&package).ok();
    Ok(kernel)
}

/// The file whose name has this end, and is a kernel's if there are others.
fn only_file(folder: &Path, end: &str) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(end) && (end == ".deb" || name.starts_with("vmlinuz-"))
    };
    entries.flatten().map(|entry| entry.path()).find(is_it).ok_or(format!("{}: no *{end}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::mirror_of;

    #[test]
    fn the_mirror_stands_before_the_pool() {
        let text = "Reading...\n'http://a.mirror/debian/pool/main/b/bochs/x_1_all.deb' x_1_all.deb 5 SHA256:ab\n";
        assert_eq!(mirror_of(text).as_deref(), Some("http://a.mirror/debian"));
        assert_eq!(mirror_of("E: Unable to locate package x\n"), None);
    }
}
