//! The control socket of a virtual machine monitor: commands as lines of JSON over a unix socket, their responses, and a stream of events.
//!
//! The vocabulary is vmm-config's ([`Request`](vmm_config::Request), [`Response`](vmm_config::Response), [`Event`](vmm_config::Event)); this
//! crate only carries it. One thread serves all clients by poll(2), so that the monitor's event loop never waits for one:
//!
//! ```text
//!   clients <--> thread "control" -- Request, files, Responder --> execute (the monitor's queue of commands)
//!                      ^--------------- responses, events ---------- any thread, through a mailbox
//! ```
//!
//! A client opens the files that a command needs, and passes their descriptors (SCM_RIGHTS in unix(7)) together with its request: in one
//! message that has bytes of this request's line and of no other. They belong to the line that has the last byte received with them. Those
//! of a request that needs none are closed.
//!
//! A client harms nobody, whatever it sends: a line has at most 16 KiB, 16 requests of a client are in progress at a time, and events that
//! it doesn't read are dropped and counted beyond 64 KiB. Of more than 1,000 clients the idle one that has been silent longest is
//! disconnected. A request has at most 2 descriptors. Of all clients together, 16 lines whose end hasn't come yet have some, and 16 requests
//! with some are in progress: further ones are refused as [`Busy`](vmm_config::ErrorCode::Busy). Those of a client that has gone are closed,
//! unless its request is in progress.
//!
//! ```
//! use std::time::Duration;
//! use vmm_config::{Answer, Command, Event, Reply, Response};
//! use vmm_control::{Client, ControlSocket};
//! use vmm_hostio::NamedSocket;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("vm.sock");
//! let socket = NamedSocket::listen(&path)?;
//! let server = ControlSocket::at(&socket)?.serve(|request, _files, responder| {
//!     responder.respond(Response { id: request.id, answer: Answer::Result(Reply::Done) });
//! })?;
//! assert_eq!(Client::connect(&path)?.execute(Command::Pause)?, "done");
//! server.end(Event::Ended { exit_code: 0, reason: "an example".to_owned() }, Duration::from_secs(1));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod client;
mod closer;
mod connection;
mod inbox;
mod mailbox;
mod outbox;
mod server;

pub use client::{Client, ClientError};
pub use mailbox::{Events, Responder};
pub use server::{ControlSocket, SYSTEM_CALLS, Server};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
