//! Which walls stand.

use std::fmt;

/// One wall of the sandbox. Displayed as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wall {
    /// What it is, such as "empty root".
    pub name: String,
    /// Whether it stands.
    pub state: WallState,
}

/// Whether a wall stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WallState {
    /// It does.
    Up {
        /// What it consists of.
        detail: String,
    },
    /// It doesn't.
    Missing {
        /// What the host refused.
        why: String,
        /// What a user or an administrator can change.
        remedy: String,
    },
}

impl Wall {
    pub(crate) fn up(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: WallState::Up { detail: detail.into() } }
    }

    pub(crate) fn missing(name: &str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let state = WallState::Missing { why: why.into(), remedy: remedy.into() };
        Self { name: name.to_owned(), state }
    }

    /// Whether it stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, WallState::Up { .. })
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            WallState::Up { detail } => write!(f, "{}: {detail}", self.name),
            WallState::Missing { why, remedy } => write!(f, "{}: missing: {why}; {remedy}", self.name),
        }
    }
}

/// A wall to a line of text and back, for a child that reports to its parent.
pub(crate) mod encoding {
    use super::{Wall, WallState};

    /// Between the parts of a wall. No text of a wall contains it.
    const PART: char = '\u{1f}';
    const WALL: char = '\u{1e}';

    pub(crate) fn encode(walls: &[Wall]) -> String {
        let encoded = walls.iter().map(|Wall { name, state }| match state {
            WallState::Up { detail } => format!("{name}{PART}{detail}{WALL}"),
            WallState::Missing { why, remedy } => format!("{name}{PART}{why}{PART}{remedy}{WALL}"),
        });
        encoded.collect()
    }

    pub(crate) fn decode(text: &str) -> Vec<Wall> {
        let walls =
            text.split_terminator(WALL).filter_map(|wall| match *wall.split(PART).collect::<Vec<_>>() {
                [name, detail] => Some(Wall::up(name, detail)),
                [name, why, remedy] => Some(Wall::missing(name, why, remedy)),
                _ => None,
            });
        walls.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walls() -> [Wall; 2] {
        [Wall::up("empty root", "no paths"), Wall::missing("namespaces", "unshare failed: EPERM", "ask root")]
    }

    #[test]
    fn wall_is_one_line() {
        let [up, missing] = walls();
        assert_eq!(up.to_string(), "empty root: no paths");
        assert_eq!(missing.to_string(), "namespaces: missing: unshare failed: EPERM; ask root");
    }

    #[test]
    fn walls_survive_their_encoding() {
        assert_eq!(encoding::decode(&encoding::encode(&walls())), walls());
        assert_eq!(encoding::decode(""), []);
    }
}
