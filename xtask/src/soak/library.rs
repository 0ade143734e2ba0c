//! Builds the host's library of kernels with one source changed, as tests/softcuda/build.rs built the whole one: only
//! the objects of the kernel files that include it are made again.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::sites;
use crate::process::output;
use crate::tree;

/// The tests' programs, and how the library that they run was built.
pub(super) struct Built {
    programs: HashMap<String, PathBuf>,
    csrc: PathBuf,
    folder: PathBuf,
    library: PathBuf,
    compile: Vec<String>,
    link: Vec<String>,
}

impl Built {
    /// Builds these tests of the package.
    pub(super) fn tests(names: &[&str]) -> Result<Built, String> {
        let mut args = vec!["test", "--no-run", "--message-format=json-render-diagnostics", "-p", "vitrum"];
        names.iter().for_each(|name| args.extend(["--test", *name]));
        let mut command = tree::cargo(&args);
        command.stderr(std::process::Stdio::inherit());
        let text = output("cargo test --no-run", &mut command)?;
        let (mut programs, mut library) = (HashMap::new(), None);
        for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let name = message["target"]["name"].as_str().unwrap_or_default();
            if let Some(program) = message["executable"].as_str().filter(|_| names.contains(&name)) {
                programs.insert(name.to_owned(), PathBuf::from(program));
            }
            let variables = message["env"].as_array().into_iter().flatten();
            let is_library = |pair: &&Value| pair[0] == "SOFTCUDA_KERNELS";
            if let Some(pair) = variables.into_iter().find(is_library) {
                library = pair[1].as_str().map(PathBuf::from);
            }
        }
        let library = library.ok_or("cargo does not say where the build script of softcuda left its library")?;
        let folder = library.parent().expect("a file").to_owned();
        let arguments = |name: &str| -> Result<Vec<String>, String> {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let (compile, link) = (arguments("compile.txt")?, arguments("link.txt")?);
        if let Some(missing) = names.iter().find(|name| !programs.contains_key(**name)) {
            return Err(format!("cargo built no test {missing}"));
        }
        Ok(Built { programs, csrc: tree::root().join("csrc"), folder, library, compile, link })
    }

    /// A test's program.
    pub(super) fn program(&self, name: &str) -> &Path {
        &self.programs[name]
    }

    /// Builds the library, below `work`, in which file `changed` of csrc has this text, in one kernel file, `kernel`.
    /// The error is the compiler's.
    pub(super) fn changed(&self, work: &Path, changed: &Path, text: &str, kernel: &Path) -> Result<PathBuf, String> {
        let copied = self.copy_sources(work, changed, text).map_err(|error| format!("{}: {error}", work.display()))?;
        let stem = kernel.file_stem().and_then(|stem| stem.to_str()).expect("names are UTF-8");
        let unit_name = format!("{stem}.host");
        let unit = fs::read_to_string(self.folder.join(&unit_name).with_extension("host.cc"))
            .map_err(|error| format!("{unit_name}.cc: {error}"))?;
        let source = |csrc: &Path| format!("\"{}\"", csrc.join(kernel).display());
        let (before, after) = (source(&self.csrc), source(&copied));
        if !unit.contains(&before) {
            return Err(format!("{unit_name}.cc does not include {before}"));
        }
        let unit_path = work.join(format!("{unit_name}.cc"));
        fs::write(&unit_path, unit.replace(&before, &after)).map_err(|error| format!("{unit_name}.cc: {error}"))?;
        let (object, library) = (work.join(format!("{unit_name}.o")), work.join("libkernels.so"));
        let mut compile = command(&self.compile)?;
        output("g++", compile.arg("-c").arg(&unit_path).arg("-o").arg(&object))?;
        let mut link = self.link.clone();
        let mut replaced = 0;
        for argument in &mut link {
            if argument.ends_with(&format!("-{unit_name}.o")) {
                *argument = object.display().to_string();
                replaced += 1;
            } else if Path::new(argument.as_str()) == self.library {
                *argument = library.display().to_string();
                replaced += 1;
            }
        }
        if replaced != 2 {
            return Err(format!("the command that links {} is not as expected", self.library.display()));
        }
        output("g++", &mut command(&link)?)?;
        Ok(library)
    }

    /// Copies csrc, with that file changed; returns the copy's folder.
    fn copy_sources(&self, work: &Path, changed: &Path, text: &str) -> std::io::Result<PathBuf> {
        let to = work.join("csrc");
        for folder in ["common", "formats"] {
            fs::create_dir_all(to.join(folder))?;
        }
        for file in sites::sources(&self.csrc)? {
            if file == changed {
                fs::write(to.join(&file), text)?;
            } else {
                fs::copy(self.csrc.join(&file), to.join(&file))?;
            }
        }
        Ok(to)
    }
}

/// A command line, argument by argument.
fn command(arguments: &[String]) -> Result<Command, String> {
    let (program, rest) = arguments.split_first().ok_or("an empty command line")?;
    let mut command = Command::new(program);
    command.args(rest);
    Ok(command)
}
