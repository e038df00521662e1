//! Each wall, in a process of its own. They are tried as root and as an ordinary user if the tests run as root, otherwise as that user.

mod child;
mod filter;
mod host;
mod jail;
mod landlock;
mod privileges;
mod raw;
mod violation;
