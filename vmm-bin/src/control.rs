//! The control socket of this monitor.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use vmm_config::Event;
use vmm_control::{ControlSocket, Responder, Server};
use vmm_hostio::NamedSocket;
use vmm_machine::{Commander, EventSink, OutputCheck, Service};
use vmm_sandbox::Needs;

use crate::finish::Failure;

/// How long clients that read slowly are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The control socket of a run, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Control(Arc<OnceLock<Server>>);

/// Checks whether `path` can be listened at, without changing anything.
pub(crate) fn check(path: &Path, outputs: &mut OutputCheck) -> Result<(), Failure> {
    outputs.control(path).map_err(|source| Failure::Control { path: path.to_owned(), source })
}

/// A socket that is listened at, and its name, whose removal may wait for storage.
pub(crate) type Listening = (NamedSocket, ControlSocket);

/// Listens at `path`. Nobody is served yet.
pub(crate) fn listen(path: &Path) -> Result<Listening, Failure> {
    let listening = NamedSocket::listen(path).map_err(io::Error::from);
    let listening = listening.and_then(|name| ControlSocket::at(&name).map(|socket| (name, socket)));
    listening.map_err(|source| Failure::Control { path: path.to_owned(), source })
}

impl Control {
    /// What serves the socket called `name` during a run, and tells its clients what happens.
    pub(crate) fn of(
        &self,
        name: &NamedSocket,
        socket: ControlSocket,
        commander: Commander,
    ) -> (Service, EventSink) {
        let events = socket.events();
        let needs = Needs { removes: vec![name.path().to_owned()], ..Needs::default() };
        let running = Arc::clone(&self.0);
        let start = move || {
            let execute = move |request, files, responder: Responder| {
                commander.send_with_files(request, files, move |response, unused| {
                    responder.respond_and_close(response, unused);
                });
            };
            let _ = running.set(socket.serve(execute)?);
            Ok(())
        };
        (Service { needs, start: Box::new(start) }, EventSink::new(move |event| events.tell(event)))
    }

    /// The end of the monitor.
    pub(crate) fn end(self, exit_code: u8, reason: String) {
        if let Some(server) = Arc::into_inner(self.0).and_then(OnceLock::into_inner) {
            server.end(Event::Ended { exit_code, reason }, PATIENCE);
        }
    }
}
