//! The state of a whole VM, set in the order that KVM requires: some parts change others, and some are checked against others.

use crate::{ClockPolicy, ClockState, Error, IrqchipState, KvmVcpu, PitState, VcpuState, Vm};

/// The state of a VM besides its vCPUs and its memory.
///
/// While all vCPUs are stopped, read [`Vm::irqchip`] and [`Vm::pit`] after the devices have stopped, whose last interrupts are in them;
/// and then the vCPUs. What KVM's own timers raise meanwhile passes from the IO-APIC to the local APICs, and would be lost in the
/// opposite order. Read [`Vm::clock`] immediately before the vCPUs: it and their TSCs go on meanwhile, and a guest that compares them
/// doesn't trust the TSC any more when they have drifted apart.
#[derive(Clone, Debug, PartialEq)]
pub struct VmState {
    /// The guest's clock.
    pub clock: ClockState,
    /// The interrupt controllers, on a VM that has them.
    pub irqchip: Option<IrqchipState>,
    /// The timer, on a VM that has one.
    pub pit: Option<PitState>,
}

impl Vm {
    /// Sets the state of this VM and of its `vcpus`, which haven't run yet. `states` are theirs in the same order; all were read
    /// after all vCPUs had stopped. The VM must have been created as the saved one, with interrupt controllers and a timer if that
    /// had them, and with its memory, to which KVM may write.
    ///
    /// The first vCPU's TSC continues where it stopped, or is advanced as the clock. The others differ from it by what they did when
    /// they were saved, which is nothing unless the guest has set them apart. Interrupts that devices raised before are pending
    /// afterwards; later ones, such as those that an irqfd still delivered, must be raised again.
    ///
    /// # Errors
    /// As [`KvmVcpu::set_state`] and [`set_clock`](Self::set_clock), or the numbers of vCPUs differ. The VM can't be used then.
    pub fn restore(
        &self,
        vcpus: &[KvmVcpu],
        states: &[VcpuState],
        state: &VmState,
        policy: ClockPolicy,
    ) -> Result<(), Error> {
        if vcpus.len() != states.len() {
            return Err(Error::VcpuCount { vcpus: vcpus.len(), states: states.len() });
        }
        let pairs = || vcpus.iter().zip(states);
        pairs().try_for_each(|(vcpu, state)| vcpu.set_all_but_timer(state))?;
        // Before the TSCs, which it advances.
        let advanced = self.set_clock(&state.clock, policy)?;
        set_tscs(vcpus, states, advanced)?;
        pairs().try_for_each(|(vcpu, state)| vcpu.set_timer(state))?;
        if let Some(pit) = &state.pit {
            self.set_pit(pit)?;
        }
        // After the local APICs, to which the IO-APIC delivers what is pending.
        if let Some(irqchip) = &state.irqchip {
            self.set_irqchip(irqchip)?;
        }
        vcpus.iter().for_each(KvmVcpu::notify_pause);
        Ok(())
    }
}

/// Sets the TSCs: the first vCPU's to its saved value plus `advanced` nanoseconds, the others' at their saved distances from it.
///
/// The guest would see a TSC go backwards from one processor to another if each continued from its own value, because they were read
/// one after the other.
fn set_tscs(vcpus: &[KvmVcpu], states: &[VcpuState], advanced: u64) -> Result<(), Error> {
    let (Some(vcpu), Some(state)) = (vcpus.first(), states.first()) else { return Ok(()) };
    let Some(saved) = state.tsc() else { return Ok(()) };
    let tsc = saved.wrapping_add(ticks(advanced, state.tsc_khz));
    vcpu.set_tsc(tsc)?;
    let others: Vec<_> =
        vcpus.iter().zip(states.iter().map(|other| distance(state, other))).skip(1).collect();
    // KVM gives them the first one's offset, because the value is as expected; on a host where the offset can't be set this is all.
    others.iter().try_for_each(|(vcpu, distance)| vcpu.set_tsc(tsc.wrapping_add(*distance)))?;
    if let Some(offset) = vcpu.continue_tsc_at(tsc)? {
        for (vcpu, distance) in others {
            vcpu.set_tsc_offset(offset.wrapping_add(distance))?;
        }
    }
    Ok(())
}

/// How far the TSC of `other` was ahead of that of `first`, modulo 2^64.
fn distance(first: &VcpuState, other: &VcpuState) -> u64 {
    let offsets = first.tsc_offset.zip(other.tsc_offset);
    offsets.map_or(0, |(first, other)| other.wrapping_sub(first))
}

/// TSC ticks in so many nanoseconds. 0 if the frequency isn't known: the host's TSC isn't stable, so that no guest uses it as a clock.
fn ticks(nanoseconds: u64, khz: Option<u32>) -> u64 {
    (u128::from(nanoseconds) * u128::from(khz.unwrap_or_default()) / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_year_at_four_gigahertz_are_exact() {
        let year = 365 * 24 * 3600 * 1_000_000_000;
        assert_eq!(ticks(year, Some(4_000_000)), year * 4);
        assert_eq!(ticks(1_500, Some(2_000_000)), 3_000);
        assert_eq!(ticks(year, None), 0);
    }
}
