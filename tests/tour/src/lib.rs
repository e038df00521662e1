#![forbid(unsafe_code)]

//! A Markdown page whose commands are run, whose outputs are compared with what they print, and whose code is compared with the
//! files it is from.
//!
//! A block of kind `console` holds commands and what they print, on both streams:
//!
//! ~~~text
//! ```console
//! $ echo one; echo two
//! one
//! [..]o
//! ```
//! ~~~
//!
//! In an expected line, `[..]` stands for any text; a line that is only `...` for any lines: [`agrees`]. A command goes on over
//! lines that end in a backslash, and to the end of a here-document (`<<'END'`). The commands of a [`Step`] are one shell's: `$?`,
//! variables and the directory live on from one to the next.
//!
//! A block of kind `rust`, `c` or `asm` is a [`Quote`]. Its first line is a comment with the path of its file.

mod blocks;
mod command;
mod compare;
mod manual;
mod quote;
mod step;

pub use command::Command;
pub use compare::{agrees, resembles};
pub use manual::documented;
pub use quote::Quote;
pub use step::Step;
