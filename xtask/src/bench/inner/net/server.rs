//! iperf3 as the server: one for each contender, so that what one leaves undone is nothing to the next.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// What it says when a client may come.
const READY: &str = "Server listening";
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server, killed when this is dropped.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Returns when it listens.
    pub(super) fn start(iperf3: &[String]) -> Result<Self, String> {
        let mut child = Command::new(&iperf3[0])
            .args(&iperf3[1..])
            .args(["-4", "-s", "-i", "0", "--forceflush"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("can't start {}: {error}", iperf3[0]))?;
        let stdout = child.stdout.take().expect("it is a pipe");
        let server = Self(child);
        let (sender, ready) = channel();
        // To the end, so that the pipe never fills.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains(READY) {
                    // Nobody waits for the second time.
                    let _ = sender.send(());
                }
            }
        });
        ready.recv_timeout(READY_TIMEOUT).map_err(|_| "iperf3 doesn't listen on port 5201".to_owned())?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
