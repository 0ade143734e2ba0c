//! An initial file system for Linux: a cpio archive in the "newc" format, which the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The archive as it grows.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, and the folders that it is in. Paths are absolute.
    pub(super) fn folder(&mut self, path: &str) {
        let above: Vec<_> = Path::new(path).ancestors().filter_map(Path::to_str).filter(|path| *path != "/").collect();
        for path in above.into_iter().rev() {
            if self.folders.insert(path.to_owned()) {
                self.entry(path, FOLDER, &[]);
            }
        }
    }

    /// Adds a file that may be run.
    pub(super) fn program(&mut self, path: &str, data: &[u8]) {
        if let Some(folder) = Path::new(path).parent().and_then(Path::to_str) {
            self.folder(folder);
        }
        self.entry(path, PROGRAM, data);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
        // inode, mode, user, group, links, time, size, device (major, minor), the same of a device file, name, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        fields.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").bytes()));
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_once_and_first() {
        let mut archive = Archive::default();
        archive.program("/a/b/one", b"12345");
        archive.program("/a/two", b"");
        let bytes = archive.finish();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701", "an entry starts at {at}");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * index..][..8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[at + 110..][..name_size - 1].to_vec()).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            names.push((name, mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        let entry = |name: &str, mode: u32, data: &[u8]| (name.to_owned(), mode as usize, data.to_vec());
        let expected = [
            entry("a", FOLDER, b""),
            entry("a/b", FOLDER, b""),
            entry("a/b/one", PROGRAM, b"12345"),
            entry("a/two", PROGRAM, b""),
            entry("TRAILER!!!", 0, b""),
        ];
        assert_eq!(names, expected);
    }
}
