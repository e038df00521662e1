//! Writes "newc" cpio archives, the format of initramfs images (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). The output is reproducible: no time stamps,
//! no owner, inodes counted from 1.

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// Names and contents are padded to this, counted from the start of the archive.
const ALIGN: usize = 4;

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// An archive under construction. A directory must be added before its contents, because the kernel creates
/// entries in order.
///
/// ```
/// let mut archive = rig::newc::Archive::new();
/// archive.dir("bin", 0o755);
/// archive.file("bin/hello", 0o755, b"#!/bin/sh\necho hello\n");
/// archive.symlink("init", "bin/hello");
/// assert!(archive.finish().starts_with(b"070701"));
/// ```
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    last_inode: u32,
}

struct Header {
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. `permissions` are the lower twelve mode bits; `path` is relative to the root.
    pub fn dir(&mut self, path: &str, permissions: u32) {
        self.entry(path, &[], Header { mode: S_IFDIR | permissions, links: 2, device: (0, 0) });
    }

    /// Adds a regular file. Panics at contents of 4 GiB and more, which exceed the format; no guest here
    /// could unpack such an initramfs anyway.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, contents, Header { mode: S_IFREG | permissions, links: 1, device: (0, 0) });
    }

    /// Adds a symbolic link at `path` that points to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, target.as_bytes(), Header { mode: S_IFLNK | 0o777, links: 1, device: (0, 0) });
    }

    /// Adds a character device node with the given major and minor number.
    pub fn char_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, &[], Header { mode: S_IFCHR | permissions, links: 1, device });
    }

    /// Completes the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.last_inode = 0;
        self.write(0, TRAILER, &[], &Header { mode: 0, links: 1, device: (0, 0) });
        self.bytes
    }

    fn entry(&mut self, path: &str, contents: &[u8], header: Header) {
        self.last_inode += 1;
        self.write(self.last_inode, path.trim_start_matches('/'), contents, &header);
    }

    fn write(&mut self, inode: u32, name: &str, contents: &[u8], header: &Header) {
        let contents_len = u32::try_from(contents.len()).expect("an initramfs file is smaller than 4 GiB");
        let name_len = u32::try_from(name.len() + 1).expect("a path is shorter than 4 GiB");
        let (major, minor) = header.device;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields =
            [inode, header.mode, 0, 0, header.links, 0, contents_len, 0, 0, major, minor, name_len, 0];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Parsed {
        inode: u32,
        mode: u32,
        mtime: u32,
        device: (u32, u32),
        name: String,
        contents: Vec<u8>,
    }

    /// Parses the entry at `at`; returns it and the position of the next one.
    fn parse(bytes: &[u8], at: usize) -> (Parsed, usize) {
        assert_eq!(at % ALIGN, 0);
        assert_eq!(&bytes[at..at + 6], MAGIC.as_bytes());
        let field = |index: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + index * 8..at + 14 + index * 8]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let name_at = at + 6 + 13 * 8;
        let name_end = name_at + field(11) as usize;
        let contents_at = name_end.next_multiple_of(ALIGN);
        let contents_end = contents_at + field(6) as usize;
        assert_eq!(bytes[name_end - 1], 0);
        let parsed = Parsed {
            inode: field(0),
            mode: field(1),
            mtime: field(5),
            device: (field(9), field(10)),
            name: String::from_utf8(bytes[name_at..name_end - 1].to_vec()).unwrap(),
            contents: bytes[contents_at..contents_end].to_vec(),
        };
        (parsed, contents_end.next_multiple_of(ALIGN))
    }

    #[test]
    fn archive_every_kind_reads_back() {
        let mut archive = Archive::new();
        archive.dir("dev", 0o755);
        archive.char_device("dev/console", 0o600, (5, 1));
        archive.file("/init", 0o755, b"12345");
        archive.symlink("sh", "init");
        let bytes = archive.finish();

        let (dir, next) = parse(&bytes, 0);
        let (console, next) = parse(&bytes, next);
        let (init, next) = parse(&bytes, next);
        let (link, next) = parse(&bytes, next);
        let (trailer, end) = parse(&bytes, next);

        let entry = |inode, mode, device, name: &str, contents: &[u8]| Parsed {
            inode,
            mode,
            mtime: 0,
            device,
            name: name.to_owned(),
            contents: contents.to_vec(),
        };
        assert_eq!(dir, entry(1, 0o040_755, (0, 0), "dev", b""));
        assert_eq!(console, entry(2, 0o020_600, (5, 1), "dev/console", b""));
        assert_eq!(init, entry(3, 0o100_755, (0, 0), "init", b"12345"));
        assert_eq!(link, entry(4, 0o120_777, (0, 0), "sh", b"init"));
        assert_eq!(trailer.name, TRAILER);
        assert_eq!(end, bytes.len());
    }

    #[test]
    fn archive_same_entries_same_bytes() {
        let build = || {
            let mut archive = Archive::new();
            archive.file("a", 0o644, b"abc");
            archive.finish()
        };
        assert_eq!(build(), build());
    }
}
