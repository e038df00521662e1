//! Opens the consoles, and moves them to the next machine after a reset.

use std::io;

use tracing::error;
use vmm_config::Event;
use vmm_hostio::terminal::{self, RawMode};

use super::Supervisor;
use super::offloaded::Offloaded;
use crate::Error;
use crate::console::{self, Console, Lines, OpenTargets};
use crate::event_loop::Source;
use crate::pause::Change;

impl Supervisor {
    /// Connects the first machine's consoles, then truncates their files, then makes the terminal raw. In this order a start that
    /// fails doesn't empty a file.
    pub(super) fn open_consoles(
        &mut self,
        lines: Lines,
        targets: OpenTargets,
        on_terminal: bool,
    ) -> Result<Offloaded<()>, Error> {
        let mut consoles = console::open_all(lines, targets, Vec::new(), &self.messages.0)?;
        if on_terminal {
            terminal::prepare(io::stdin()).map_err(Error::Terminal)?;
        }
        // Before raw mode, in which a line feed alone doesn't return the carriage.
        self.announce(&mut consoles);
        let begun = self.offload(move |progress| {
            let _step = progress.begin("truncating the consoles' files".to_owned());
            console::begin_all(&mut consoles, || progress.is_cancelled()).map(|late| (consoles, late))
        })?;
        let (begun, late) = match begun {
            Offloaded::Done(begun) => begun?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        for error in late {
            error!("{error}; the guest's output overwrites its contents");
        }
        // Last: until the monitor reads its keys, Ctrl-C must be a signal.
        if on_terminal {
            // It has been prepared. If it has gone since, its reader notices.
            self.terminal = RawMode::enter(io::stdin()).ok();
        }
        self.add_consoles(begun).map(Offloaded::Done)
    }

    /// Connects the open consoles to the lines of the next machine.
    pub(super) fn move_consoles(&mut self, lines: Lines) -> Result<(), Error> {
        let kept = self.take_consoles();
        let mut consoles = console::open_all(lines, OpenTargets::default(), kept, &self.messages.0)?;
        self.announce(&mut consoles);
        self.add_consoles(consoles)
    }

    /// Announces the names of new ptys.
    fn announce(&self, consoles: &mut [Console]) {
        let ptys = consoles.iter_mut().filter_map(Console::announcement);
        let ptys: String = ptys.map(|(console, pty)| format!("{console}: {pty}\n")).collect();
        if let Some(announcements) = &self.announcements {
            announcements.push(ptys.as_bytes());
        }
    }

    /// Closes the consoles: files are closed and sockets removed on another thread. The terminal is restored before that, so that
    /// Ctrl-C is a signal.
    pub(super) fn close_consoles(&mut self) {
        self.terminal = None;
        let consoles = self.take_consoles();
        if !consoles.is_empty() {
            self.discard(consoles);
        }
    }

    fn take_consoles(&mut self) -> Vec<Console> {
        let ids = std::mem::take(&mut self.consoles);
        let removed = ids.into_iter().map(|id| self.events.remove(id));
        let consoles = removed.filter_map(|removed| match removed {
            Some(Source::Console(console)) => Some(*console),
            _ => None,
        });
        consoles.collect()
    }

    fn add_consoles(&mut self, consoles: Vec<Console>) -> Result<(), Error> {
        let (ids, watched) = self.events.add_consoles(consoles);
        self.consoles = ids;
        watched
    }

    /// Tells the user and the clients of a change of the machine's state.
    pub(super) fn report_change(&mut self, change: Change) {
        let (text, event) = match change {
            Change::Started => ("started", Event::Started),
            Change::Paused => ("paused; Ctrl-A p resumes", Event::Paused),
            Change::Resumed => ("resumed", Event::Resumed),
        };
        self.notify_terminal(text);
        self.happenings.tell(event);
    }

    /// Shows a line on the terminal, if a console uses one.
    pub(super) fn notify_terminal(&mut self, text: &str) {
        self.each_console(|console| console.notify(text));
    }

    pub(super) fn each_console(&mut self, mut act: impl FnMut(&mut Console)) {
        for id in &self.consoles {
            if let Some(console) = self.events.console(*id) {
                act(console);
            }
        }
    }
}
