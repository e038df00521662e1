//! Runs a machine, from its first instruction until its vCPUs have stopped.

use tracing::{debug, info, warn};
use vmm_bus::SystemEvent;
use vmm_config::Event;

use super::patience::DRIVER_PATIENCE;
use super::{Run, RunError, StoppedMachine, Supervisor, ending_of};
use crate::console::Console;
use crate::ending::TimeoutPhase;
use crate::machine::Machine;
use crate::message::{Key, Message};
use crate::{Ending, Error, pause};

impl Supervisor {
    /// Runs the guest until it ends or is ended, stops the vCPUs, and writes the guest's last output. Without `starts` the
    /// guest waits for a command that starts it.
    pub(super) fn run_machine(
        &mut self,
        mut machine: Machine,
        starts: bool,
    ) -> Result<StoppedMachine, RunError> {
        if self.driver_hint.must_wait(&machine)
            && let Err(error) = self.start_timer(DRIVER_PATIENCE, Message::DriverDue)
        {
            debug!("no timer for the guest's drivers, whose hint then comes at the end: {error}");
        }
        if starts {
            self.happenings.tell(Event::Started);
            machine.start();
            let (total, load) = (self.started.elapsed().as_micros(), machine.load_time.as_micros());
            info!("first KVM_RUN after {total} us, of which kernel file {load} us");
            self.step_done("starting the vCPUs");
            if let Some(times) = self.times.take() {
                info!("the start took {times}");
            }
        } else {
            info!("the machine is configured and waits to be started");
            self.notify_terminal("not started; Ctrl-A p starts the guest");
        }
        let ending = self.wait_for_ending(&mut machine);
        let is_ours = self.give_up_snapshot();
        self.give_up_pending(&machine);
        let mut vcpus = std::mem::take(&mut machine.vcpus);
        let ram = machine.ram.clone();
        let stopped = self.finish("stopping the guest", move |progress| {
            let _step = progress.begin("stopping the vCPUs".to_owned());
            vcpus.stop();
            // Here, because the file's storage may not answer.
            ram.has_lost_pages()
        });
        let ending = match ending {
            Ok(Ending::Crashed(_)) | Err(Error::Vcpu(_)) if stopped == Some(true) => Err(lost_memory()),
            ending => ending,
        };
        // The last log lines, such as a fault that made the guest reset its machine.
        machine.virtio.log_news(&mut self.device_log);
        self.finish_metrics(&machine);
        if matches!(ending, Ok(Ending::Guest(SystemEvent::Panic))) {
            self.happenings.tell(Event::GuestPanicked);
        }
        let exits = machine.observer.report().map(Box::new);
        if let Ok(ending) = &ending
            && !ending.is_error()
        {
            info!("the machine has ended: {ending}");
        }
        if stopped.is_none() || !is_ours {
            let losses = self.leave(machine);
            return match ending {
                Ok(ending) => Ok(StoppedMachine { run: Run { ending, exits, losses }, machine: None }),
                Err(error) => Err(RunError { error, losses }),
            };
        }
        let ended = ending.and_then(|ending| match ending.waits_for_output() {
            true => self.drain(&machine, ending),
            false => Ok(ending),
        });
        match ended {
            Ok(ending) => {
                let ending = self.overruled(ending);
                Ok(StoppedMachine { run: Run { ending, exits, losses: Vec::new() }, machine: Some(machine) })
            }
            Err(error) => Err(RunError { error, losses: self.close(machine) }),
        }
    }

    fn wait_for_ending(&mut self, machine: &mut Machine) -> Result<Ending, Error> {
        if std::mem::take(&mut self.metrics_due) {
            self.write_metrics(machine);
        }
        if std::mem::take(&mut self.pause_due) && machine.runs() {
            // It can't end the run.
            let _ = self.handle_key(Key::Pause, Some(machine), "");
        }
        let mut told = None;
        loop {
            // Messages first: a console that has just been added may have sent some.
            while let Ok(message) = self.messages.1.try_recv() {
                if let Some(ending) = self.handle(message, machine)? {
                    return Ok(ending);
                }
            }
            let runs = machine.runs();
            if told.replace(runs) != Some(runs) {
                self.each_console(|console| console.set_guest_runs(runs));
            }
            self.turn(None)?;
        }
    }

    fn handle(&mut self, message: Message, machine: &mut Machine) -> Result<Option<Ending>, Error> {
        match message {
            Message::Wake => machine.vcpus.wake(),
            Message::DeviceNews => {
                machine.virtio.log_news(&mut self.device_log);
                machine.virtio.check_memory()?;
                // A vCPU that is held by its write of a device reset checks whether it is done.
                machine.vcpus.wake();
                machine.finish_pause(|change| self.report_change(change));
                self.continue_snapshot(machine);
                self.answer_completed(machine);
            }
            Message::Metrics => self.write_metrics(machine),
            Message::Stop => self.stop_process(),
            Message::Continued => self.process_continued(),
            Message::Resized => self.each_console(Console::resized),
            Message::VcpuEnded => return machine.vcpu_ending(),
            Message::RunTimedOut => {
                // All vCPUs are paused first, so that their states are of the same moment.
                let late = match machine.vcpus.pause_within(pause::PATIENCE) {
                    true => machine.vcpus.reports_within(pause::PATIENCE),
                    false => Vec::new(),
                };
                return Ok(Some(Ending::TimedOut(TimeoutPhase::Running(late))));
            }
            Message::Signal(signal) => return self.handle_signal(signal, machine),
            Message::Key(key) => {
                let ending = self.handle_key(key, Some(machine), "");
                self.answer_completed(machine);
                return Ok(ending);
            }
            Message::RequestsPending => return Ok(self.execute_requests(Some(machine), "")),
            Message::DriverDue => self.driver_hint.give(machine),
            Message::JobDone => return Ok(self.finish_snapshot(machine)),
            Message::OutputClosed | Message::ShutdownTimedOut => {}
        }
        Ok(ending_of(message))
    }

    fn write_metrics(&mut self, machine: &mut Machine) {
        let counters = self.metrics(machine).unwrap_or_default();
        let Some(file) = &self.metrics_file else {
            // Once: whoever sends signals mustn't fill the log.
            if !std::mem::replace(&mut self.has_refused_metrics, true) {
                info!("SIGUSR1 ignored: --metrics isn't set");
            }
            return;
        };
        let written = file.write(&counters);
        if file.must_report(&written)
            && let Err(error) = written
        {
            warn!("{error}");
        }
    }

    /// Writes the final counters.
    fn finish_metrics(&mut self, machine: &Machine) {
        let Some(file) = self.metrics_file.clone() else { return };
        // A write that SIGUSR1 has started comes first.
        let before = file.finish();
        let written = before.and(file.write(&machine.counters())).and_then(|()| file.finish());
        if file.must_report(&written)
            && let Err(error) = written
        {
            warn!("{error}");
        }
    }

    /// Writes the guest's last output, however long its readers take. A signal still ends the monitor.
    fn drain(&mut self, machine: &Machine, ending: Ending) -> Result<Ending, Error> {
        self.each_console(Console::hurry);
        loop {
            if let Some(other) = self.take_ending() {
                return Ok(other);
            }
            if self.is_drained(machine) {
                return Ok(ending);
            }
            self.turn(None)?;
        }
    }

    /// The final ending: an end that the user requested during a reset overrides the restart.
    fn overruled(&mut self, ending: Ending) -> Ending {
        if !ending.is_reset() {
            return ending;
        }
        self.requested_ending.take().or_else(|| self.take_ending()).unwrap_or(ending)
    }

    /// The ending of the first pending message that has one, after the guest has ended.
    fn take_ending(&mut self) -> Option<Ending> {
        while let Ok(message) = self.messages.1.try_recv() {
            let ending = self.handle_without_guest(message, "the guest has ended; writing its last output");
            if ending.is_some() {
                return ending;
            }
        }
        None
    }

    fn is_drained(&mut self, machine: &Machine) -> bool {
        // A trace is waited for as the guest's output is; other lines are flushed when the monitor exits.
        if !machine.observer.is_drained() {
            return false;
        }
        self.consoles.iter().all(|id| self.events.console(*id).is_none_or(|console| console.is_drained()))
    }
}

/// Why a guest failed whose memory file has become shorter.
fn lost_memory() -> Error {
    let files = "the memory file of the snapshot was shortened; it must stay as it is while a machine uses it, or restore with \
                 --memory copy";
    Error::MissingPage { files: files.to_owned() }
}
