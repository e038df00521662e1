//! Assembler, linker and compiler commands that build an image.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::images::{Image, Place, Recipe, Symbols};
use super::width::Width;

/// Freestanding: no library, start-up code, unwinding tables, stack protector or SSE, and no conversion of
/// loops to memset calls. Inline assembly uses Intel syntax, as the other sources do.
const C_FLAGS: [&str; 12] = [
    "-c",
    "-O1",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-masm=intel",
];

impl Image {
    /// The commands that build the image in `out`, in order.
    pub(super) fn commands(&self, sources: &Path, out: &Path) -> Vec<Command> {
        let image = out.join(self.file_name());
        let object = |part: &str| out.join(format!("{}-{part}.o", self.name));
        match self.recipe {
            Recipe::Serial { source, symbols, width } => {
                let object = object("S");
                let assemble = assembler(width, &sources.join(source), symbols, &object);
                let mut link = linker(width, &image);
                link.arg("-T").arg(sources.join("guest.ld")).arg(object);
                vec![assemble, link]
            }
            Recipe::Flat { source, symbols, width, load_address } => {
                let object = object("S");
                let assemble = assembler(width, &sources.join(source), symbols, &object);
                let mut link = linker(width, &image);
                link.args(["--oformat", "binary", "--defsym", &format!("LOAD={load_address:#x}"), "-T"]);
                link.arg(sources.join("flat/flat.ld")).arg(object);
                vec![assemble, link]
            }
            Recipe::LearningTool => {
                let folder = sources.join("learning-tool");
                let mut compiler = Command::new("gcc");
                compiler.args(["-nostdlib", "-ffreestanding"]);
                compiler.arg(format!("-Wl,-T,{}", folder.join("kernel16.ld").display()));
                compiler.arg(folder.join(self.name).with_extension("S")).arg("-o").arg(image);
                vec![compiler]
            }
            Recipe::HelloWorld { width, tables } => {
                let folder = sources.join("kvm-hello-world");
                let (code, own_tables) = (object("c"), object("S"));
                let mut compile = Command::new("cc");
                compile
                    .args(["-Wall", "-Wextra", "-O2", "-ffreestanding", "-fno-pic"])
                    .arg(width.machine_flag());
                compile.arg("-c").arg("-o").arg(&code).arg(folder.join("guest.c"));
                let mut link = linker(width, &image);
                link.arg("-T").arg(folder.join("guest.ld")).arg(code);
                let assemble = tables.then(|| {
                    link.args(["--section-start", ".tables=0x2000"]).arg(&own_tables);
                    assembler(width, &folder.join("tables.S"), &[], &own_tables)
                });
                [compile].into_iter().chain(assemble).chain([link]).collect()
            }
            Recipe::Kernel { sources: parts, width, place } => {
                let parts: Vec<_> =
                    parts.iter().map(|part| (sources.join(part), object(part_of(part)))).collect();
                let compile = |(source, object): &(PathBuf, PathBuf)| match is_c(source) {
                    true => compiler(width, place, source, object),
                    false => assembler(width, source, &[], object),
                };
                let mut commands: Vec<_> = parts.iter().map(compile).collect();
                let mut link = linker(width, &image);
                match place {
                    Place::Fixed => link.arg("-T").arg(sources.join("c/kernel.ld")),
                    // Laid out as in ordinary programs; text relocations are an error.
                    Place::Anywhere => {
                        link.args(["-pie", "--no-dynamic-linker", "-z", "text", "-e", "start"])
                    }
                };
                link.args(parts.iter().map(|(_, object)| object));
                commands.push(link);
                commands
            }
        }
    }
}

/// `S` or `c`: an image has at most one source of each.
fn part_of(source: &str) -> &str {
    source.rsplit('.').next().unwrap_or(source)
}

fn is_c(source: &Path) -> bool {
    source.extension().is_some_and(|extension| extension == "c")
}

fn assembler(width: Width, source: &Path, symbols: Symbols, object: &Path) -> Command {
    let mut assembler = Command::new("as");
    assembler.arg(width.assembler_flag());
    assembler.args(source.parent().iter().flat_map(|dir| ["-I".as_ref(), dir.as_os_str()]));
    assembler.args(symbols.iter().flat_map(|symbol| ["--defsym", symbol]));
    assembler.arg("-o").arg(object).arg(source);
    assembler
}

fn compiler(width: Width, place: Place, source: &Path, object: &Path) -> Command {
    let mut compiler = Command::new("cc");
    compiler.args(C_FLAGS).args(width.compiler_flags());
    compiler.args(match place {
        Place::Fixed => &["-fno-pic"][..],
        // Hidden, so that nothing is accessed through a global offset table.
        Place::Anywhere => &["-fpie", "-fvisibility=hidden"],
    });
    compiler.arg("-o").arg(object).arg(source);
    compiler
}

fn linker(width: Width, image: &Path) -> Command {
    let mut linker = Command::new("ld");
    linker.args(["-m", width.emulation(), "-z", "noexecstack", "--build-id=none", "-o"]).arg(image);
    linker
}

/// Runs a command. Its output is shown only if it fails, because linkers warn about segments that are
/// writable and executable.
pub(super) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no `{program}`: install the package {}", package_of(&program))
        }
        _ => format!("`{program}` can't be run: {error}"),
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?} failed ({})\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn package_of(program: &str) -> &'static str {
    if matches!(program, "cc" | "gcc") { "gcc" } else { "binutils" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_that_fails_is_told_with_what_it_said() {
        let said = run(Command::new("as").arg("--no-such-option")).unwrap_err();
        assert!(said.starts_with("\"as\" \"--no-such-option\" failed (exit status: 1)\n"), "{said}");
        assert!(said.contains("unrecognized option"), "{said}");
    }

    #[test]
    fn tool_that_is_missing_is_told_with_its_package() {
        let missing = |program: &str| run(Command::new(program).env("PATH", "/nonexistent")).unwrap_err();
        assert_eq!(missing("as"), "there is no `as`: install the package binutils");
        assert_eq!(missing("ld"), "there is no `ld`: install the package binutils");
        assert_eq!(missing("cc"), "there is no `cc`: install the package gcc");
        assert_eq!(missing("gcc"), "there is no `gcc`: install the package gcc");
    }
}
