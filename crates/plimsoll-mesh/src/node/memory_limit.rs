//! How much memory this process may use: the cgroup's limit, version 2 or 1, else the machine's memory.

use std::fs;
use std::path::Path;

/// Where the figure came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The lowest `memory.max` from the process's cgroup upwards.
    CgroupV2,
    /// `memory.limit_in_bytes`, the lowest from the process's cgroup upwards.
    CgroupV1,
    /// `MemTotal`.
    Machine,
}

/// Bytes that this process may use, and where the figure comes from. `None` when the system has none.
pub fn memory() -> Option<(u64, Source)> {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> Option<(u64, Source)> {
    let machine = meminfo(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut lowest = (machine, Source::Machine);
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (folder, file, source) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", Source::CgroupV2),
            list if list.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes", Source::CgroupV1)
            }
            _ => continue,
        };
        // A container sees its own group as the root of the mount, whatever /proc/self/cgroup says: both ways are walked.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = fs::read_to_string(root.join(folder).join(group).join(file)).ok();
            let limit = limit.and_then(|text| text.trim().parse().ok());
            lowest = limit.filter(|&limit| limit < lowest.0).map_or(lowest, |limit| (limit, source));
        }
    }
    Some(lowest)
}

fn meminfo(text: &str) -> Option<u64> {
    let kibibytes: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn without_a_limit_it_is_the_machine() {
        let root = machine(&[("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")]);
        assert_eq!(memory_below(root.path()), Some((1_024_000, Source::Machine)));
        assert_eq!(memory_below(machine(&[]).path()), Some((1_024_000, Source::Machine)));
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "9000\n"),
            ("sys/fs/cgroup/a/memory.max", "7000\n"),
        ];
        assert_eq!(memory_below(machine(&files).path()), Some((7_000, Source::CgroupV2)));
    }

    #[test]
    fn version_1_is_read_too_and_its_word_for_no_limit_is_none() {
        let group = ("proc/self/cgroup", "12:cpu,memory:/box\n3:pids:/box\n");
        let limited = [group, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "500\n")];
        assert_eq!(memory_below(machine(&limited).path()), Some((500, Source::CgroupV1)));
        let open = [group, ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(memory_below(machine(&open).path()), Some((1_024_000, Source::Machine)));
    }
}
