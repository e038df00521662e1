//! The module tree of a crate, which resolves paths to the files that define items.

use std::collections::BTreeMap;

use super::graph::Graph;
use super::module::Module;
use super::tokens::Path;

/// The modules of a crate that aren't for tests.
pub(in crate::lint) struct Tree {
    modules: Vec<Node>,
}

struct Node {
    module: Module,
    /// The file that contains it.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
}

/// What a path resolves to.
enum Target {
    Module(usize),
    /// An item, defined by the module with this number.
    Item(usize),
}

/// Maximum number of re-exports between a name and its item: more than occur in practice, and a limit for re-exports that refer to
/// each other.
const MAX_HOPS: usize = 16;

impl Tree {
    /// Parses the modules from `root` on, such as `src/lib.rs`. `files` maps paths to texts. Files that no module declares, or only a
    /// test module, are left out.
    ///
    /// # Errors
    /// A declared file doesn't exist, or a file can't be parsed.
    pub(in crate::lint) fn read(files: &BTreeMap<&str, &str>, root: &str) -> Result<Self, String> {
        let mut tree = Self { modules: Vec::new() };
        let dir = root.rsplit_once('/').map_or("", |(dir, _)| dir);
        tree.add_file(files, root, dir, None)?;
        Ok(tree)
    }

    /// Every item, as a pair of file and name.
    pub(in crate::lint) fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules
            .iter()
            .flat_map(|node| node.module.items.iter().map(|item| (node.file.as_str(), item.as_str())))
    }

    /// The items of this crate that its root exports, as pairs of defining file and name.
    pub(in crate::lint) fn exports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules[0].module.exports.iter().filter_map(|name| match self.find(0, name, true, 0)? {
            Target::Item(module) => Some((self.modules[module].file.as_str(), &name[..])),
            Target::Module(_) => None,
        })
    }

    /// The graph of which file uses which.
    pub(super) fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for (index, node) in self.modules.iter().enumerate() {
            for path in &node.module.uses {
                if let Some((Target::Item(target), name)) = self.resolve(index, path, 0) {
                    graph.add(&node.file, &self.modules[target].file, name);
                }
            }
        }
        graph
    }

    /// Adds the module in the file at `path`, with its children, whose files are in `dir`. Returns its number.
    fn add_file(
        &mut self,
        files: &BTreeMap<&str, &str>,
        path: &str,
        dir: &str,
        parent: Option<usize>,
    ) -> Result<usize, String> {
        let text = files.get(path).ok_or_else(|| format!("{path}: no such file"))?;
        let module = Module::parse(text).map_err(|error| format!("{path}: {error}"))?;
        self.add(files, module, path, dir, parent)
    }

    fn add(
        &mut self,
        files: &BTreeMap<&str, &str>,
        mut module: Module,
        file: &str,
        dir: &str,
        parent: Option<usize>,
    ) -> Result<usize, String> {
        let children = std::mem::take(&mut module.children);
        let index = self.modules.len();
        self.modules.push(Node { module, file: file.to_owned(), parent, children: BTreeMap::new() });
        for child in children {
            let inner = format!("{dir}/{}", child.name);
            let number = match child.body {
                Some(body) => self.add(files, body, file, &inner, Some(index))?,
                None => {
                    let nested = format!("{inner}/mod.rs");
                    let flat = format!("{inner}.rs");
                    let path = if files.contains_key(nested.as_str()) { nested } else { flat };
                    self.add_file(files, &path, &inner, Some(index))?
                }
            };
            self.modules[index].children.insert(child.name, number);
        }
        Ok(index)
    }

    /// Resolves `path`, written in the module `from`, to a target and its name; `None` for items of other crates and of functions.
    fn resolve<'a>(&self, from: usize, path: &'a Path, hops: usize) -> Option<(Target, &'a str)> {
        if hops > MAX_HOPS {
            return None;
        }
        let mut module = from;
        let mut is_ours = false;
        for (index, segment) in path.iter().enumerate() {
            let is_last = index + 1 == path.len();
            match segment.as_str() {
                "crate" => module = 0,
                "self" => {}
                "super" => module = self.modules[module].parent?,
                name => match self.find(module, name, is_last, hops) {
                    Some(Target::Module(inner)) => module = inner,
                    Some(item) => return Some((item, name)),
                    // An item that a macro defines.
                    None if is_ours => return Some((Target::Item(module), name)),
                    None => return None,
                },
            }
            is_ours = true;
        }
        Some((Target::Module(module), path.last()?))
    }

    /// Looks up `name` in a module. If a module and an item share the name, the last segment of a path means the item.
    fn find(&self, module: usize, name: &str, is_last: bool, hops: usize) -> Option<Target> {
        let node = &self.modules[module];
        let child = node.children.get(name).map(|child| Target::Module(*child));
        if child.is_some() && !is_last {
            return child;
        }
        if node.module.items.contains(name) {
            return Some(Target::Item(module));
        }
        self.imported(module, name, hops)
            .or(child)
            .or_else(|| self.found_by_glob(module, name, is_last, hops))
    }

    fn imported(&self, module: usize, name: &str, hops: usize) -> Option<Target> {
        let path = self.modules[module].module.imports.get(name)?;
        // `pub(crate) use name;` exports a macro defined in this module.
        if path.len() == 1 && path[0] == name {
            return None;
        }
        self.resolve(module, path, hops + 1).map(|(target, _)| target)
    }

    fn found_by_glob(&self, module: usize, name: &str, is_last: bool, hops: usize) -> Option<Target> {
        self.modules[module].module.globs.iter().find_map(|path| {
            match self.resolve(module, path, hops + 1)?.0 {
                Target::Module(inner) if hops < MAX_HOPS => self.find(inner, name, is_last, hops + 1),
                _ => None,
            }
        })
    }
}
