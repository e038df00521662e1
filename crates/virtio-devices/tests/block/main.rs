//! The disk, driven as a driver would, over its registers and queues. Each file is what one kind of test needs.

mod bad_input;
mod device;
mod disk;
mod long;
mod malformed;
mod overlay;
mod pace;
mod parser;
mod qcow2;
mod qcow2_header;
mod resize;
mod service;
