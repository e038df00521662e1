//! The modules of a crate, and to which file a path leads.

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
    /// The file that has it.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
}

/// What a path leads to.
enum Target {
    Module(usize),
    /// An item, which the module with this number defines.
    Item(usize),
}

/// How many re-exports may lie between a name and what it names: more than anybody writes, and an end for those that lead to
/// each other.
const MAX_HOPS: usize = 16;

impl Tree {
    /// Reads the modules from `root` on, such as `src/lib.rs`. `files` has the texts by their paths. Files that no module
    /// declares, or only a test does, aren't in it.
    pub(in crate::lint) fn read(files: &BTreeMap<&str, &str>, root: &str) -> Result<Self, String> {
        let mut tree = Self { modules: Vec::new() };
        let dir = root.rsplit_once('/').map_or("", |(dir, _)| dir);
        tree.add_file(files, root, dir, None)?;
        Ok(tree)
    }

    /// Every item, by the file that has it.
    pub(in crate::lint) fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules
            .iter()
            .flat_map(|node| node.module.items.iter().map(|item| (node.file.as_str(), item.as_str())))
    }

    /// The items of this crate that its root exports, by the file that has each.
    pub(in crate::lint) fn exports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules[0].module.exports.iter().filter_map(|name| match self.find(0, name, true, 0)? {
            Target::Item(module) => Some((self.modules[module].file.as_str(), &name[..])),
            Target::Module(_) => None,
        })
    }

    /// Which file uses which.
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

    /// The number of the module that the file at `path` is. Its children lie in `dir`.
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

    /// Where `path`, written in the module `from`, leads, and the name there; `None` for what other crates or functions
    /// define.
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
                    // Made by a macro.
                    None if is_ours => return Some((Target::Item(module), name)),
                    None => return None,
                },
            }
            is_ours = true;
        }
        Some((Target::Module(module), path.last()?))
    }

    /// What `name` is in a module. A module and an item may have one name: a path ends in the item.
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
        // `pub(crate) use name;` publishes a macro of the module's own.
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
