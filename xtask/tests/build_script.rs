//! build.rs at work in a package of its own, with a compiler that only notes what it is asked for: when kernels are
//! embedded, when they are compiled, and when nothing runs at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An "image" is the source behind the first bytes of an ELF file. A source that says so does not compile.
const NVCC: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release RELEASE, V0"; exit; fi
for word; do [ "$before" = -o ] && out=$word; before=$word; done
echo "$*" >> "$(dirname "$0")/calls.txt"
if grep -q does_not_compile "$before"; then echo "an error in words" >&2; exit 1; fi
{ printf '\177ELF'; cat "$before"; } > "$out"
"#;

const MANIFEST: &str = "[package]\nname = \"scratch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
    [features]\ncuda = []\n\n[workspace]\n";
const MAIN: &str = "mod images;\nfn main() {\n    for image in images::IMAGES {\n        \
    println!(\"{} {} {}\", image.file, image.arch, image.bytes.len());\n    }\n    \
    assert!(images::images_for((1, 0)).is_empty());\n}\n";

/// The package.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::remove_dir_all(&folder).ok();
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let scratch = Scratch(folder);
        for (to, from) in [
            ("build.rs", "build.rs"),
            ("build/nvcc.rs", "build/nvcc.rs"),
            ("src/images.rs", "src/device/cuda/images.rs"),
        ] {
            scratch.write(to, &fs::read_to_string(tree.join(from)).unwrap());
        }
        scratch.write("Cargo.toml", MANIFEST);
        scratch.write("src/main.rs", MAIN);
        scratch.write("csrc/one.cu", "one");
        scratch.write("csrc/common/part.cuh", "part");
        scratch
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A compiler in a folder `bin` of this one.
    fn compiler(&self, folder: &str, release: &str) -> PathBuf {
        let file = format!("{folder}/bin/nvcc");
        self.write(&file, &NVCC.replace("RELEASE", release));
        let path = self.0.join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// How often that compiler was run.
    fn calls(&self, folder: &str) -> usize {
        fs::read_to_string(self.0.join(folder).join("bin/calls.txt")).unwrap_or_default().lines().count()
    }

    fn cargo(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(args).arg("--offline").current_dir(&self.0);
        // A machine's own compiler is not to be found.
        let search = std::env::var_os("PATH").unwrap_or_default();
        let search = std::env::split_paths(&search).filter(|folder| !folder.join("nvcc").exists());
        cargo.env("PATH", std::env::join_paths(search).unwrap()).env("CARGO_TARGET_DIR", self.0.join("target"));
        cargo.env_remove("CUDA_HOME").env_remove("VITRUM_CUDA_ARCHS").envs(variables.iter().copied());
        cargo.output().unwrap()
    }

    /// What the program says of its images.
    fn images(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.cargo(&[&["run", "--quiet"], args].concat(), variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a build that has to fail says.
    fn error(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.cargo(&[&["build"], args].concat(), variables);
        assert!(!output.status.success(), "{args:?} {variables:?} builds");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Whether a build finds all as it left it.
    fn is_fresh(&self, variables: &[(&str, &str)]) -> bool {
        let output = self.cargo(&["build", "--verbose"], variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).contains("Fresh scratch")
    }
}

#[test]
fn without_a_compiler_there_are_no_images_unless_they_are_asked_for() {
    let scratch = Scratch::new("build-without");
    assert_eq!(scratch.images(&[], &[]), "");
    assert!(scratch.is_fresh(&[]), "the build script runs every time");
    let error = scratch.error(&["--features", "cuda"], &[]);
    assert!(error.contains("feature `cuda`: no nvcc was found: run `cargo xtask cuda-toolchain`"), "{error}");
    scratch.compiler("old", "11.8");
    let old = scratch.0.join("old");
    let error = scratch.error(&["--features", "cuda"], &[("CUDA_HOME", old.to_str().unwrap())]);
    assert!(error.contains("is of CUDA 11.8, at least 12.8 is needed"), "{error}");
    // What cargo xtask cuda-toolchain does.
    let nvcc = scratch.compiler("new", "13.0");
    scratch.write("target/cuda-toolchain.txt", nvcc.to_str().unwrap());
    assert_eq!(scratch.images(&["--features", "cuda"], &[]), "one sm_90a 7\n");
    assert_eq!(scratch.images(&[], &[("VITRUM_CUDA_ARCHS", "none")]), "");
    let error = scratch.error(&["--features", "cuda"], &[("VITRUM_CUDA_ARCHS", "none")]);
    assert!(error.contains("VITRUM_CUDA_ARCHS is none"), "{error}");
}

#[test]
fn an_image_is_compiled_once_for_all_builds_and_again_when_its_text_changes() {
    let scratch = Scratch::new("build-with");
    scratch.compiler("cuda", "12.8");
    let home = scratch.0.join("cuda");
    let home = ("CUDA_HOME", home.to_str().unwrap());
    assert_eq!(scratch.images(&[], &[home]), "one sm_90a 7\n");
    assert!(scratch.is_fresh(&[home]), "the build script runs every time");
    // A release build has the same, and PTX: with a zero byte behind it.
    assert_eq!(scratch.images(&["--release"], &[home]), "one sm_90a 7\none compute_90 8\n");
    assert_eq!(scratch.calls("cuda"), 2);
    let all = scratch.images(&[], &[home, ("VITRUM_CUDA_ARCHS", "all")]);
    let archs: Vec<&str> = all.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(archs, ["sm_80", "sm_90a", "sm_100", "sm_120", "compute_90"]);
    assert_eq!(scratch.calls("cuda"), 5);
    let error = scratch.error(&[], &[home, ("VITRUM_CUDA_ARCHS", "sm_90a,sm_1")]);
    assert!(error.contains("VITRUM_CUDA_ARCHS: no architecture is named \"sm_1\""), "{error}");
    // A new file is one more; a changed header, all of them; the old text again, none.
    scratch.write("csrc/two.cu", "two two");
    assert_eq!(scratch.images(&[], &[home]), "one sm_90a 7\ntwo sm_90a 11\n");
    assert_eq!(scratch.calls("cuda"), 6);
    scratch.write("csrc/common/part.cuh", "another part");
    assert_eq!(scratch.images(&[], &[home]).lines().count(), 2);
    assert_eq!(scratch.calls("cuda"), 8);
    scratch.write("csrc/common/part.cuh", "part");
    assert_eq!(scratch.images(&[], &[home]).lines().count(), 2);
    assert_eq!(scratch.calls("cuda"), 8);
    // What does not compile fails the build, in the compiler's words.
    scratch.write("csrc/two.cu", "does_not_compile");
    let error = scratch.error(&[], &[home]);
    assert!(error.contains("csrc/two.cu for sm_90a: nvcc failed:\n"), "{error}");
    assert!(error.contains("an error in words"), "{error}");
    fs::remove_file(scratch.0.join("csrc/two.cu")).unwrap();
    assert_eq!(scratch.images(&[], &[home]), "one sm_90a 7\n");
}
