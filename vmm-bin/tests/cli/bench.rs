//! A directory with a kernel, in which tests run the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use driver::{DEADLINE, Launch};
use tempfile::TempDir;

/// Exit codes, as `--help` lists them.
pub(crate) const DONE: i32 = 0;
pub(crate) const USAGE: i32 = 2;
pub(crate) const BAD_CONFIG: i32 = 3;
pub(crate) const HOST_CANT: i32 = 4;

/// The program's current directory, so that relative file names appear in messages. It contains a minimal `kernel`.
pub(crate) struct Bench {
    dir: TempDir,
}

/// The result of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunResult {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        bench.file("kernel", kernel());
        // Some tests run the program as another user.
        fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates or replaces a file.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Creates a directory.
    pub(crate) fn dir(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
    }

    /// Creates a symbolic link to `to`.
    pub(crate) fn link(&self, name: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.path(name)).unwrap();
    }

    /// Creates a FIFO without a writer.
    pub(crate) fn fifo(&self, name: &str) {
        let made = std::process::Command::new("mkfifo").arg(self.path(name)).status();
        assert!(made.unwrap().success());
    }

    /// Creates a sparse file of `len` bytes.
    pub(crate) fn sparse(&self, name: &str, len: u64) {
        fs::File::create(self.path(name)).unwrap().set_len(len).unwrap();
    }

    /// The program with these arguments, to be started in this directory.
    pub(crate) fn launch(&self, args: &[&str]) -> Launch {
        Launch::new(Path::new(env!("CARGO_BIN_EXE_vmm-bin")), args).dir(self.dir.path())
    }

    pub(crate) fn run(&self, args: &[&str]) -> RunResult {
        finish(self.launch(args))
    }

    /// Runs `--check` with `config` as the file vm.json.
    pub(crate) fn run_config(&self, config: &str) -> RunResult {
        self.file("vm.json", config);
        self.run(&["--check", "--config", "vm.json"])
    }

    /// The sorted names of the directory's entries.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The name of each entry, and the contents if it can be read as a file.
    pub(crate) fn contents(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let read = |name: String| (fs::read(self.path(&name)).ok(), name);
        self.names().into_iter().map(read).map(|(bytes, name)| (name, bytes)).collect()
    }
}

/// Runs the program to its end.
pub(crate) fn finish(launch: Launch) -> RunResult {
    let mut monitor = launch.start();
    let code = monitor.expect_exit(DEADLINE).code();
    let stdout = String::from_utf8(monitor.stdout()).unwrap();
    RunResult { code, stdout, stderr: monitor.stderr() }
}

/// The result of a run that failed with this code, this message on standard error, and nothing on standard output.
pub(crate) fn complaint(code: i32, message: &str) -> RunResult {
    RunResult { code: Some(code), stdout: String::new(), stderr: format!("error: {message}\n") }
}

/// An ELF executable for x86_64: one segment with one instruction (`hlt`) at 2 MiB, and no notes.
pub(crate) fn kernel() -> Vec<u8> {
    const PADDR: u64 = 0x20_0000;
    const CODE_OFFSET: u64 = 64 + 56;
    const CODE: [u8; 1] = [0xf4];
    let mut elf = Vec::new();
    // e_ident: class 64, little endian, version 1; e_type 2, an executable; e_machine 62; e_version 1.
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    elf.extend_from_slice(&PADDR.to_le_bytes()); // e_entry
    elf.extend_from_slice(&64_u64.to_le_bytes()); // e_phoff
    elf.extend_from_slice(&[0; 12]); // e_shoff, e_flags
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    [64_u16, 56, 1, 0, 0, 0].iter().for_each(|field| elf.extend_from_slice(&field.to_le_bytes()));
    elf.extend_from_slice(&1_u32.to_le_bytes()); // p_type: PT_LOAD
    elf.extend_from_slice(&5_u32.to_le_bytes()); // p_flags: read, execute
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    let fields = [CODE_OFFSET, PADDR, PADDR, CODE.len() as u64, CODE.len() as u64, 0x1000];
    fields.iter().for_each(|field| elf.extend_from_slice(&field.to_le_bytes()));
    elf.extend_from_slice(&CODE);
    elf
}
