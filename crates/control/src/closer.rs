//! Closes what clients have sent. That may wait for storage of the client's choice, such as a FUSE or NFS server that doesn't respond, so the
//! thread that serves the others doesn't do it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use vmm_sandbox::confine_thread;

/// Bytes of the thread's stack.
const STACK_LEN: usize = 64 << 10;

/// What the thread `control-close` is sent files by. It ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Closer(Arc<Batches>);

#[derive(Debug)]
struct Batches {
    to: Sender<Batch>,
    /// Each batch has a clone.
    counted: Arc<()>,
}

/// Files that are closed together.
#[derive(Debug)]
struct Batch {
    _files: Vec<OwnedFd>,
    _counted: Arc<()>,
}

/// Files that a client has sent. When this is dropped, the other thread closes them.
#[derive(Debug)]
pub(crate) struct ClientFiles {
    files: Vec<OwnedFd>,
    closer: Closer,
}

impl Closer {
    /// Starts the thread, which is confined to what every thread needs.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start() -> io::Result<Self> {
        let (to, batches): (_, Receiver<Batch>) = channel();
        let body = move || {
            confine_thread("control-close", &[]).expect("a filter was accepted at the start");
            batches.iter().for_each(drop);
        };
        thread::Builder::new().name("control-close".to_owned()).stack_size(STACK_LEN).spawn(body)?;
        Ok(Self(Arc::new(Batches { to, counted: Arc::new(()) })))
    }

    /// Number of batches that aren't closed yet: more than a few only if the storage of one doesn't respond.
    pub(crate) fn pending(&self) -> usize {
        Arc::strong_count(&self.0.counted) - 1
    }

    /// Takes care of `files`.
    pub(crate) fn files(&self, files: Vec<OwnedFd>) -> ClientFiles {
        ClientFiles { files, closer: self.clone() }
    }
}

impl ClientFiles {
    /// Number of files.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The files. Whoever has them closes them.
    pub(crate) fn into_vec(mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }
}

impl Drop for ClientFiles {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        if !files.is_empty() {
            let Batches { to, counted } = &*self.closer.0;
            // It doesn't fail: the thread receives as long as there is a closer.
            let _ = to.send(Batch { _files: files, _counted: Arc::clone(counted) });
        }
    }
}
