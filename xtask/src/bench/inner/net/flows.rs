//! Measures how much memory a monitor's own network needs for idle connections.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::super::spec::{FlowsSample, NetSpec};
use super::super::smaps::private_kib;

/// Where the guest connects to; resources/bench/net-flows has the same port.
pub(super) const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 5200);
/// How long connections must be quiet before they are measured as idle: a monitor may take some time to release their memory.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// Accepts the guests' connections.
#[derive(Debug)]
pub(super) struct Listener {
    streams: Receiver<TcpStream>,
}

impl Listener {
    /// Starts accepting connections, until the process exits.
    pub(super) fn start(listener: TcpListener) -> Self {
        let (sender, streams) = channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { streams }
    }

    /// Drops connections that a failed guest has left. Call it before starting the next guest.
    pub(super) fn clear(&self) {
        while self.streams.try_recv().is_ok() {}
    }

    /// The private memory of the monitor `pid` with and without its guest's connections. The guest opens a control connection, waits
    /// for a line on it, opens the others, sends their number, and keeps them until it receives another line. They count as idle after
    /// `quiet`.
    ///
    /// # Errors
    /// The guest doesn't follow this protocol before the deadline, or the monitor's smaps can't be read.
    pub(super) fn measure(
        &self,
        pid: u32,
        spec: &NetSpec,
        quiet: Duration,
        deadline: Instant,
    ) -> Result<FlowsSample, String> {
        let own_kib = || {
            let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"));
            smaps
                .map(|smaps| private_kib(&smaps, spec.mem_mib))
                .map_err(|error| format!("can't read the monitor's smaps: {error}"))
        };
        let next = || {
            let left = deadline.saturating_duration_since(Instant::now());
            self.streams.recv_timeout(left).map_err(|_| "the guest opened too few connections".to_owned())
        };
        let lost = |error| format!("the guest's control connection: {error}");
        let control = next()?;
        let left = deadline.saturating_duration_since(Instant::now());
        control.set_read_timeout(Some(left)).map_err(lost)?;
        let before_kib = own_kib()?;
        (&control).write_all(b"\n").map_err(lost)?;
        let mut line = String::new();
        BufReader::new(&control).read_line(&mut line).map_err(lost)?;
        if line.trim_end() != spec.flows.to_string() {
            return Err(format!("the guest opened {:?} of {} connections:", line.trim_end(), spec.flows));
        }
        let flows = (0..spec.flows).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
        let opened_kib = own_kib()?;
        thread::sleep(quiet);
        let idle_kib = own_kib()?;
        drop(flows);
        (&control).write_all(b"\n").map_err(lost)?;
        Ok(FlowsSample { before_kib, opened_kib, idle_kib })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Behaves as resources/bench/net-flows does.
    fn guest(server: SocketAddr, count: u32) {
        let control = TcpStream::connect(server).unwrap();
        let mut lines = BufReader::new(&control).lines();
        lines.next().unwrap().unwrap();
        let _flows: Vec<_> = (0..count).map(|_| TcpStream::connect(server).unwrap()).collect();
        writeln!(&control, "{count}").unwrap();
        // There is no line if the count is wrong.
        let _ = lines.next();
    }

    fn measured(asked_for: u32, opened: u32) -> Result<FlowsSample, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::start(listener);
        let spec = NetSpec {
            rounds: 1,
            seconds: 1,
            timeout_s: 60,
            // Larger than any mapping of a test, so that none is taken for guest RAM.
            mem_mib: 1 << 20,
            flows: asked_for,
            warm: Vec::new(),
            iperf3: Vec::new(),
            contenders: Vec::new(),
        };
        thread::scope(|scope| {
            scope.spawn(|| guest(address, opened));
            let deadline = Instant::now() + Duration::from_secs(60);
            listener.measure(std::process::id(), &spec, Duration::ZERO, deadline)
        })
    }

    #[test]
    fn measure_all_connections_gives_memory_before_and_after() {
        let flows = measured(3, 3).unwrap();
        assert!(flows.before_kib > 0 && flows.opened_kib > 0 && flows.idle_kib > 0, "{flows:?}");
    }

    #[test]
    fn measure_too_few_connections_is_an_error() {
        assert_eq!(measured(3, 2), Err("the guest opened \"2\" of 3 connections:".to_owned()));
    }
}
