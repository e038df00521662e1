//! The format of a snapshot: what is written is read, and what is damaged, too new or unknown is refused.

mod damage;
mod machine;
mod manifest;
mod round_trip;
mod versions;
