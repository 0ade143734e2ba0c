//! The disc that the emulated machine boots from.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::initramfs::Archive;
use super::needs::Needs;
use super::report::{END, run_line};
use crate::process::{output, run};

/// A run of a test binary: its name, where it is, the tests to run (all if there are none).
pub(super) type Run<'a> = (&'a str, &'a Path, &'a [&'a str]);

/// Where the emulated tests may write.
const SCRATCH: &str = "/scratch";

/// Makes the disc.
pub(super) fn make(folder: &Path, needs: &Needs, runs: &[Run], kernel_args: &str) -> Result<PathBuf, String> {
    let (tree, disc) = (folder.join("disc"), folder.join("disc.iso"));
    fs::remove_dir_all(&tree).ok();
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    let config = format!("DEFAULT run\nPROMPT 0\nLABEL run\nKERNEL vmlinuz\nINITRD initrd\nAPPEND {kernel_args}\n");
    let write = |name: &str, data: &[u8]| {
        let path = tree.join(name);
        fs::write(&path, data).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("isolinux.cfg", config.as_bytes())?;
    write("isolinux.bin", &read(&needs.boot_sector)?)?;
    write("ldlinux.c32", &read(&needs.loader)?)?;
    write("vmlinuz", &read(&needs.kernel)?)?;
    write("initrd", &file_system(folder, needs, runs)?)?;
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"]);
    command.args(["-boot-load-size", "4", "-boot-info-table", "-o"]).arg(&disc).arg(&tree);
    run("xorriso", command, io::sink())?;
    Ok(disc)
}

/// The initial file system, which is the only one.
fn file_system(folder: &Path, needs: &Needs, runs: &[Run]) -> Result<Vec<u8>, String> {
    let mut archive = Archive::default();
    for empty in ["/proc", "/sys", "/dev", SCRATCH] {
        archive.folder(empty);
    }
    archive.program("/init", init(runs).as_bytes());
    archive.program("/bin/busybox", &read(&needs.busybox)?);
    let mut libraries = libraries(&needs.busybox)?;
    for (name, path, _) in runs {
        // Debug information is most of a test binary, and the emulated disc is slow.
        let stripped = folder.join("stripped");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped).arg(path);
        run("strip", strip, io::sink())?;
        archive.program(&format!("/tests/{name}"), &read(&stripped)?);
        libraries.extend(self::libraries(path)?);
    }
    for library in libraries {
        let path = library.to_str().ok_or(format!("{}: a name of strange letters", library.display()))?;
        archive.program(path, &read(&library)?);
    }
    Ok(archive.finish())
}

/// The first process: runs every binary and switches the machine off.
fn init(runs: &[Run]) -> String {
    let mut script = "#!/bin/busybox sh\n\
                      /bin/busybox mount -t proc proc /proc\n\
                      /bin/busybox mount -t sysfs sys /sys\n\
                      /bin/busybox mount -t devtmpfs dev /dev\n\
                      exec >/dev/ttyS0 2>&1 </dev/null\n"
        .to_owned();
    script += &format!("export HOME={SCRATCH} TMPDIR={SCRATCH}\n");
    for (name, _, tests) in runs {
        let which = if tests.is_empty() { String::new() } else { format!(" --exact {}", tests.join(" ")) };
        script += &format!("echo '{}'\n", run_line(name));
        script += &format!("/tests/{name} --test-threads 1 --nocapture{which}\n");
        script += "echo \"exit status $?\"\n";
    }
    // The serial port is slow, and switching off does not wait for it.
    script + &format!("echo '{END}'\n/bin/busybox sleep 5\n/bin/busybox poweroff -f\n")
}

/// The libraries of a program, with the loader; none if it is linked statically.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let text = match output("ldd", Command::new("ldd").arg(program).env("LC_ALL", "C")) {
        Ok(text) => text,
        Err(error) if error.contains("not a dynamic executable") => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        return Err(format!("{}: {}", program.display(), line.trim()));
    }
    Ok(paths(&text))
}

/// The paths in lines like `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn paths(ldd: &str) -> BTreeSet<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = paths(text).into_iter().collect();
        assert_eq!(found, [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }

    #[test]
    fn the_script_runs_what_was_asked_for() {
        let script = init(&[("one", Path::new("x"), &["a", "b"]), ("two", Path::new("y"), &[])]);
        assert!(script.contains("/tests/one --test-threads 1 --nocapture --exact a b\n"), "{script}");
        assert!(script.contains("/tests/two --test-threads 1 --nocapture\n"), "{script}");
    }
}
