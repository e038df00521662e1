//! A process's memory without guest RAM, from /proc/PID/smaps (proc(5)). A mapping counts as guest RAM if it is anonymous (or of a
//! memfd) and at least half as large as the guest's memory, since a monitor may split RAM at the gap below 4 GiB.

/// Resident memory in KiB, including memory shared with other processes.
pub(super) fn resident_kib(smaps: &str, mem_mib: u32) -> u64 {
    sum(smaps, mem_mib, &["Rss:"])
}

/// Private memory in KiB.
pub(super) fn private_kib(smaps: &str, mem_mib: u32) -> u64 {
    sum(smaps, mem_mib, &["Private_Clean:", "Private_Dirty:"])
}

/// The sum of these fields over all mappings except guest RAM.
fn sum(smaps: &str, mem_mib: u32, names: &[&str]) -> u64 {
    let guest_kib = u64::from(mem_mib) * 1024 / 2;
    let mut total = 0;
    let mut is_anonymous = false;
    let mut is_guest = false;
    for line in smaps.lines() {
        if let Some(size) = field(line, "Size:") {
            is_guest = is_anonymous && size >= guest_kib;
        } else if let Some(kib) = names.iter().find_map(|name| field(line, name)) {
            total += if is_guest { 0 } else { kib };
        } else if let Some(mapping) = Mapping::parse(line) {
            is_anonymous = mapping.is_anonymous();
        }
    }
    total
}

fn field(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()
}

/// The first line of a mapping: `start-end permissions offset device inode path`.
struct Mapping<'a> {
    inode: &'a str,
    path: Option<&'a str>,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        u64::from_str_radix(start, 16).ok().and(u64::from_str_radix(end, 16).ok())?;
        Some(Self { inode: words.nth(3)?, path: words.next() })
    }

    fn is_anonymous(&self) -> bool {
        let is_memory_file =
            |path: &str| ["/memfd:", "/dev/zero", "/dev/shm/"].iter().any(|start| path.starts_with(start));
        self.inode == "0" || self.path.is_some_and(is_memory_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str =
        "55d0a000-55d0b000 r-xp 00000000 fe:00 1234   /bin/vmm\nSize:  300000 kB\nRss:  900 kB\n";
    const RAM: &str = "7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \nSize:  262144 kB\nRss:  50000 kB\n";
    const MEMFD: &str = "7f0000000000-7f0010000000 rw-s 00000000 00:01 99 /memfd:ram (deleted)\nSize:  131072 kB\nRss: 7 kB\n";
    const HEAP: &str = "55d0c000-55d0d000 rw-p 00000000 00:00 0 [heap]\nSize:  132 kB\nRss:  40 kB\n";

    #[test]
    fn resident_guest_ram_is_left_out() {
        assert_eq!(resident_kib(&[PROGRAM, RAM, HEAP].concat(), 256), 940);
    }

    #[test]
    fn private_clean_and_dirty_of_the_monitor_are_summed_up() {
        let ram = [RAM, "Private_Dirty:  50000 kB\n"].concat();
        let heap = [HEAP, "Private_Clean:  3 kB\nPrivate_Dirty:  30 kB\nPrivate_Hugetlb:  0 kB\n"].concat();
        assert_eq!(private_kib(&[ram, heap].concat(), 256), 33);
    }

    #[test]
    fn resident_half_of_ram_in_a_memfd_is_left_out() {
        assert_eq!(resident_kib(&[MEMFD, HEAP].concat(), 256), 40);
    }
}
