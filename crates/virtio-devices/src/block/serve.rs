//! Executes requests: from the queue to the disk and back.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use vmm_hostio::Durable;
use vmm_virtio::vm_memory::{Bytes, GuestAddress};
use vmm_virtio::{Chain, Counters, Fault, Session, Step};

use super::errors::{IoErrors, Operation};
use super::image::Image;
use super::raw::Pending;
use super::request::{HEADER_LEN, Parsed, Request, Status, Terms, parse};
use super::{Block, Disk};

/// The result of starting a request.
enum Submission {
    InFlight,
    Done(Status),
}

impl Block {
    /// Processes the queue as far as there is room.
    pub(super) fn serve(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = Arc::clone(session.counters());
        let features = session.features();
        let terms =
            Terms { sectors: self.properties.sectors, read_only: self.properties.read_only, features };
        session.drain(queue, |chain| {
            self.notice_switch(features);
            let Parsed { request, status } = parse(&chain, &terms)?;
            let work = request.as_ref().map_or(0, |request| request.work(self.durable));
            let operation = request.as_ref().map_or(Operation::FLUSH, Request::operation);
            let is_durable = request.as_ref().is_ok_and(|request| request.is_durable(self.durable));
            let pending = Pending { work, operation, is_durable, ..pending(queue, &chain, status.gpa())? };
            let begun = match request {
                Err(refusal) => Submission::Done(refusal),
                Ok(request) if self.has_room(&request, work) => self.begin(&request, pending)?,
                Ok(_) => {
                    self.waiting[queue] = true;
                    return Ok(Step::Full);
                }
            };
            let Submission::Done(answer) = begun else { return Ok(Step::Kept) };
            status.write(&[answer.byte()])?;
            pending.count(&counters, answer);
            Ok(Step::Used(pending.used(answer)))
        })?;
        self.tell_errors(session);
        if let Disk::Raw(raw) = &mut self.disk {
            raw.engine.dispatch();
            // Requests served from the page cache are complete already.
            self.give_back(session)?;
        }
        Ok(())
    }

    /// Resumes the waiting queues, each time starting with a different one, because the first may use up all
    /// the room.
    pub(super) fn serve_waiting(&mut self, session: &mut Session) -> Result<(), Fault> {
        let count = self.waiting.len();
        self.first = (self.first + 1) % count;
        for queue in (self.first..count).chain(0..self.first) {
            if std::mem::take(&mut self.waiting[queue]) {
                self.serve(queue, session)?;
            }
        }
        Ok(())
    }

    /// Returns completed requests, after the engine has signalled some.
    pub(super) fn finish(&mut self, session: &mut Session) -> Result<(), Fault> {
        if let Disk::Raw(raw) = &mut self.disk {
            raw.engine.acknowledge();
            // Requests that the kernel couldn't accept last time.
            raw.engine.dispatch();
        }
        self.give_back(session)
    }

    /// Waits for all requests and returns them. Afterwards nothing accesses guest memory.
    pub(super) fn finish_all(&mut self, session: &mut Session) {
        if let Disk::Raw(raw) = &mut self.disk {
            loop {
                // First, because a fault may have left some.
                while let Some((pending, result)) = raw.completed() {
                    // If the driver has broken its rings, nothing can be returned.
                    let _ = complete(session, &mut self.errors, pending, &result);
                }
                if raw.engine.in_flight() == 0 {
                    break;
                }
                raw.engine.wait();
            }
            let _ = announce(session);
        } else if let Err(error) = self.flush().and_then(|()| self.close()) {
            session.counters().errors.add(1);
            self.errors.note(Operation::CLOSE, &error, Instant::now());
        }
        self.tell_errors(session);
    }

    /// Waits for requests in flight and flushes everything to stable storage before it returns them.
    pub(super) fn settle(&mut self, session: &mut Session) -> Result<(), Fault> {
        let mut done = Vec::new();
        if let Disk::Raw(raw) = &mut self.disk {
            while raw.engine.in_flight() > 0 {
                raw.engine.wait();
                done.extend(std::iter::from_fn(|| raw.completed()));
            }
        }
        if let Err(error) = self.flush() {
            // There is no way to report it to the driver: writeback is a plain configuration byte.
            session.counters().errors.add(1);
            self.errors.note(Operation::FLUSH, &error, Instant::now());
        }
        for (pending, result) in done {
            complete(session, &mut self.errors, pending, &result)?;
        }
        self.tell_errors(session);
        announce(session)
    }

    /// Flushes earlier writes to stable storage, synchronously.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.disk {
            Disk::Raw(raw) => raw.flush(),
            Disk::Image(image) => image.flush(),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        match &mut self.disk {
            Disk::Raw(_) => Ok(()),
            Disk::Image(image) => image.close(),
        }
    }

    /// Whether the request may start now. If not, an event occurs when a retry is worthwhile.
    fn has_room(&mut self, request: &Request<'_>, work: u64) -> bool {
        match &self.disk {
            Disk::Raw(raw) if !raw.has_room(work) => false,
            _ => self.pace.admits(request.moved_len(), work),
        }
    }

    fn begin(&mut self, request: &Request<'_>, pending: Pending) -> Result<Submission, Fault> {
        if let Request::Identify { into } = request {
            into.write(&self.serial)?;
            return Ok(Submission::Done(Status::Done));
        }
        Ok(match &mut self.disk {
            Disk::Raw(raw) => match raw.submit(request, self.durable, pending) {
                true => Submission::InFlight,
                false => Submission::Done(Status::Failed),
            },
            Disk::Image(image) => {
                let result = carry_out(&mut **image, request, self.durable);
                if let Err(error) = &result {
                    self.errors.note(pending.operation, error, Instant::now());
                }
                Submission::Done(status_of(&result))
            }
        })
    }

    fn give_back(&mut self, session: &mut Session) -> Result<(), Fault> {
        let Disk::Raw(raw) = &mut self.disk else { return Ok(()) };
        while let Some((pending, result)) = raw.completed() {
            complete(session, &mut self.errors, pending, &result)?;
        }
        self.tell_errors(session);
        announce(session)
    }
}

fn carry_out(image: &mut dyn Image, request: &Request<'_>, durable: Durable) -> io::Result<()> {
    match request {
        Request::Read { offset, into } => return image.read(*offset, into),
        Request::Write { offset, from } => image.write(*offset, from)?,
        Request::Flush => return image.flush(),
        Request::Discard { range } => return image.discard(range.clone()),
        Request::WriteZeroes { range, unmap } => image.write_zeroes(range.clone(), *unmap)?,
        Request::Identify { .. } => return Ok(()),
    }
    if durable == Durable::Yes { image.flush() } else { Ok(()) }
}

fn status_of(result: &io::Result<()>) -> Status {
    if result.is_ok() { Status::Done } else { Status::Failed }
}

fn pending(queue: usize, chain: &Chain<'_>, status_gpa: Option<u64>) -> Result<Pending, Fault> {
    Ok(Pending {
        queue,
        head: chain.head(),
        work: 0,
        operation: Operation::FLUSH,
        is_durable: false,
        status_gpa: status_gpa.ok_or(Fault::Request("a disk request has no room for its status"))?,
        // Without the status, which exists.
        len_in: chain.writable().len() - 1,
        len_out: chain.readable().len().saturating_sub(HEADER_LEN),
    })
}

fn complete(
    session: &mut Session,
    errors: &mut IoErrors,
    pending: Pending,
    result: &io::Result<()>,
) -> Result<(), Fault> {
    if let Err(error) = result {
        errors.note(pending.operation, error, Instant::now());
    }
    let status = status_of(result);
    let gpa = pending.status_gpa;
    let written = session.ram().memory().write_obj(status.byte(), GuestAddress(gpa));
    written.map_err(|_| Fault::Unmapped { gpa, len: 1 })?;
    pending.count(session.counters(), status);
    match session.queue(pending.queue) {
        Some(queue) => queue.complete(pending.head, pending.used(status)),
        None => Ok(()),
    }
}

fn announce(session: &mut Session) -> Result<(), Fault> {
    for queue in 0..session.queue_count() {
        if let Some(queue) = session.queue(queue) {
            queue.announce()?;
        }
    }
    Ok(())
}

impl Pending {
    /// Number of contiguous bytes written from the start of the writable part: if data before the status is
    /// missing, the status doesn't count (virtio 1.2 §2.7.8.2).
    fn used(&self, status: Status) -> u32 {
        if status == Status::Done || self.len_in == 0 {
            u32::try_from(self.len_in + 1).unwrap_or(u32::MAX)
        } else {
            0
        }
    }

    fn count(&self, counters: &Counters, status: Status) {
        counters.requests.add(1);
        if status == Status::Done {
            counters.bytes_in.add(self.len_in);
            counters.bytes_out.add(self.len_out);
        } else {
            counters.errors.add(1);
        }
    }
}
