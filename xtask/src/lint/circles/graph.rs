//! Circles in a directed graph: its strongly connected components.

use std::collections::{BTreeMap, BTreeSet};

/// The files that each file uses, and the names that it uses from each.
#[derive(Debug, Default)]
pub(super) struct Graph(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// One use within a circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) user: String,
    pub(super) used: String,
    pub(super) names: Vec<String>,
}

impl Graph {
    /// Records that `user` uses `name`, which `used` defines. Uses of a file by itself are ignored.
    pub(super) fn add(&mut self, user: &str, used: &str, name: &str) {
        if user != used {
            let uses = self.0.entry(user.to_owned()).or_default();
            uses.entry(used.to_owned()).or_default().insert(name.to_owned());
        }
    }

    /// The groups of files that reach each other, each as the uses within the group.
    pub(super) fn circles(&self) -> Vec<Vec<Edge>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.0.keys().map(|file| (file.as_str(), self.reachable_from(file))).collect();
        let are_mutual = |a: &str, b: &str| {
            reached[a].contains(b) && reached.get(b).is_some_and(|files| files.contains(a))
        };
        let mut done = BTreeSet::new();
        let mut circles = Vec::new();
        for file in self.0.keys() {
            if !done.contains(file.as_str()) && are_mutual(file, file) {
                let circle: BTreeSet<&str> =
                    reached[file.as_str()].iter().copied().filter(|other| are_mutual(file, other)).collect();
                circles.push(self.edges_within(&circle));
                done.extend(circle);
            }
        }
        circles
    }

    fn reachable_from(&self, file: &str) -> BTreeSet<&str> {
        let used = |file: &str| self.0.get(file).into_iter().flat_map(|uses| uses.keys().map(String::as_str));
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = used(file).collect();
        while let Some(file) = next.pop() {
            if reached.insert(file) {
                next.extend(used(file));
            }
        }
        reached
    }

    fn edges_within(&self, circle: &BTreeSet<&str>) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (user, uses) in self.0.iter().filter(|(user, _)| circle.contains(user.as_str())) {
            for (used, names) in uses.iter().filter(|(used, _)| circle.contains(used.as_str())) {
                let names = names.iter().cloned().collect();
                edges.push(Edge { user: user.clone(), used: used.clone(), names });
            }
        }
        edges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The users and what they use in each circle of `uses`.
    fn circles(uses: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut graph = Graph::default();
        uses.iter().for_each(|(user, used)| graph.add(user, used, "X"));
        let shown =
            |edges: Vec<Edge>| edges.iter().map(|edge| format!("{}{}", edge.user, edge.used)).collect();
        graph.circles().into_iter().map(shown).collect()
    }

    #[test]
    fn graph_chain_and_diamond_have_no_circle() {
        assert!(circles(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]).is_empty());
    }

    #[test]
    fn graph_long_circle_is_one_without_what_hangs_on_it() {
        assert_eq!(
            circles(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")]),
            [["ab", "bc", "ca"]]
        );
    }

    #[test]
    fn graph_two_circles_are_told_apart() {
        assert_eq!(
            circles(&[("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")]),
            [["ab", "ba"], ["cd", "dc"]]
        );
    }

    #[test]
    fn graph_use_of_itself_is_no_circle() {
        assert!(circles(&[("a", "a")]).is_empty());
    }
}
