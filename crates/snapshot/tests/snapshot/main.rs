//! The format of a snapshot: what is written is read, what is damaged, too new or unknown is refused, and a directory is complete or not
//! there.

mod damage;
mod describe;
mod directory;
mod golden;
mod machine;
mod manifest;
mod memory;
mod round_trip;
mod versions;
