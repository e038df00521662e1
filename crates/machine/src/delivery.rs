//! The last data of a machine's devices for the host's programs.

use std::time::Duration;

use vmm_virtio::Undelivered;

use crate::job::Progress;
use crate::parallel::in_parallel;
use crate::virtio::{OpenDevice, stopping};

/// How long a device waits for the host's programs before it looks whether it should give up, and updates the
/// step that the user is shown. Short compared with `LAST_PATIENCE` of the supervisor.
const TURN: Duration = Duration::from_millis(50);
/// Maximum number of connections of a device that are logged one by one; a guest can have thousands.
const LINES: usize = 16;

/// What a device couldn't deliver yet.
#[derive(Debug)]
pub(crate) struct UndeliveredBytes {
    kind: &'static str,
    id: String,
    left: Vec<Undelivered>,
}

impl UndeliveredBytes {
    /// Has the device deliver what is possible at once. `None` if nothing is left.
    pub(crate) fn of(open: &mut OpenDevice) -> Option<Self> {
        let left = open.device.deliver(Duration::ZERO);
        (!left.is_empty()).then(|| Self { kind: open.kind, id: open.id.clone(), left })
    }

    /// The step of a job that delivers them.
    pub(crate) fn step(&self) -> String {
        let Self { kind, id, left } = self;
        format!("delivering {} of virtio {kind} \"{id}\" to the host's programs", bytes(left))
    }

    /// Log lines that say what happens to them if the device is closed now.
    fn last_lines(&self) -> Vec<String> {
        let Self { id, left, .. } = self;
        let (lost, sent): (Vec<_>, Vec<_>) = left.iter().partition(|left| left.len > 0);
        let lost = lines(&lost, |bytes, from| {
            format!("device \"{id}\": lost: {bytes} that the host's program hasn't read from {from}")
        });
        let sent = lines(&sent, |bytes, of| {
            format!("device \"{id}\": left to the host's kernel, which goes on sending: {bytes} of {of}")
        });
        [lost, sent].concat()
    }
}

/// Delivers what the guest regards as sent, such as bytes of a connection that were acknowledged to it, until
/// nothing is left or `progress` is cancelled. Then closes the device. Returns log lines about data that was left.
pub(crate) fn deliver_and_close(mut open: OpenDevice, progress: &Progress) -> Vec<String> {
    let mut undelivered = UndeliveredBytes::of(&mut open);
    while let Some(some) =
        undelivered.as_mut().filter(|some| !some.left.is_empty() && !progress.is_cancelled())
    {
        let _step = progress.begin(some.step());
        some.left = open.device.deliver(TURN);
    }
    let lost = undelivered.map(|some| some.last_lines()).unwrap_or_default();
    let _step = progress.begin(stopping(open.kind, &open.id));
    drop(open);
    lost
}

/// [`deliver_and_close`] for several devices, in parallel.
pub(crate) fn deliver_and_close_all(devices: Vec<OpenDevice>, progress: &Progress) -> Vec<String> {
    let closed = in_parallel(devices, |device| deliver_and_close(device, progress));
    closed.into_iter().flatten().flatten().collect()
}

/// A line for each connection with its bytes and its name, and one for all above [`LINES`].
fn lines(left: &[&Undelivered], line: impl Fn(String, &str) -> String) -> Vec<String> {
    let (first, others) = left.split_at(left.len().min(LINES));
    let one = |one: &&Undelivered| line(bytes([*one]), &format!("the {}", one.connection));
    let mut lines: Vec<_> = first.iter().map(one).collect();
    if !others.is_empty() {
        lines.push(line(bytes(others.iter().copied()), &format!("{} more connections", others.len())));
    }
    lines
}

fn bytes<'a>(of: impl IntoIterator<Item = &'a Undelivered>) -> String {
    match of.into_iter().map(|left| left.len + left.sent_len).sum::<u64>() {
        1 => "1 byte".to_owned(),
        len => format!("{len} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(number: u64) -> Undelivered {
        Undelivered { connection: format!("connection {number}"), len: number, sent_len: 0 }
    }

    fn lost(id: &str, left: &[Undelivered]) -> Vec<String> {
        UndeliveredBytes { kind: "vsock", id: id.to_owned(), left: left.to_vec() }.last_lines()
    }

    #[test]
    fn data_lost_is_listed_by_connection_up_to_a_limit() {
        assert_eq!(lost("v", &[]), [""; 0]);
        let lines = lost("v", &[left(1), left(2)]);
        let line = |what| format!("device \"v\": lost: {what}");
        let first = line("1 byte that the host's program hasn't read from the connection 1");
        let second = line("2 bytes that the host's program hasn't read from the connection 2");
        assert_eq!(lines, [first, second]);
        let many: Vec<_> = (1..=100).map(left).collect();
        let lines = lost("v", &many);
        assert_eq!(lines.len(), LINES + 1);
        // The sum of 17 to 100.
        assert_eq!(
            lines[LINES],
            line("4914 bytes that the host's program hasn't read from 84 more connections")
        );
    }

    /// What the kernel has goes on being sent, unless the rest makes the end a reset.
    #[test]
    fn data_that_the_kernel_has_is_lost_only_with_the_rest() {
        let lines = lost(
            "n",
            &[Undelivered { sent_len: 5, ..left(2) }, Undelivered { len: 0, sent_len: 7, ..left(3) }],
        );
        let expected = [
            "device \"n\": lost: 7 bytes that the host's program hasn't read from the connection 2",
            "device \"n\": left to the host's kernel, which goes on sending: 7 bytes of the connection 3",
        ];
        assert_eq!(lines, expected);
    }
}
