//! The thread and its handle, with a scripted processor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vmm_bus::EventFd;
use vmm_kvm::{EmulationFailure, Exit, VcpuReport, VcpuState};
use vmm_vcpu::{Cpu, CrashCause, End, Error, ExitHandler, Flow, Kick, VcpuThread, VcpuThreads};

/// Time after which a wait fails, so that tests don't hang.
const DEADLINE: Duration = Duration::from_secs(10);

/// An action of the scripted processor.
enum Step {
    Out(u16, usize, Vec<u8>),
    In(u16, usize, usize),
    Write(u64, Vec<u8>),
    Shutdown,
    BadInstruction,
    Panic,
    /// Stays in the guest until kicked.
    Spin,
    /// Stays in the kernel until this is signalled, whether kicked or not, as while it waits for a page of a file.
    Stuck(Receiver<()>),
}

/// Follows a script, and spins at its end. A kick makes it return, as with KVM.
struct ScriptedCpu {
    script: VecDeque<Step>,
    data: Vec<u8>,
    flag: Arc<Flag>,
    reads: Sender<Vec<u8>>,
}

#[derive(Default)]
struct Flag {
    set: Mutex<bool>,
    changed: Condvar,
    /// Number of times that the guest was entered.
    entries: AtomicUsize,
}

impl Kick for Flag {
    fn set(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_all();
    }
    fn clear(&self) {
        *self.set.lock().unwrap() = false;
    }
}

impl Flag {
    fn wait(&self) {
        let set = self.set.lock().unwrap();
        drop(self.changed.wait_while(set, |set| !*set).unwrap());
    }
}

fn scripted(script: Vec<Step>) -> (ScriptedCpu, Arc<Flag>, Receiver<Vec<u8>>) {
    let flag = Arc::new(Flag::default());
    let (reads, seen) = channel();
    let cpu = ScriptedCpu { script: script.into(), data: Vec::new(), flag: Arc::clone(&flag), reads };
    (cpu, flag, seen)
}

impl Cpu for ScriptedCpu {
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        // The guest receives the data of the previous read.
        if !self.data.is_empty() {
            let _ = self.reads.send(std::mem::take(&mut self.data));
        }
        if *self.flag.set.lock().unwrap() {
            return Ok(Exit::Interrupted);
        }
        self.flag.entries.fetch_add(1, Ordering::SeqCst);
        match self.script.pop_front().unwrap_or(Step::Spin) {
            Step::Out(port, width, data) => {
                // Leaked, because the exit borrows it, as it borrows the page shared with the kernel.
                let data = data.leak();
                Ok(Exit::PortOut { port, width, data })
            }
            Step::In(port, width, len) => {
                self.data = vec![0; len];
                Ok(Exit::PortIn { port, width, data: &mut self.data })
            }
            Step::Write(gpa, data) => Ok(Exit::MmioWrite { gpa, data: data.leak() }),
            Step::Shutdown => Ok(Exit::Shutdown),
            Step::BadInstruction => Ok(Exit::EmulationFailure(EmulationFailure::new(&[0x0f, 0xc7, 0x0e]))),
            Step::Panic => panic!("as scripted"),
            Step::Spin => {
                // Only some tests receive this.
                let _ = self.reads.send(Vec::new());
                self.flag.wait();
                Ok(Exit::Interrupted)
            }
            Step::Stuck(released) => {
                let _ = self.reads.send(Vec::new());
                let _ = released.recv();
                Ok(Exit::Interrupted)
            }
        }
    }
    fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        if !self.data.is_empty() {
            let _ = self.reads.send(std::mem::take(&mut self.data));
        }
        Ok(Exit::Interrupted)
    }
    fn notify_pause(&mut self) {
        let _ = self.reads.send(b"notified".to_vec());
    }
    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.flag) as _
    }
    fn report(&self) -> VcpuReport {
        VcpuReport { code: vec![0xcc], ..Default::default() }
    }
    fn state(&self, _msrs: &[u32]) -> Result<VcpuState, vmm_kvm::Error> {
        Err(vmm_kvm::Error::NoWallClock)
    }
    fn instruction_pointer(&self) -> Option<u64> {
        Some(0x7c00)
    }
}

/// Sends each access to the test and returns `flow`.
struct Recorder {
    accesses: Sender<(u64, Vec<u8>)>,
    flow: Flow<&'static str>,
}

impl ExitHandler<ScriptedCpu> for Recorder {
    type Stop = &'static str;
    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        if port == 0x60 {
            data.fill(0x42);
        }
    }
    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<&'static str> {
        self.accesses.send((port.into(), data.to_vec())).unwrap();
        self.flow
    }
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<&'static str> {
        self.accesses.send((gpa, data.to_vec())).unwrap();
        self.flow
    }
}

/// A thread, and the means to observe it.
struct Bench {
    vcpu: VcpuThread<&'static str>,
    flag: Arc<Flag>,
    accesses: Receiver<(u64, Vec<u8>)>,
    reads: Receiver<Vec<u8>>,
    ended: EventFd,
}

fn start(script: Vec<Step>, flow: Flow<&'static str>) -> Bench {
    let (cpu, flag, reads) = scripted(script);
    let (sender, accesses) = channel();
    let ended = EventFd::new().unwrap();
    let handler = Recorder { accesses: sender, flow };
    let vcpu = VcpuThread::spawn(3, cpu, handler, ended.try_clone().unwrap()).unwrap();
    Bench { vcpu, flag, accesses, reads, ended }
}

impl Bench {
    fn entries(&self) -> usize {
        self.flag.entries.load(Ordering::SeqCst)
    }

    fn access(&self) -> (u64, Vec<u8>) {
        self.accesses.recv_timeout(DEADLINE).unwrap()
    }

    fn join(self) -> Result<End<&'static str>, Error> {
        self.ended.wait().unwrap();
        assert!(self.vcpu.has_ended());
        self.vcpu.join()
    }
}

/// Starts a thread that first calls `begin`.
fn start_with(
    begin: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> (VcpuThread<&'static str>, Arc<Flag>) {
    let (cpu, flag, _) = scripted(Vec::new());
    let handler = Recorder { accesses: channel().0, flow: Flow::Enter };
    let vcpu = VcpuThread::spawn_with(3, cpu, handler, EventFd::new().unwrap(), begin).unwrap();
    (vcpu, flag)
}

#[test]
fn thread_calls_begin_on_itself_first() {
    let (name, names) = channel();
    let (vcpu, flag) = start_with(move || {
        name.send(std::thread::current().name().map(str::to_owned)).unwrap();
        Ok(())
    });
    assert_eq!(names.recv_timeout(DEADLINE).unwrap().as_deref(), Some("vcpu3"));
    assert_eq!(flag.entries.load(Ordering::SeqCst), 0);
    drop(vcpu);
}

#[test]
fn thread_whose_begin_fails_ends_without_entering_the_guest() {
    let (vcpu, flag) = start_with(|| Err(std::io::ErrorKind::PermissionDenied.into()));
    vcpu.resume();
    let error = vcpu.join().unwrap_err();
    assert_eq!(error.to_string(), "vcpu3: permission denied");
    assert_eq!(flag.entries.load(Ordering::SeqCst), 0);
}

#[test]
fn threads_pause_and_resume_together() {
    let (threads, flags): (Vec<_>, Vec<_>) = (0..3).map(|_| start_with(|| Ok(()))).unzip();
    let mut vcpus = VcpuThreads::default();
    threads.into_iter().for_each(|vcpu| vcpus.push(vcpu));
    let entries = || flags.iter().map(|flag| flag.entries.load(Ordering::SeqCst)).collect::<Vec<_>>();
    assert!(vcpus.pause_within(DEADLINE));
    assert_eq!(entries(), [0, 0, 0]);
    vcpus.resume();
    assert!(vcpus.pause_within(DEADLINE));
    let paused = entries();
    assert!(vcpus.pause_within(DEADLINE));
    assert_eq!(entries(), paused);
    assert_eq!(vcpus.reports_within(DEADLINE).len(), 3);
    vcpus.stop();
    assert_eq!(vcpus.count(), 0);
}

/// This happens when guest memory is mapped from a file on storage that hangs.
#[test]
fn thread_that_does_not_leave_the_guest_delays_the_others_only_until_the_timeout() {
    let (release, released) = channel();
    let stuck = start(vec![Step::Stuck(released)], Flow::Enter);
    let (other, _) = start_with(|| Ok(()));
    let mut vcpus = VcpuThreads::default();
    [stuck.vcpu, other].into_iter().for_each(|vcpu| vcpus.push(vcpu));
    vcpus.resume();
    stuck.reads.recv_timeout(DEADLINE).expect("it is in the guest");

    assert!(!vcpus.pause_within(Duration::from_millis(20)));
    let reports = vcpus.reports_within(Duration::from_millis(20));
    assert_eq!(reports.len(), 1, "only the other vCPU's");

    vcpus.resume();
    release.send(()).unwrap();
    stuck.reads.recv_timeout(DEADLINE).expect("the late pause was cancelled by the resume");
    assert!(vcpus.pause_within(DEADLINE));
}

#[test]
fn thread_starts_paused() {
    let bench = start(vec![Step::Out(0xe9, 1, vec![1])], Flow::Enter);
    bench.vcpu.pause();
    assert_eq!(bench.entries(), 0);
    bench.vcpu.resume();
    assert_eq!(bench.access(), (0xe9, vec![1]));
}

#[test]
fn string_output_arrives_element_by_element_at_its_width() {
    let bench = start(vec![Step::Out(0xe9, 2, vec![1, 2, 3, 4])], Flow::Enter);
    bench.vcpu.resume();
    assert_eq!(bench.access(), (0xe9, vec![1, 2]));
    assert_eq!(bench.access(), (0xe9, vec![3, 4]));
}

#[test]
fn string_input_fills_all_elements_and_unclaimed_ports_read_as_ones() {
    let bench = start(vec![Step::In(0x60, 1, 3), Step::In(0x61, 4, 4)], Flow::Enter);
    bench.vcpu.resume();
    assert_eq!(bench.reads.recv_timeout(DEADLINE).unwrap(), [0x42; 3]);
    assert_eq!(bench.reads.recv_timeout(DEADLINE).unwrap(), [0xff; 4]);
}

#[test]
fn stop_of_the_handler_ends_the_vcpu_and_signals_the_eventfd() {
    let bench = start(vec![Step::Out(0x64, 1, vec![0xfe])], Flow::Stop("reset"));
    bench.vcpu.resume();
    assert!(matches!(bench.join(), Ok(End::Asked("reset"))));
}

#[test]
fn triple_fault_is_a_crash_with_a_report() {
    let bench = start(vec![Step::Shutdown], Flow::Enter);
    bench.vcpu.resume();
    let Ok(End::Crashed(crash)) = bench.join() else { panic!("not a crash") };
    assert_eq!(crash.cause, CrashCause::TripleFault);
    assert_eq!(crash.report.code, [0xcc]);
}

#[test]
fn emulation_failure_shows_the_bytes() {
    let bench = start(vec![Step::BadInstruction], Flow::Enter);
    bench.vcpu.resume();
    let Ok(End::Crashed(crash)) = bench.join() else { panic!("not a crash") };
    assert_eq!(crash.cause.to_string(), "KVM can't emulate the instruction 0f c7 0e");
}

#[test]
fn panic_on_the_thread_is_returned_as_an_error() {
    let bench = start(vec![Step::Panic], Flow::Enter);
    bench.vcpu.resume();
    assert_eq!(bench.join().unwrap_err().to_string(), "vcpu3: thread panicked");
}

#[test]
fn pause_makes_the_vcpu_leave_the_guest_and_resume_continues_it() {
    let bench = start(vec![Step::Spin, Step::Write(0x1000, vec![7])], Flow::Enter);
    bench.vcpu.resume();
    bench.reads.recv_timeout(DEADLINE).expect("it spins in the guest");
    bench.vcpu.pause();
    bench.vcpu.pause();
    assert_eq!(bench.entries(), 1, "the second pause has no effect");
    assert!(bench.accesses.try_recv().is_err());
    bench.vcpu.resume();
    assert_eq!(bench.access(), (0x1000, vec![7]));
    let notified = bench.reads.recv_timeout(DEADLINE).expect("the guest is notified of the pause");
    assert_eq!(notified, b"notified");
}

#[test]
fn stop_reaches_a_vcpu_in_the_guest() {
    let bench = start(vec![Step::Spin], Flow::Enter);
    bench.vcpu.resume();
    bench.vcpu.stop();
    assert!(matches!(bench.join(), Ok(End::Stopped)));
}

#[test]
fn stop_reaches_a_paused_vcpu() {
    let bench = start(vec![], Flow::Enter);
    bench.vcpu.stop();
    assert!(matches!(bench.join(), Ok(End::Stopped)));
}

#[test]
fn drop_stops_and_joins() {
    let bench = start(vec![Step::Spin], Flow::Enter);
    bench.vcpu.resume();
    drop(bench.vcpu);
    assert_eq!(bench.ended.read().unwrap(), 1);
}

#[test]
fn hold_keeps_the_guest_out_until_woken() {
    let script = vec![Step::Out(0x3f8, 1, vec![1]), Step::Out(0x3f8, 1, vec![2])];
    let bench = start(script, Flow::Hold);
    bench.vcpu.resume();
    assert_eq!(bench.access().1, [1]);
    // A pause is handled during a hold, completes the access, and doesn't end the hold.
    bench.vcpu.pause();
    assert_eq!(bench.entries(), 1);
    bench.vcpu.resume();
    bench.vcpu.pause();
    bench.vcpu.resume();
    assert!(bench.accesses.try_recv().is_err(), "still held");
    bench.vcpu.wake();
    assert_eq!(bench.access().1, [2]);
}

#[test]
fn wake_before_the_hold_begins_is_not_lost() {
    // The handler calls `wake` during the write, before it returns `Flow::Hold`.
    struct WakesItself(Arc<Mutex<Option<Arc<VcpuThread<&'static str>>>>>, Arc<AtomicBool>);
    impl ExitHandler<ScriptedCpu> for WakesItself {
        type Stop = &'static str;
        fn port_out(&mut self, _port: u16, data: &[u8]) -> Flow<&'static str> {
            if data == [2] {
                self.1.store(true, Ordering::SeqCst);
                return Flow::Stop("second");
            }
            self.0.lock().unwrap().as_ref().unwrap().wake();
            Flow::Hold
        }
    }
    let (cpu, _, _reads) = scripted(vec![Step::Out(1, 1, vec![1]), Step::Out(1, 1, vec![2])]);
    let itself = Arc::new(Mutex::new(None));
    let second = Arc::new(AtomicBool::new(false));
    let ended = EventFd::new().unwrap();
    let handler = WakesItself(Arc::clone(&itself), Arc::clone(&second));
    let vcpu = Arc::new(VcpuThread::spawn(0, cpu, handler, ended.try_clone().unwrap()).unwrap());
    *itself.lock().unwrap() = Some(Arc::clone(&vcpu));
    vcpu.resume();
    ended.wait().unwrap();
    assert!(second.load(Ordering::SeqCst));
    itself.lock().unwrap().take();
}

#[test]
fn pause_and_resume_a_thousand_times_loses_no_kick() {
    let bench = start(vec![], Flow::Enter);
    bench.vcpu.resume();
    (0..1000).for_each(|_| {
        bench.vcpu.pause();
        bench.vcpu.resume();
    });
    bench.vcpu.stop();
    assert!(matches!(bench.join(), Ok(End::Stopped)));
}

#[test]
fn report_of_a_running_or_paused_vcpu_is_its_state() {
    let bench = start(vec![Step::Spin], Flow::Enter);
    bench.vcpu.resume();
    bench.reads.recv_timeout(DEADLINE).expect("it spins in the guest");
    assert_eq!(bench.vcpu.report().unwrap().code, [0xcc]);
    bench.vcpu.pause();
    assert_eq!(bench.vcpu.report().unwrap().code, [0xcc]);
}

#[test]
fn report_of_a_vcpu_that_ended_is_none() {
    let bench = start(vec![Step::Shutdown], Flow::Enter);
    bench.vcpu.resume();
    bench.ended.wait().unwrap();
    assert!(bench.vcpu.report().is_none());
}
