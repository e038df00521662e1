//! A machine's run, from its first instruction until its vCPUs have stopped.

use event_manager::SubscriberOps;
use tracing::{info, warn};
use vmm_hostio::terminal;

use super::{Run, StoppedMachine, Supervisor, ending_of};
use crate::console::Console;
use crate::ending::Late;
use crate::event_loop::Source;
use crate::machine::Machine;
use crate::message::Message;
use crate::{Ending, Error, pause};

impl Supervisor {
    /// Runs the guest until it ends or somebody ends it, stops its vCPUs, and gives what it printed to whoever reads it. A guest
    /// that isn't to be started here is started by a command.
    pub(super) fn run_machine(
        &mut self,
        mut machine: Machine,
        starts: bool,
    ) -> Result<StoppedMachine, Error> {
        if starts {
            machine.start();
            let (total, load) = (self.started.elapsed().as_micros(), machine.load_time.as_micros());
            info!("first KVM_RUN after {total} us, of which kernel file {load} us");
        } else {
            info!("the machine is configured and waits for its start");
            self.say("not started; Ctrl-A p starts the guest");
        }
        let ending = self.wait_for_ending(&mut machine);
        self.give_up_pending(&machine);
        let mut vcpus = std::mem::take(&mut machine.vcpus);
        let stopped = self.finish("stopping the guest", move |progress| {
            let _step = progress.begin("stopping the vCPUs".to_owned());
            vcpus.stop();
        });
        // What was said last, such as by the fault for which the guest resets its machine.
        machine.virtio.tell_news(&mut self.device_log);
        self.finish_metrics(&machine);
        let exits = machine.watching.report().map(Box::new);
        let ending = match ending {
            Ok(ending) => ending,
            Err(error) => {
                self.discard(machine);
                return Err(error);
            }
        };
        if !ending.is_told() {
            info!("the machine has ended: {ending}");
        }
        if stopped.is_none() {
            // A vCPU that never stops still has the devices on its bus.
            std::mem::forget(machine);
            return Ok(StoppedMachine { run: Run { ending, exits }, machine: None });
        }
        let ending = if ending.waits_for_output() { self.drain(&machine, ending)? } else { ending };
        let ending = self.overruled(ending);
        Ok(StoppedMachine { run: Run { ending, exits }, machine: Some(machine) })
    }

    fn wait_for_ending(&mut self, machine: &mut Machine) -> Result<Ending, Error> {
        if std::mem::take(&mut self.metrics_due) {
            self.write_metrics(machine);
        }
        loop {
            // First: a console that was added has read what was typed already.
            while let Ok(message) = self.messages.1.try_recv() {
                if let Some(ending) = self.heed(message, machine)? {
                    return Ok(ending);
                }
            }
            self.turn(None)?;
        }
    }

    fn heed(&mut self, message: Message, machine: &mut Machine) -> Result<Option<Ending>, Error> {
        match message {
            Message::Wake => machine.vcpus.wake(),
            Message::DeviceNews => {
                machine.virtio.tell_news(&mut self.device_log);
                // A vCPU that wrote a reset asks whether it still must wait.
                machine.vcpus.wake();
                machine.finish_pause(|text| self.say(text));
                self.settle(machine);
            }
            Message::Metrics => self.write_metrics(machine),
            Message::Continued => {
                terminal::continued();
                self.each_console(Console::resized);
            }
            Message::Resized => self.each_console(Console::resized),
            Message::VcpuEnded => return machine.vcpu_ending(),
            Message::TimeIsUp => {
                // All at one moment, so that what they say of each other fits together.
                let late = match machine.vcpus.pause_within(pause::PATIENCE) {
                    true => machine.vcpus.reports_within(pause::PATIENCE),
                    false => Vec::new(),
                };
                return Ok(Some(Ending::TimeIsUp(Late::Running(late))));
            }
            Message::Signal(signal) => return self.signalled(signal, machine),
            Message::Key(key) => {
                let ending = self.typed(key, Some(machine), "");
                self.settle(machine);
                return Ok(ending);
            }
            Message::Requested => return Ok(self.obey(Some(machine), "")),
            Message::JobDone | Message::OutputGone | Message::ShutdownTimeIsUp => {}
        }
        Ok(ending_of(message))
    }

    fn write_metrics(&mut self, machine: &mut Machine) {
        let counters = self.metrics(machine).unwrap_or_default();
        match self.metrics_file.as_ref().map(|file| file.write(&counters)) {
            Some(Err(error)) => warn!("{error}"),
            Some(Ok(())) => {}
            None => info!("SIGUSR1: there is no --metrics to write to"),
        }
    }

    /// The last counters, which nobody could ask for again.
    fn finish_metrics(&mut self, machine: &Machine) {
        let Some(file) = self.metrics_file.clone() else { return };
        // What SIGUSR1 has asked for comes first.
        let before = file.finish();
        let written = before.and(file.write(&machine.counters())).and_then(|()| file.finish());
        if file.is_news(&written)
            && let Err(error) = written
        {
            warn!("{error}");
        }
    }

    /// Gives what the guest printed last to whoever reads it, for as long as that takes. A signal still ends
    /// the monitor.
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

    /// A reset may be followed by a restart, which must not forget what the user asked for in the same moment.
    fn overruled(&mut self, ending: Ending) -> Ending {
        if !ending.is_reset() {
            return ending;
        }
        self.asked_for.take().or_else(|| self.take_ending()).unwrap_or(ending)
    }

    /// The first end that somebody asks for, of a machine whose guest has ended.
    fn take_ending(&mut self) -> Option<Ending> {
        while let Ok(message) = self.messages.1.try_recv() {
            let ending =
                self.heed_without_guest(message, "the guest has ended; its last output is on its way");
            if ending.is_some() {
                return ending;
            }
        }
        None
    }

    fn is_drained(&mut self, machine: &Machine) -> bool {
        // A trace is as much the guest's as what it prints; other messages have their time when the monitor ends.
        if !machine.watching.is_drained() {
            return false;
        }
        self.consoles.iter().all(|id| match self.events.subscriber_mut(*id) {
            Ok(Source::Console(console)) => console.is_drained(),
            _ => true,
        })
    }
}
