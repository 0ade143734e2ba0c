//! How much memory this process may use: the machine's, or what its control group allows, if that is less.

use std::fs;
use std::path::{Path, PathBuf};

/// The limit in bytes.
pub(super) fn memory_limit_bytes() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| parse_limit(&fs::read_to_string(path).ok()?));
    limits.chain([physical_bytes()]).min().unwrap_or(u64::MAX)
}

/// The files that may hold a limit: of the process's control groups and of all groups above them, which bind too.
/// Inside a container the path of the group is often not visible, and its root is the container's own group.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path; the unified hierarchy (version 2) names no controllers
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        files.extend(Path::new(path).ancestors().map(|group| {
            let below_root = group.strip_prefix("/").unwrap_or(group);
            Path::new(root).join(below_root).join(file)
        }));
    }
    files
}

/// `max` is no limit; version 1 writes a number near 2⁶³ for that, which is above any machine's memory.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(unix)]
fn physical_bytes() -> u64 {
    // SAFETY: sysconf only reads its argument.
    let (pages, page_bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(page_bytes)) {
        (Ok(pages), Ok(page_bytes)) if pages > 0 => pages * page_bytes,
        _ => u64::MAX, // unknown: no limit of ours
    }
}

#[cfg(not(unix))]
fn physical_bytes() -> u64 {
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_the_group_and_above() {
        let check = |groups: &str, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(limit_files(groups), expected);
        };
        check(
            "0::/user/app\n",
            &["/sys/fs/cgroup/user/app/memory.max", "/sys/fs/cgroup/user/memory.max", "/sys/fs/cgroup/memory.max"],
        );
        check(
            "9:name=systemd:/\n4:cpuset,memory:/a\n1:cpu:/a\nnonsense\n",
            &["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
        );
        check("", &[]);
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("536870912\n"), Some(512 << 20));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_limit_bytes() > 64 << 20);
        assert!(memory_limit_bytes() <= physical_bytes());
    }
}
