//! Commands to a machine through the library, and how a Linux guest reacts when its devices change.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use driver::{DEADLINE, Line, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use vmm_config::{Answer, Command, ConfigFile, DeviceUpdate, Reply, Request, Response};
use vmm_machine::{Commander, Ending, Kinds, Start, Supervisor, Timeouts};

use crate::initrd::{CMDLINE, initrd_with};
use crate::linux::{ANY, BOOT_DEADLINE, image_path};

pub(crate) fn tests() -> Vec<Trial> {
    trials![command_that_changes_a_device_reaches_linux]
}

const PROMPT: &str = "# ";

/// A machine in this process, with the guest's shell on the socket of its serial console.
struct Bench {
    commander: Commander,
    responses: (Sender<Response>, Receiver<Response>),
    line: Line,
    ended: JoinHandle<Ending>,
}

impl Bench {
    fn start(config: String, dir: &Path) -> Self {
        let (commanders, commander) = channel();
        let path = dir.join("vm.json");
        let ended = thread::spawn(move || run(&config, &path, &commanders));
        let commander = commander.recv_timeout(DEADLINE).expect("a supervisor");
        let mut line = None;
        wait_until("the socket is there", DEADLINE, || {
            line = Line::connect(&dir.join("serial")).ok();
            line.is_some()
        });
        let mut line = line.expect("it is there");
        line.expect(PROMPT, BOOT_DEADLINE);
        line.send(b"stty -echo\n");
        line.expect("stty -echo", DEADLINE);
        line.expect(PROMPT, DEADLINE);
        Self { commander, responses: channel(), line, ended }
    }

    /// Runs a command in the guest's shell and returns what it prints.
    fn run(&mut self, command: &str) -> String {
        self.line.send(format!("{command}\n").as_bytes());
        let printed = self.line.expect(PROMPT, DEADLINE).replace('\r', "");
        printed.rsplit_once('\n').map_or(String::new(), |(lines, _)| format!("{lines}\n"))
    }

    fn wait_until_prints(&mut self, command: &str, expected: &str) {
        wait_until(command, DEADLINE, || self.run(command) == expected);
    }

    fn ask(&self, command: Command) -> Answer {
        let responses = self.responses.0.clone();
        self.commander.send(Request { id: 1, command }, move |response| _ = responses.send(response));
        self.responses.1.recv_timeout(DEADLINE).expect("a response").answer
    }

    #[track_caller]
    fn assert_done(&self, command: Command) {
        assert_eq!(self.ask(command), Answer::Result(Reply::Done));
    }

    #[track_caller]
    fn update(&self, id: &str, fields: &Value) {
        let fields = fields.as_object().expect("an object").clone();
        self.assert_done(Command::UpdateDevice(DeviceUpdate { id: id.to_owned(), fields }));
    }

    #[track_caller]
    fn status(&self, id: &str) -> Map<String, Value> {
        match self.ask(Command::DeviceStatus { id: id.to_owned() }) {
            Answer::Result(Reply::Device(report)) => report,
            other => panic!("{other:?}"),
        }
    }
}

fn run(config: &str, path: &Path, commanders: &Sender<Commander>) -> Ending {
    let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).expect("descriptors");
    commanders.send(supervisor.commander()).expect("the test waits");
    let config = ConfigFile::parse(config, path).expect("a config").merge(Default::default());
    let config = Arc::new(config.expect("a whole one"));
    let kinds = Kinds { virtio: &[vmm_virtio_devices::KINDS], ..Kinds::default() };
    let start = Start::new(config, kinds).expect("its files, and a plan");
    supervisor.run(start).expect("a machine").ending
}

fn command_that_changes_a_device_reaches_linux() {
    let dir = TempDir::new().expect("a temporary directory");
    std::fs::write(dir.path().join("disk"), vec![0; 1 << 20]).expect("room for a disk");
    let drivers = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon"];
    let initrd = initrd_with(&drivers);
    let config = json!({
        "boot": {"kernel": image_path(ANY), "initrd": initrd.path(), "cmdline": CMDLINE},
        "memory": {"size": "256M"},
        "serial": {"socket": "serial"},
        "devices": [
            {"type": "block", "id": "disk", "path": "disk"},
            {"type": "net", "id": "lan", "backend": "user"},
            {"type": "console", "id": "tty", "target": {"socket": "hvc"}},
            {"type": "balloon", "id": "balloon"},
        ],
    });
    let mut bench = Bench::start(config.to_string(), dir.path());
    assert_eq!(bench.run("sh /modules/load; ip link set eth0 up; echo $?"), "0\n");

    assert_eq!(bench.run("cat /sys/block/vda/size"), "2048\n");
    bench.update("disk", &json!({"size": "2M"}));
    bench.wait_until_prints("cat /sys/block/vda/size", "4096\n");
    assert_eq!(
        bench.run("(echo end | dd of=/dev/vda bs=512 seek=4095 conv=sync 2>/dev/null) && sync; echo $?"),
        "0\n"
    );
    let disk = std::fs::read(dir.path().join("disk")).expect("it is there");
    assert_eq!((disk.len(), &disk[4095 * 512..][..4]), (2 << 20, &b"end\n"[..]));

    bench.wait_until_prints("cat /sys/class/net/eth0/carrier", "1\n");
    bench.update("lan", &json!({"link": "down"}));
    bench.wait_until_prints("cat /sys/class/net/eth0/carrier", "0\n");
    assert_eq!(bench.status("lan")["link"], "down");
    bench.update("lan", &json!({"link": "up"}));
    bench.wait_until_prints("cat /sys/class/net/eth0/carrier", "1\n");
    let lease = bench.run("ip link set lo up; udhcpc -n -q -i eth0 2>&1");
    assert!(lease.contains("lease of 10.0.2.15 obtained"), "{lease}");

    bench.update("tty", &json!({"size": {"columns": 132, "rows": 40}}));
    bench.wait_until_prints("stty size </dev/hvc0", "40 132\n");

    bench.update("balloon", &json!({"size": "64M"}));
    wait_until("the balloon is inflated", DEADLINE, || bench.status("balloon")["actual_bytes"] == 64 << 20);
    let reports = bench.status("balloon")["statistics_reports"].as_u64().expect("a number");
    wait_until("the guest reports its memory", DEADLINE, || {
        bench.status("balloon")["statistics_reports"].as_u64() > Some(reports)
    });
    let statistics = bench.status("balloon")["statistics"].clone();
    let total = statistics["total_memory"].as_u64().expect("a number");
    assert!((100 << 20..256 << 20).contains(&total), "{statistics}");

    // The guest sees a change to a paused machine when it is resumed.
    bench.assert_done(Command::Pause);
    bench.update("disk", &json!({"size": "3M"}));
    bench.update("balloon", &json!({"size": "0"}));
    bench.assert_done(Command::Resume);
    bench.wait_until_prints("cat /sys/block/vda/size", "6144\n");
    wait_until("the balloon is deflated", DEADLINE, || bench.status("balloon")["actual_bytes"] == 0);
    assert_eq!(bench.run("dmesg | grep -E 'BUG|Oops|I/O error|rcu.*stall'"), "");
    bench.assert_done(Command::Quit);
    assert!(matches!(bench.ended.join(), Ok(Ending::Quit)));
}
