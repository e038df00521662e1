//! A Linux guest in a machine that can be saved, and what must be right in one that was restored.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use driver::{BULK_DEADLINE, DEADLINE, Launch, Monitor, wait_until};

use crate::linux::{BOOT_DEADLINE, ENDED, InitUp};
use crate::shell::Shell;

/// A guest at its prompt, with echo, and a control socket.
pub(crate) struct Machine {
    pub(crate) shell: Shell,
    dir: PathBuf,
    socket: &'static str,
}

/// The number of lines in the kernel's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLen(usize);

impl Machine {
    /// Boots the guest of `launch`, in `dir`, with the control socket `socket` in it. It isn't muted.
    #[track_caller]
    pub(crate) fn boot(launch: Launch, dir: &Path, socket: &'static str) -> Self {
        let shell = Shell::boot(launch.args(["--control", socket]).dir(dir).on_terminal());
        Self { shell, dir: dir.to_owned(), socket }
    }

    /// Runs `ctl`, which must succeed.
    #[track_caller]
    fn ctl(&self, words: &[&str]) {
        let mut ctl = Monitor::command(["ctl", self.socket]).args(words).dir(&self.dir).start();
        ctl.expect_code(0, BULK_DEADLINE);
    }

    /// Takes a snapshot into the directory `name` beside the machine's files.
    #[track_caller]
    pub(crate) fn save(&self, name: &str) {
        self.ctl(&["snapshot", name]);
    }

    /// As [`save`](Self::save), and ends the machine with it.
    #[track_caller]
    pub(crate) fn save_and_stop(mut self, name: &str) -> InitUp {
        self.ctl(&["snapshot", name, "--stop"]);
        self.assert_ends();
        self.shell.up
    }

    /// Continues the snapshot `name` in `dir`, of a guest that reported `up` at its start.
    #[track_caller]
    pub(crate) fn restore(dir: &Path, name: &str, socket: &'static str, up: InitUp) -> Self {
        let launch = Monitor::command(["restore", name, "--control", socket]).dir(dir);
        let monitor = launch.on_terminal().start();
        // Before that the terminal would interpret what is typed.
        let is_raw = || monitor.termios() != monitor.termios_before();
        wait_until("the terminal passes on what is typed", DEADLINE, is_raw);
        Self { shell: Shell { monitor, up }, dir: dir.to_owned(), socket }
    }

    /// Asserts that a typed line is echoed and executed, by a shell that waits for it, and mutes the shell.
    #[track_caller]
    pub(crate) fn assert_echoes_and_mute(self) -> Self {
        let Self { mut shell, dir, socket } = self;
        shell.monitor.send(b"echo $((6*7))\n");
        shell.monitor.expect("echo $((6*7))\r\n42\r\n", DEADLINE);
        shell.monitor.expect("# ", DEADLINE);
        Self { shell: shell.mute(), dir, socket }
    }

    /// Turns the echo on again.
    #[track_caller]
    pub(crate) fn unmute(&mut self) {
        self.shell.run("stty echo");
    }

    /// The log as it is now.
    #[track_caller]
    pub(crate) fn log_len(&mut self) -> LogLen {
        LogLen(self.shell.run("dmesg | wc -l").trim().parse().expect("a number"))
    }

    /// Asserts that nothing at the level of a warning or above was logged since, except what says that the machine is slow, which the rig is:
    /// that the timer's interrupt had to look for expired timers three times, and that TSC and kvm-clock, of which one is saved and set after
    /// the other, are milliseconds apart.
    #[track_caller]
    pub(crate) fn assert_no_warning_since(&mut self, LogLen(len): LogLen) {
        let news = format!(
            "dmesg -r | tail -n +{} | grep -E '^<[0-4]>' | grep -v -e 'hrtimer: interrupt took ' -e 'clocksource: '",
            len + 1
        );
        assert_eq!(self.shell.run(&news), "", "in the kernel's log");
    }

    /// Asserts that a second is one, on each processor, by the guest's clock and not less by this host's, and that the processors agree
    /// about the time.
    #[track_caller]
    pub(crate) fn assert_time_passes(&mut self) {
        let cpus = self.shell.up.cpus;
        let begin = Instant::now();
        let sleep = r#"read a b </proc/uptime; sleep 1; read c b </proc/uptime; echo $a $c"#;
        let all = format!("for cpu in $(seq 0 {}); do taskset -c $cpu sh -c '{sleep}'; done", cpus - 1);
        let said = self.shell.run_within(&all, BOOT_DEADLINE);
        let elapsed = begin.elapsed();
        let seconds = |line: &str| {
            let (from, to) = line.split_once(' ').unwrap_or_else(|| panic!("{said}"));
            let [from, to] = [from, to].map(|text| text.parse::<f64>().expect("seconds"));
            to - from
        };
        let slept: Vec<f64> = said.lines().map(seconds).collect();
        assert_eq!(slept.len() as u64, cpus, "{said}");
        // The file has hundredths of a second. The upper limit is far more than a busy machine needs to start a program.
        assert!(slept.iter().all(|seconds| (0.99..30.0).contains(seconds)), "{slept:?}");
        // A clock that runs too fast would end the sleep early.
        assert!(elapsed >= Duration::from_millis(990 * cpus), "{slept:?} took {elapsed:?}");
        self.assert_processors_agree();
    }

    /// By each clock that Linux can use. Those that it knows are unreliable are not in its list.
    #[track_caller]
    fn assert_processors_agree(&mut self) {
        let clocks = "cd /sys/devices/system/clocksource/clocksource0; was=$(cat current_clocksource); \
                      for clock in kvm-clock tsc; do grep -qw $clock available_clocksource || continue; \
                      echo $clock >current_clocksource; echo $(cat current_clocksource): $(guest-agent clock 200); \
                      done; echo $was >current_clocksource; cd";
        let said = self.shell.run_within(clocks, BULK_DEADLINE);
        let agree = format!(": {} processors agree", self.shell.up.cpus);
        assert!(said.contains("kvm-clock") && said.lines().all(|line| line.ends_with(&agree)), "{said}");
    }

    /// Ends the guest, and with it the monitor.
    #[track_caller]
    pub(crate) fn power_off(mut self) {
        self.shell.monitor.send(b"poweroff -f\n");
        self.assert_ends();
    }

    /// With nothing to complain about, except what a host's kernel lacks for the sandbox, and that a disk of a slow host takes its time.
    #[track_caller]
    fn assert_ends(&mut self) {
        self.shell.monitor.expect_code(ENDED, DEADLINE);
        let stderr = self.shell.monitor.stderr();
        let expected = [" WARN sandbox: ", " WARN still stopping "];
        let is_expected = |line: &str| expected.iter().any(|begin| line.starts_with(begin));
        assert!(stderr.lines().all(is_expected), "{stderr}");
    }
}
