//! Where the kernels synchronise, found in their text.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is removed, and what that is. Not `pdl_trigger`: nothing waits for it, and `cargo xtask kernels` misses it.
const CALLS: [(&str, &str); 6] = [
    ("__syncthreads", "barrier"),
    ("__syncwarp", "barrier"),
    ("__threadfence", "fence"),
    ("copy_async_commit", "copy commit"),
    ("copy_async_wait", "copy wait"),
    ("pdl_wait", "dependency wait"),
];
/// The file that says what the calls are.
const DEFINITIONS: &str = "ptx.cuh";
/// What a dependency wait is also replaced by: it then comes when the thread ends (tests/softcuda/simt/ptx.h).
const WAIT_AT_THE_END: &str = "simt::pdl_wait_at_the_end()";
const NOTHING: &str = "((void)0)";

/// A call in a source file, and what is put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Relative to csrc.
    pub(super) file: PathBuf,
    /// Counted from 1.
    pub(super) line: usize,
    /// Where the call is in the file, without its semicolon.
    pub(super) range: Range<usize>,
    pub(super) kind: &'static str,
    pub(super) id: Id,
    pub(super) replacement: &'static str,
}

/// What a site is called: the same after changes elsewhere in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) file: String,
    pub(super) function: String,
    /// As `__syncthreads`; `late pdl_wait` if it is not removed but comes last.
    pub(super) call: String,
    /// Which of these calls in the function, from 1.
    pub(super) number: usize,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} | {} | {} | {}", self.file, self.function, self.call, self.number)
    }
}

impl Site {
    /// The file's text without the call.
    pub(super) fn mutated(&self, text: &str) -> String {
        format!("{}{}{}", &text[..self.range.start], self.replacement, &text[self.range.end..])
    }
}

/// Every site of a folder like csrc, file by file.
pub(super) fn find_all(csrc: &Path) -> io::Result<Vec<Site>> {
    let mut sites = Vec::new();
    for file in sources(csrc)? {
        if file.file_name().is_some_and(|name| name != DEFINITIONS) {
            sites.extend(find(&file, &fs::read_to_string(csrc.join(&file))?));
        }
    }
    Ok(sites)
}

/// The `.cu` files and headers, relative to the folder.
pub(super) fn sources(csrc: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["", "common", "formats"] {
        for entry in fs::read_dir(csrc.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| ["cu", "cuh", "h"].iter().any(|known| end == *known)) {
                files.push(path.strip_prefix(csrc).expect("inside").to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The sites of one file.
pub(super) fn find(file: &Path, text: &str) -> Vec<Site> {
    let (mut sites, mut function, mut begin) = (Vec::<Site>::new(), String::new(), 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(name) = function_of(code) {
            function = name.to_owned();
        }
        for (call, kind) in CALLS {
            for (at, _) in code.match_indices(call) {
                let Some(length) = call_length(code, at, call) else { continue };
                let site = |call: String, kind, replacement| {
                    let is_same = |id: &Id| id.function == function && id.call == call;
                    let number = 1 + sites.iter().filter(|site| is_same(&site.id)).count();
                    let id = Id { file: file.display().to_string(), function: function.clone(), call, number };
                    let range = begin + at..begin + at + length;
                    Site { file: file.to_owned(), line: index + 1, range, kind, id, replacement }
                };
                let removed = site(call.to_owned(), kind, NOTHING);
                let late = (call == "pdl_wait").then(|| site(format!("late {call}"), "late wait", WAIT_AT_THE_END));
                sites.push(removed);
                sites.extend(late);
            }
        }
        begin += line.len();
    }
    sites
}

/// How long the statement is that calls `call` at `at`, up to its semicolon; `None` if there is no such statement.
fn call_length(code: &str, at: usize, call: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (before, after) = (&code[..at], &code[at + call.len()..]);
    if before.ends_with(is_word) || after.starts_with(is_word) {
        return None;
    }
    let end = at + call.len() + after.find(';')?;
    code[at..end].ends_with(')').then_some(end - at)
}

/// The name of the device function or kernel whose head begins on this line.
fn function_of(code: &str) -> Option<&str> {
    let head = code.trim_start();
    let words = ["__device__", "VITRUM_KERNEL", "static __device__", "__host__ __device__"];
    if !words.iter().any(|word| head.starts_with(word)) || head.trim_end().ends_with(';') {
        return None;
    }
    // The first parenthesis that is not of the launch bounds or an attribute.
    let (open, _) = head.match_indices('(').find(|(at, _)| !head[..*at].ends_with("__launch_bounds__"))?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '#';
    let name = head[..open].rsplit(|c| !is_word(c)).next()?;
    (!name.is_empty()).then_some(name)
}

/// The files that a source includes by a path of its own, and those that they include: paths relative to the folder.
pub(super) fn includes(csrc: &Path, file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![file.to_owned()];
    let mut next = 0;
    while let Some(file) = all.get(next) {
        let text = fs::read_to_string(csrc.join(file))?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        for line in text.lines() {
            let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) else { continue };
            let path = match name.strip_prefix("../") {
                Some(above) => PathBuf::from(above),
                None => folder.join(name),
            };
            if !all.contains(&path) {
                all.push(path);
            }
        }
        next += 1;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    const TEXT: &str = "\
// __syncthreads(); in a comment
template <int N>
__device__ __forceinline__ void first(int a) {
    if (a > 0) __syncthreads();  // the one before
    copy_async_wait<N - 1>();
    my__syncwarp();
    __syncwarp_all();
}

struct S {
    __device__ float second(
        int b) const {
        __syncthreads();
        __syncthreads();
    }
};

#define KERNEL(DIM) \\
    VITRUM_KERNEL __launch_bounds__(THREADS) kernel_##DIM(const P p) { \\
        pdl_wait(); \\
    }
";

    #[test]
    fn sites_are_found_with_their_functions() {
        let sites = find(Path::new("common/a.cuh"), TEXT);
        let ids: Vec<String> = sites.iter().map(|site| site.id.to_string()).collect();
        let expected = [
            "first | __syncthreads | 1",
            "first | copy_async_wait | 1",
            "second | __syncthreads | 1",
            "second | __syncthreads | 2",
            "kernel_##DIM | pdl_wait | 1",
            "kernel_##DIM | late pdl_wait | 1",
        ];
        assert_eq!(ids, expected.map(|id| format!("common/a.cuh | {id}")));
        assert_eq!(sites.iter().map(|site| site.line).collect::<Vec<_>>(), [4, 5, 13, 14, 20, 20]);
        let removed = sites[0].mutated(TEXT);
        assert!(removed.contains("    if (a > 0) ((void)0);  // the one before\n"), "{removed}");
        assert!(sites[1].mutated(TEXT).contains("    ((void)0);\n"));
        assert!(sites[5].mutated(TEXT).contains("        simt::pdl_wait_at_the_end(); \\\n"));
    }

    #[test]
    fn every_call_in_csrc_is_a_site() {
        let csrc = tree::root().join("csrc");
        let sites = find_all(&csrc).expect("csrc");
        assert!(sites.iter().all(|site| !site.id.function.is_empty()), "{sites:?}");
        // Counted in another way: the name and a parenthesis on a line that is no comment.
        let mut count = 0;
        for file in sources(&csrc).expect("csrc").iter().filter(|file| !file.ends_with(DEFINITIONS)) {
            let text = fs::read_to_string(csrc.join(file)).expect("a source");
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            count +=
                code.map(|code| CALLS.iter().map(|(call, _)| code.matches(call).count()).sum::<usize>()).sum::<usize>();
        }
        assert_eq!(sites.iter().filter(|site| site.replacement == NOTHING).count(), count);
        assert!(count > 40, "{count}");
    }

    #[test]
    fn headers_are_followed() {
        let all = includes(&tree::root().join("csrc"), Path::new("norm_qkv.cu")).expect("csrc");
        for file in ["norm_qkv.cu", "common/entry.cuh", "common/product.cuh", "common/ptx.cuh", "params.h"] {
            assert!(all.iter().any(|path| path == Path::new(file)), "{file} in {all:?}");
        }
        assert!(!all.contains(&PathBuf::from("common/attention.cuh")));
    }
}
