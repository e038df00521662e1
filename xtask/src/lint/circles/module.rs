//! The items that a module defines, imports and names, parsed by syn. Code for tests doesn't count.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

use super::tokens::{Path, paths_in};

/// A module, without the contents of its children.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Names of its functions, types, constants, traits and macros.
    pub(super) items: BTreeSet<String>,
    /// The paths imported by `use`, by their name in this module.
    pub(super) imports: BTreeMap<String, Path>,
    /// Modules or enums imported by `*`.
    pub(super) globs: Vec<Path>,
    /// Every path that the code names, except in re-exports: those count only where they are used.
    pub(super) uses: BTreeSet<Path>,
    /// The names that `pub use` exports to other crates, if the module is public.
    pub(super) exports: BTreeSet<String>,
    pub(super) children: Vec<Child>,
}

/// A module within a module.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    /// `None` if it is a file of its own.
    pub(super) body: Option<Module>,
}

impl Module {
    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> syn::Result<Self> {
        Ok(Self::from_items(&syn::parse_file(text)?.items))
    }

    fn from_items(items: &[Item]) -> Self {
        let mut module = Self::default();
        items.iter().filter(|item| !is_for_tests(attributes_of(item))).for_each(|item| module.add(item));
        module
    }

    fn add(&mut self, item: &Item) {
        match item {
            Item::Use(item) => {
                if matches!(item.vis, Visibility::Public(_)) {
                    self.exports.extend(imports_of(&item.tree).into_iter().filter_map(|(name, _)| name));
                }
                return self.import(&item.tree, !matches!(item.vis, Visibility::Inherited));
            }
            Item::Mod(item) => {
                let body = item.content.as_ref().map(|(_, items)| Self::from_items(items));
                return self.children.push(Child { name: item.ident.to_string(), body });
            }
            _ => {}
        }
        self.items.extend(name_of(item));
        PathCollector(&mut self.uses).visit_item(item);
    }

    fn import(&mut self, tree: &UseTree, is_reexport: bool) {
        for (name, path) in imports_of(tree) {
            match (name, is_reexport) {
                (Some(name), true) => drop(self.imports.insert(name, path)),
                (Some(name), false) => {
                    self.uses.insert(path.clone());
                    self.imports.insert(name, path);
                }
                (None, _) => self.globs.push(path),
            }
        }
    }
}

/// Collects the paths that code names.
struct PathCollector<'a>(&'a mut BTreeSet<Path>);

impl<'ast> Visit<'ast> for PathCollector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    /// A `use` inside a function.
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.0.extend(imports_of(&item.tree).into_iter().map(|(_, path)| path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    /// syn doesn't parse a macro's arguments.
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.0.extend(paths_in(mac.tokens.clone()));
        visit::visit_macro(self, mac);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.0.extend(paths_in(list.tokens.clone()));
        }
    }

    /// The path in `pub(in crate::x)` isn't a use.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// The names and paths that a `use` imports; the name of `*` is `None`.
fn imports_of(tree: &UseTree) -> Vec<(Option<String>, Path)> {
    fn walk(tree: &UseTree, path: &Path, found: &mut Vec<(Option<String>, Path)>) {
        let with = |ident: &syn::Ident| match ident == "self" && !path.is_empty() {
            true => path.clone(),
            false => [path.as_slice(), &[ident.to_string()]].concat(),
        };
        match tree {
            UseTree::Path(tree) => walk(&tree.tree, &with(&tree.ident), found),
            UseTree::Name(tree) => {
                let path = with(&tree.ident);
                found.push((path.last().cloned(), path));
            }
            UseTree::Rename(tree) => found.push((Some(tree.rename.to_string()), with(&tree.ident))),
            UseTree::Glob(_) => found.push((None, path.clone())),
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| walk(tree, path, found)),
        }
    }
    let mut found = Vec::new();
    walk(tree, &Path::new(), &mut found);
    found
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test =
        |attribute: &Attribute| attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"));
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && is_test(attribute))
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
