//! The variants of the run loop, and how each is measured.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vmm_kvm::{Kvm, KvmVcpu, VCPU_CALLS};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_sandbox::confine_thread;
use vmm_vcpu::{End, ExitHandler, Summary, Traced, run};

use crate::bare;
use crate::failure::Failure;
use crate::handlers::{CallBack, Counter, SummaryTrace, bus_handler};
use crate::workload::{RAM_LEN, STRING_LEN, Workload};

/// Elements that run before each measurement, so that memory, KVM's tables and the processor's caches are warm.
const WARM_UP: u64 = STRING_LEN;
/// Elements that are timed to determine the length of a measurement.
const TRIAL: u64 = 4 * STRING_LEN;

/// How exits reach the code that counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// kvm-ioctls and a `match`.
    Bare,
    /// vmm-vcpu's loop with call-backs that count.
    CallBack,
    /// vmm-vcpu's loop with a device on a vmm-bus.
    Bus,
    /// As [`Bus`](Self::Bus), on a thread with the system call filter of a vCPU.
    Confined,
    /// As [`Bus`](Self::Bus), but with the choice at run time whether to trace.
    TracingOff,
    /// As [`TracingOff`](Self::TracingOff), but every exit is added to a summary.
    TracingOn,
}

/// The length of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Accesses by the guest in one measurement: a multiple of [`STRING_LEN`].
    pub(crate) elements: u64,
    /// Accesses per exit. More than 1 only for strings, if the host's KVM batches them.
    pub(crate) elements_per_exit: f64,
}

/// Determines how many elements a measurement of `seconds` has.
pub(crate) fn scale(workload: &Workload, seconds: f64) -> Result<Scale, Failure> {
    let mut guest = bare::Guest::new(workload)?;
    guest.run(WARM_UP)?;
    let start = Instant::now();
    let counts = guest.run(TRIAL)?;
    let strings = seconds / start.elapsed().as_secs_f64() * (TRIAL / STRING_LEN) as f64;
    Ok(Scale {
        elements: (strings.ceil() as u64).max(1) * STRING_LEN,
        elements_per_exit: counts.elements as f64 / counts.exits as f64,
    })
}

impl Variant {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::CallBack, Self::Bus, Self::Confined, Self::TracingOff, Self::TracingOn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::CallBack => "call-back",
            Self::Bus => "bus",
            Self::Confined => "bus, confined",
            Self::TracingOff => "bus, tracing off",
            Self::TracingOn => "bus, tracing on",
        }
    }

    /// The goal, as a share of the bare loop's rate: within 5 % of it for a call-back, within 25 % for the bus.
    pub(crate) fn goal(self) -> Option<f64> {
        match self {
            Self::Bare | Self::TracingOn => None,
            Self::CallBack => Some(0.95),
            Self::Bus | Self::Confined | Self::TracingOff => Some(0.75),
        }
    }

    /// The time that a new guest takes for `elements` accesses after the warm-up.
    pub(crate) fn measure(self, workload: &Workload, elements: u64) -> Result<Duration, Failure> {
        match self {
            Self::Bare => {
                let mut guest = bare::Guest::new(workload)?;
                guest.run(WARM_UP)?;
                let start = Instant::now();
                guest.run(elements)?;
                Ok(start.elapsed())
            }
            Self::CallBack => {
                let mut handler = CallBack::default();
                time(workload, &mut handler, elements, |handler, left| handler.left = left)
            }
            Self::Bus => {
                let counter = Arc::new(Counter::default());
                let mut handler = bus_handler(&counter)?;
                time(workload, &mut handler, elements, |_, left| counter.stop_after(left))
            }
            Self::Confined => measure_confined(workload, elements),
            // black_box, because the monitor's choice depends on its command line, so the compiler can't know it.
            Self::TracingOff => measure_watched(workload, elements, black_box(None)),
            Self::TracingOn => {
                let mut summary = Summary::default();
                let time = measure_watched(workload, elements, black_box(Some(&mut summary)))?;
                if summary.count() == 0 {
                    return Err("the trace recorded no exit".into());
                }
                Ok(time)
            }
        }
    }
}

/// Measures on a thread of its own, as it keeps its filter to its end.
fn measure_confined(workload: &Workload, elements: u64) -> Result<Duration, Failure> {
    let counter = Arc::new(Counter::default());
    let mut handler = bus_handler(&counter)?;
    let mut vcpu = create_vcpu(workload)?;
    let measure = || {
        confine_thread("vcpu0", &[VCPU_CALLS]).map_err(|error| format!("can't apply a filter: {error}"))?;
        let stop_after = |_: &mut _, left| counter.stop_after(left);
        time_runs(&mut vcpu, &mut handler, elements, stop_after).map_err(|error| error.to_string())
    };
    let measured = thread::scope(|scope| scope.spawn(measure).join());
    Ok(measured.map_err(|_| "the thread with a filter has panicked")??)
}

/// Starts a vCPU as the monitor does: the type of the handler is chosen once, outside the loop. Without tracing there is no
/// [`Traced`], so the loop, another instance of the generic [`run`], has no code for it, not even a check whether it is on.
fn measure_watched(
    workload: &Workload,
    elements: u64,
    summary: Option<&mut Summary>,
) -> Result<Duration, Failure> {
    let counter = Arc::new(Counter::default());
    let mut handler = bus_handler(&counter)?;
    match summary {
        None => time(workload, &mut handler, elements, |_, left| counter.stop_after(left)),
        Some(summary) => {
            let mut traced = Traced::new(0, handler, SummaryTrace(summary), Instant::now());
            time(workload, &mut traced, elements, |_, left| counter.stop_after(left))
        }
    }
}

/// Measures a new guest with our loop, see [`time_runs`].
fn time<H: ExitHandler>(
    workload: &Workload,
    handler: &mut H,
    elements: u64,
    stop_after: impl Fn(&mut H, u64),
) -> Result<Duration, Failure> {
    time_runs(&mut create_vcpu(workload)?, handler, elements, stop_after)
}

/// Measures `elements` of a new guest with our loop, after the warm-up. `stop_after` sets the number of elements after which the handler stops.
fn time_runs<H: ExitHandler>(
    vcpu: &mut KvmVcpu,
    handler: &mut H,
    elements: u64,
    stop_after: impl Fn(&mut H, u64),
) -> Result<Duration, Failure> {
    stop_after(handler, WARM_UP);
    run_to_stop(vcpu, handler)?;
    stop_after(handler, elements);
    let start = Instant::now();
    run_to_stop(vcpu, handler)?;
    Ok(start.elapsed())
}

fn run_to_stop<H: ExitHandler>(vcpu: &mut KvmVcpu, handler: &mut H) -> Result<(), Failure> {
    match run(vcpu, handler)? {
        End::Asked(_) => Ok(()),
        End::Halted(_) => Err("the guest halted".into()),
        End::Crashed(crash) => Err(format!("the guest crashed: {}", crash.cause).into()),
        End::Stopped => Err("a signal interrupted the guest".into()),
    }
}

/// Creates a VM with the workload, before its first instruction. The vCPU keeps it alive.
fn create_vcpu(workload: &Workload) -> Result<KvmVcpu, Failure> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..RAM_LEN as u64])?;
    ram.memory().write_slice(workload.code, GuestAddress(0))?;
    vm.add_memory(&ram)?;
    let vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    workload.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;
    Ok(vcpu)
}
