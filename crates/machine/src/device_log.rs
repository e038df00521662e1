//! The devices' log lines, limited per device.

use std::collections::HashMap;

use tracing::warn;
use vmm_config::Event;
use vmm_virtio::{Fault, Notices};

use crate::events::EventSink;

/// Driver faults that are logged for each device: a guest can cause any number.
const FAULTS: u32 = 5;
/// Lines that each device may log. A network card lists up to 256 refused destinations.
const NOTICES: u32 = 512;

/// Counts each device's log lines, by device id. It outlives the machines, so that a guest can't fill the log by resetting
/// forever.
#[derive(Debug, Default)]
pub(crate) struct DeviceLog {
    counts: HashMap<String, LineCounts>,
    events: EventSink,
}

#[derive(Debug, Default)]
struct LineCounts {
    faults: u32,
    notices: u32,
}

impl DeviceLog {
    /// Also reports faults and refused connections, all of them, to `events`.
    pub(crate) fn report_to(&mut self, events: EventSink) {
        self.events = events;
    }

    pub(crate) fn log(&mut self, id: &str, fault: Option<Fault>, notices: Notices) {
        if let Some(fault) = fault {
            self.events.tell(Event::DeviceFault { id: id.to_owned(), message: fault.to_string() });
        }
        for destination in &notices.refused {
            let (id, destination) = (id.to_owned(), destination.clone());
            self.events.tell(Event::ConnectionRefused { id, destination });
        }
        for line in self.lines(id, fault, notices) {
            warn!("{line}");
        }
    }

    /// The lines that are within the limits.
    fn lines(&mut self, id: &str, fault: Option<Fault>, notices: Notices) -> Vec<String> {
        let Notices { mut texts, lost, .. } = notices;
        if fault.is_none() && texts.is_empty() {
            return Vec::new();
        }
        let had = self.counts.entry(id.to_owned()).or_default();
        let mut lines = Vec::new();
        if let Some(fault) = fault.filter(|_| had.faults < FAULTS) {
            had.faults += 1;
            lines.push(format!("device \"{id}\" needs a reset: driver error: {fault}"));
        }
        if lost > 0 {
            texts.push(format!("{lost} lines came too fast and were dropped"));
        }
        for text in texts {
            if had.notices == NOTICES {
                had.notices += 1;
                lines.push(format!("device \"{id}\": {NOTICES} lines logged; further lines are suppressed"));
            }
            if had.notices < NOTICES {
                had.notices += 1;
                lines.push(format!("device \"{id}\": {text}"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices(count: usize, lost: u64) -> Notices {
        Notices { texts: vec!["something".to_owned(); count], lost, ..Notices::default() }
    }

    #[test]
    fn faults_are_logged_five_times_for_each_device() {
        let mut log = DeviceLog::default();
        let fault = Some(Fault::AvailableIndex);
        let first = log.lines("rng", fault, Notices::default());
        let expected = "device \"rng\" needs a reset: driver error: the available ring's index jumped by more \
            than the queue's size";
        assert_eq!(first, [expected]);
        let logged: usize = (0..9).map(|_| log.lines("rng", fault, Notices::default()).len()).sum();
        assert_eq!(logged, 4);
        assert_eq!(log.lines("lan", fault, Notices::default()).len(), 1);
    }

    #[test]
    fn notices_are_logged_up_to_the_limit() {
        let mut log = DeviceLog::default();
        assert_eq!(log.lines("lan", None, notices(511, 0)).len(), 511);
        let last =
            ["device \"lan\": something", "device \"lan\": 512 lines logged; further lines are suppressed"];
        assert_eq!(log.lines("lan", None, notices(3, 0)), last);
        assert_eq!(log.lines("lan", None, notices(64, 0)), [""; 0]);
    }

    #[test]
    fn faults_and_refused_destinations_are_events_also_beyond_the_lines() {
        let (told, events) = std::sync::mpsc::channel();
        let mut log = DeviceLog::default();
        log.report_to(EventSink::new(move |event| told.send(event).unwrap()));
        let refused = || Notices { refused: vec!["tcp 192.0.2.7:80".to_owned()], ..notices(1, 0) };
        (0..600).for_each(|_| log.log("lan", Some(Fault::AvailableIndex), refused()));
        drop(log);
        let message = Fault::AvailableIndex.to_string();
        let pair = [
            Event::DeviceFault { id: "lan".to_owned(), message },
            Event::ConnectionRefused { id: "lan".to_owned(), destination: "tcp 192.0.2.7:80".to_owned() },
        ];
        let told: Vec<_> = events.iter().collect();
        assert_eq!(told.len(), 1200);
        assert!(told.chunks(2).all(|told| told == pair));
    }

    #[test]
    fn notices_that_were_lost_are_counted() {
        let lines = DeviceLog::default().lines("lan", None, notices(1, 7));
        let expected =
            ["device \"lan\": something", "device \"lan\": 7 lines came too fast and were dropped"];
        assert_eq!(lines, expected);
    }
}
