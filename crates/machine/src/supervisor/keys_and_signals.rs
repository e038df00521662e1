//! Maps keys at the terminal, and signals, to commands.

use serde_json::Value;
use tracing::info;
use vmm_config::{Command, MachineState, Reply, Status};
use vmm_hostio::terminal;

use super::Supervisor;
use super::commands::Executed;
use crate::console::Console;
use crate::machine::Machine;
use crate::message::{Key, Message};
use crate::run_state::{AfterSaving, RunState};
use crate::{Ending, Error, plan, signals};

impl Supervisor {
    /// Executes a key's command. An error or the status is shown on the terminal.
    pub(super) fn handle_key(
        &mut self,
        key: Key,
        machine: Option<&mut Machine>,
        activity: &str,
    ) -> Option<Ending> {
        let command = key_command(key, machine.as_deref().map(|machine| machine.state));
        match self.execute(command, machine, activity) {
            Executed::Done(Reply::Status(status)) => self.notify_terminal(&text(&status)),
            Executed::Done(_) | Executed::Pending(_) => {}
            Executed::Failed(error) => self.notify_terminal(&error.message),
            Executed::Ended(ending) => return Some(ending),
        }
        None
    }

    /// Ctrl-A p while no machine exists: the next one is paused, or no longer.
    pub(super) fn toggle_pause_due(&mut self) {
        self.pause_due = !self.pause_due;
        self.notify_terminal(match self.pause_due {
            true => "no guest is running; if it restarts, it is paused",
            false => "no guest is running; if it restarts, it isn't paused",
        });
    }

    /// Executes the command of a signal that asks for an end while a machine exists. If the guest doesn't listen to the power
    /// button, the monitor quits.
    pub(super) fn handle_signal(
        &mut self,
        signal: i32,
        machine: &mut Machine,
    ) -> Result<Option<Ending>, Error> {
        let is_first = !std::mem::replace(&mut self.shutting_down, true);
        if end_command(signal, is_first && machine.runs()) == Command::PowerButton {
            match self.execute(Command::PowerButton, Some(machine), "") {
                Executed::Failed(error) => self.notify_terminal(&error.message),
                _ => {
                    info!(
                        "SIGTERM: the power button is pressed; the guest has {:?} to shut down",
                        self.shutdown_timeout
                    );
                    self.start_timer(self.shutdown_timeout, Message::ShutdownTimedOut)?;
                    return Ok(None);
                }
            }
        }
        Ok(self.quit_by_signal(signal, Some(machine), ""))
    }

    /// Quits because of a signal, with the exit code of that signal.
    pub(super) fn quit_by_signal(
        &mut self,
        signal: i32,
        machine: Option<&mut Machine>,
        activity: &str,
    ) -> Option<Ending> {
        match self.execute(Command::Quit, machine, activity) {
            Executed::Ended(_) => Some(Ending::Signal(signal)),
            _ => None,
        }
    }

    /// SIGTSTP: the shell gets the terminal as it was before the monitor.
    pub(super) fn stop_process(&mut self) {
        terminal::suspend();
        signals::stop();
        self.process_continued();
    }

    /// The process was stopped, and runs again.
    pub(super) fn process_continued(&mut self) {
        terminal::continued();
        self.each_console(Console::resized);
    }

    /// The counters, for SIGUSR1.
    pub(super) fn metrics(&mut self, machine: &mut Machine) -> Option<Value> {
        match self.execute(Command::Metrics, Some(machine), "") {
            Executed::Done(Reply::Metrics(counters)) => Some(counters),
            _ => None,
        }
    }
}

/// The command of a key in this state; `None` if there is no machine.
fn key_command(key: Key, state: Option<RunState>) -> Command {
    match (key, state) {
        (Key::Quit, _) => Command::Quit,
        (Key::Status, _) => Command::Status,
        (Key::PowerButton, _) => Command::PowerButton,
        (
            Key::Pause,
            Some(
                RunState::Configured
                | RunState::Paused
                | RunState::Pausing { resumes: false, .. }
                | RunState::Saving { then: AfterSaving::Waits | AfterSaving::StaysPaused, .. },
            ),
        ) => Command::Resume,
        (Key::Pause, _) => Command::Pause,
    }
}

/// The command of a signal that asks for an end. `asks_guest`: a guest is running and hasn't been asked to shut down yet.
fn end_command(signal: i32, asks_guest: bool) -> Command {
    match signal {
        libc::SIGTERM if asks_guest => Command::PowerButton,
        _ => Command::Quit,
    }
}

/// A status as one line.
fn text(status: &Status) -> String {
    let Some(machine) = &status.machine else { return status.doing.clone().unwrap_or_default() };
    let (vcpus, seconds) = (machine.vcpus, machine.uptime_ms / 1000);
    let plural = if vcpus == 1 { "" } else { "s" };
    let memory = plan::shown_len(machine.memory_bytes);
    let state = match status.state {
        MachineState::Running => "",
        MachineState::Configured => ", not started",
        _ => ", paused",
    };
    format!("{vcpus} vCPU{plural}, {memory} of memory, up {seconds} s{state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_p_resumes_what_is_stopped_or_about_to_stop() {
        let command = |state| key_command(Key::Pause, state);
        assert_eq!(command(Some(RunState::Running)), Command::Pause);
        assert_eq!(command(Some(RunState::Pausing { resumes: true, saves: false })), Command::Pause);
        assert_eq!(command(Some(RunState::Pausing { resumes: false, saves: false })), Command::Resume);
        assert_eq!(command(Some(RunState::Paused)), Command::Resume);
        assert_eq!(command(Some(RunState::Configured)), Command::Resume);
        assert_eq!(command(None), Command::Pause);
    }

    #[test]
    fn signal_sigterm_alone_asks_the_guest_and_only_once() {
        assert_eq!(end_command(libc::SIGTERM, true), Command::PowerButton);
        assert_eq!(end_command(libc::SIGTERM, false), Command::Quit);
        assert_eq!(end_command(libc::SIGINT, true), Command::Quit);
        assert_eq!(end_command(libc::SIGHUP, true), Command::Quit);
    }
}
