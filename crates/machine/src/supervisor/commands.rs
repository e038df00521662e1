//! Executes commands, whether from programs, keys or signals.

use std::sync::mpsc::TryRecvError;

use serde_json::Value;
use vmm_config::{Answer, Command, CommandError, DeviceUpdate, ErrorCode, MachineState, Reply, Status, hint};
use vmm_virtio::{DeviceBlame, DeviceError, Session, VirtioDevice};

use super::Supervisor;
use super::requests::{Commander, CompletionEvent, Pending};
use crate::Ending;
use crate::machine::Machine;
use crate::run_state::{AfterSaving, RunState};

/// Requests executed before the event loop has another turn.
const REQUESTS_AT_ONCE: usize = 64;

/// The immediate result of a command.
pub(super) enum Executed {
    Done(Reply),
    Failed(CommandError),
    /// It completes later.
    Pending(CompletionEvent),
    /// It is done, and ends the machine.
    Ended(Ending),
}

impl Supervisor {
    /// A sender of commands to the machines, usable from any thread.
    pub fn commander(&self) -> Commander {
        self.requests.commander.clone()
    }

    /// Executes queued requests, on the machine if there is one, and returns the ending if one ends it. At most
    /// [`REQUESTS_AT_ONCE`], so that a client which floods the queue doesn't starve the event loop's other sources.
    pub(super) fn execute_requests(
        &mut self,
        mut machine: Option<&mut Machine>,
        activity: &str,
    ) -> Option<Ending> {
        for _ in 0..REQUESTS_AT_ONCE {
            let Ok(mut queued) = self.requests.received.try_recv() else { return None };
            let executed = match (&queued.request.command, machine.as_deref_mut()) {
                (Command::Snapshot(wanted), Some(machine)) => self
                    .begin_snapshot(&mut queued.files, wanted, machine)
                    .map_or_else(Executed::Failed, |answers| {
                        Executed::Pending(CompletionEvent::Saved(answers))
                    }),
                (command, machine) => self.execute(command.clone(), machine, activity),
            };
            match executed {
                Executed::Done(reply) => queued.answer(Answer::Result(reply)),
                Executed::Failed(error) => queued.answer(Answer::Error(error)),
                Executed::Pending(until) => self.requests.pending.push(Pending { queued, until }),
                Executed::Ended(ending) => {
                    queued.answer(Answer::Result(Reply::Done));
                    // The rest of the queue is left to the next turn.
                    self.requests.look_again();
                    return Some(ending);
                }
            }
            if let Some(machine) = machine.as_deref_mut() {
                self.answer_completed(machine);
            }
        }
        // There may be more.
        self.requests.look_again();
        None
    }

    /// Answers the completed requests: the machine has reached the requested state, or a device has answered.
    pub(super) fn answer_completed(&mut self, machine: &Machine) {
        for Pending { queued, until } in std::mem::take(&mut self.requests.pending) {
            let answer = match &until {
                CompletionEvent::StateReached => reached(&queued.request.command, machine.state),
                CompletionEvent::Saved(answers) => answers.try_recv().ok(),
                CompletionEvent::Device(answers) => match answers.try_recv() {
                    Ok(Ok(reply)) => Some(Ok(reply)),
                    Ok(Err(error)) => Some(Err(refused(&error))),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => {
                        let message = "the device has failed; reset the machine to restart it";
                        Some(Err(CommandError::new(ErrorCode::DeviceFailed, message)))
                    }
                },
            };
            match answer {
                Some(Ok(reply)) => queued.answer(Answer::Result(reply)),
                Some(Err(error)) => queued.answer(Answer::Error(error)),
                None => self.requests.pending.push(Pending { queued, until }),
            }
        }
    }

    /// Answers all requests in progress on a machine that ends: the completed ones with their results, the others with an
    /// error. A device may still carry out a command that it has received.
    pub(super) fn give_up_pending(&mut self, machine: &Machine) {
        self.answer_completed(machine);
        for Pending { queued, until } in std::mem::take(&mut self.requests.pending) {
            let message = match until {
                CompletionEvent::StateReached | CompletionEvent::Saved(_) => "the machine has ended",
                CompletionEvent::Device(_) => {
                    "the machine has ended; the device may have carried out the command"
                }
            };
            queued.answer(Answer::Error(CommandError::new(ErrorCode::Ended, message)));
        }
    }

    /// Executes a command. Without a machine only `quit` and `status` succeed; the status then shows `activity`.
    pub(super) fn execute(
        &mut self,
        command: Command,
        machine: Option<&mut Machine>,
        activity: &str,
    ) -> Executed {
        let Some(machine) = machine else {
            return match command {
                Command::Quit => Executed::Ended(Ending::Quit),
                Command::Status => Executed::Done(Reply::Status(Status {
                    state: MachineState::NotRunning,
                    doing: Some(activity.to_owned()),
                    machine: None,
                })),
                _ => Executed::Failed(CommandError::new(ErrorCode::NotRunning, "no guest is running")),
            };
        };
        match command {
            Command::Quit => Executed::Ended(Ending::Quit),
            Command::Reset => Executed::Ended(Ending::Reset),
            Command::Status => Executed::Done(Reply::Status(machine.status())),
            Command::Metrics => Executed::Done(Reply::Metrics(machine.counters())),
            Command::PowerButton if machine.press_power_button() => Executed::Done(Reply::Done),
            Command::PowerButton => Executed::Failed(CommandError::new(
                ErrorCode::NotListening,
                "the guest doesn't listen to the power button",
            )),
            Command::Pause => match machine.pause(|change| self.report_change(change)) {
                Ok(()) if matches!(machine.state, RunState::Configured | RunState::Paused) => {
                    Executed::Done(Reply::Done)
                }
                Ok(()) => Executed::Pending(CompletionEvent::StateReached),
                Err(error) => Executed::Failed(error),
            },
            Command::Resume => {
                machine.resume(|change| self.report_change(change));
                match machine.state {
                    RunState::Running => Executed::Done(Reply::Done),
                    _ => Executed::Pending(CompletionEvent::StateReached),
                }
            }
            Command::Events => Executed::Failed(CommandError::new(
                ErrorCode::InvalidRequest,
                "events are for the clients of a control socket",
            )),
            // The files come with the request.
            Command::Snapshot(_) => Executed::Failed(CommandError::new(
                ErrorCode::InvalidRequest,
                "a snapshot needs the files that a request brings",
            )),
            // The device would be saved half changed.
            Command::UpdateDevice(_) if matches!(machine.state, RunState::Saving { .. }) => {
                let message = "a snapshot is being written; try again";
                Executed::Failed(CommandError::new(ErrorCode::Busy, message))
            }
            Command::UpdateDevice(DeviceUpdate { id, fields }) => {
                let fields = Value::Object(fields);
                on_device(machine, &id, move |device, session| {
                    device.update(&fields, session).map(|()| Reply::Done)
                })
            }
            Command::DeviceStatus { id } => {
                on_device(machine, &id, |device, _| Ok(Reply::Device(device.report())))
            }
        }
    }
}

/// Calls `act` on the thread of the device with this id.
fn on_device(
    machine: &Machine,
    id: &str,
    act: impl FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) -> Result<Reply, DeviceError> + Send + 'static,
) -> Executed {
    match machine.virtio.with_device(id, act) {
        Some(answers) => Executed::Pending(CompletionEvent::Device(answers)),
        None => {
            let ids: Vec<_> = machine.virtio.ids().collect();
            let hint = if ids.is_empty() { "there are none".to_owned() } else { hint(id, &ids) };
            let message = format!("no virtio device has the id {id:?}: {hint}");
            Executed::Failed(CommandError::of_field(ErrorCode::UnknownDevice, "id", message))
        }
    }
}

/// The result of a request to pause or resume, given the machine's state; `None` while it is in progress.
fn reached(command: &Command, state: RunState) -> Option<Result<Reply, CommandError>> {
    match (command, state) {
        (Command::Pause, RunState::Configured | RunState::Paused) | (Command::Resume, RunState::Running) => {
            Some(Ok(Reply::Done))
        }
        (
            Command::Pause,
            RunState::Pausing { resumes: false, .. }
            | RunState::Saving { then: AfterSaving::Waits | AfterSaving::StaysPaused, .. },
        )
        | (
            Command::Resume,
            RunState::Pausing { resumes: true, .. }
            | RunState::Saving { then: AfterSaving::Starts | AfterSaving::Resumes, .. },
        ) => None,
        _ => Some(Err(CommandError::new(ErrorCode::Superseded, "superseded by a later command"))),
    }
}

/// A device's error as an error of the command.
fn refused(error: &DeviceError) -> CommandError {
    let code = match error.blame {
        DeviceBlame::Config => ErrorCode::InvalidField,
        DeviceBlame::Host => ErrorCode::HostRefuses,
    };
    match error.field.as_str() {
        "" => CommandError::new(code, error.source.to_string()),
        field => CommandError::of_field(code, field, format!("{field}: {}", error.source)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use vmm_config::{Request, Response};

    use super::*;
    use crate::message::Message;
    use crate::{Offloaded, Timeouts};

    #[test]
    fn commands_before_there_is_a_machine_are_answered_and_quit_ends_the_work() {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        let commander = supervisor.commander();
        let (_release, released) = channel::<()>();
        let (responses, answers) = channel();
        let offloaded = supervisor.offload(move |progress| {
            let step = progress.begin("reading the kernel".to_owned());
            let ask = |id, command| {
                let responses = responses.clone();
                commander.send(Request { id, command }, move |response| _ = responses.send(response));
            };
            [Command::Status, Command::Pause, Command::Quit, Command::Status]
                .into_iter()
                .zip(1..)
                .for_each(|(command, id)| ask(id, command));
            let hung = released.recv();
            drop(step);
            hung
        });
        assert!(matches!(offloaded, Ok(Offloaded::Ended(Ending::Quit))), "{offloaded:?}");
        let answer = || {
            let Response { id, answer } = answers.recv_timeout(Duration::from_secs(10)).unwrap();
            (id, answer)
        };
        let not_running = || Status {
            state: MachineState::NotRunning,
            doing: Some("reading the kernel".to_owned()),
            machine: None,
        };
        assert_eq!(answer(), (1, Answer::Result(Reply::Status(not_running()))));
        let error = CommandError::new(ErrorCode::NotRunning, "no guest is running");
        assert_eq!(answer(), (2, Answer::Error(error)));
        assert_eq!(answer(), (3, Answer::Result(Reply::Done)));
        assert_eq!(answer(), (4, Answer::Result(Reply::Status(not_running()))), "also while it ends");
    }

    /// The event loop has a turn in between, for its other sources: signals, consoles, timeouts.
    #[test]
    fn commands_of_a_flood_are_done_some_at_a_time() {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        let commander = supervisor.commander();
        let (responses, answers) = channel();
        (0..100).for_each(|id| {
            let responses = responses.clone();
            commander
                .send(Request { id, command: Command::Status }, move |response| _ = responses.send(response));
        });
        let is_woken = |supervisor: &mut Supervisor| {
            supervisor.turn(Some(Instant::now() + Duration::from_secs(10))).unwrap();
            supervisor.messages.1.try_iter().any(|message| message == Message::RequestsPending)
        };
        assert!(is_woken(&mut supervisor));
        assert!(supervisor.execute_requests(None, "").is_none());
        assert_eq!(answers.try_iter().count(), REQUESTS_AT_ONCE);
        assert!(is_woken(&mut supervisor), "it isn't woken for the others");
        assert!(supervisor.execute_requests(None, "").is_none());
        let ids: Vec<u64> = answers.try_iter().map(|Response { id, .. }| id).collect();
        assert_eq!((ids[0], ids.len()), (64, 36));
    }
}
