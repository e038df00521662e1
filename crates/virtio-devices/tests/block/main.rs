//! The disk, driven through its registers and queues. Each file has one kind of test or its support code.

mod bad_input;
mod device;
mod disk;
mod io_errors;
mod long;
mod malformed;
mod overlay;
mod pace;
mod parser;
mod qcow2;
mod qcow2_header;
mod resize;
mod saved;
mod service;
