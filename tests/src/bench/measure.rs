//! Loads both objects and times cases in rounds, with the floor of the same wrapper in every round.

use super::{
    cases::{Case, Expected, Program},
    scene,
    settings::{FRAME_WORDS, LONG_FRAME, NEXT_FLOW, OFFSET_LIMIT, ONE_FLOW, SHORT_FRAME, Settings},
};
use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::path::Path;
use weir::apply::bpf::verified;
use weir_common::verdict::Reason;

/// How long a bench takes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds per case; each gives one number.
    pub rounds: usize,
    /// Packets per round.
    pub packets: u32,
}

/// What was measured for one case, in nanoseconds per packet: one number per round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Wrapper and program.
    pub gross: Vec<f64>,
    /// Wrapper and an empty program.
    pub floor: Vec<f64>,
}

/// Words of [`Settings`].
const SETTINGS_WORDS: usize = size_of::<Settings>() / 8;

/// Programs that stand in the wrapper's slot.
#[derive(Clone, Copy, Debug)]
enum Target {
    Ingress,
    Egress,
    Floor,
    FloorHead,
    FloorTc,
}

/// The loaded objects.
#[derive(Debug)]
pub struct Bench {
    product: Ebpf,
    wrappers: Ebpf,
}

impl Bench {
    /// Loads what `cargo xtask build-ebpf` left in `folder`, fills the tables, and stays on one CPU.
    pub fn load(folder: &Path) -> Result<Self> {
        pin()?;
        let mut product = load(&folder.join("weir.o"), &["weir_ingress"], &["weir_egress"])?;
        let xdp = ["bench_xdp_short", "bench_xdp_long", "floor_xdp", "floor_xdp_head"];
        let wrappers = load(&folder.join("weir-bench.o"), &xdp, &["bench_tc", "floor_tc"])?;
        scene::fill(&mut product)?;
        Ok(Self { product, wrappers })
    }

    /// Times `case`, after checking that its packets end as they should.
    pub fn run(&mut self, case: &Case, effort: Effort) -> Result<Samples> {
        let frame = self.prepare(case)?;
        let target = match case.program {
            Program::Ingress => Target::Ingress,
            Program::Egress => Target::Egress,
        };
        self.choose(case, &frame, case.choice)?;
        self.timed(target, &frame, effort.packets / 10, case.expected)?;
        let mut samples = Samples::default();
        for _ in 0..effort.rounds {
            samples.floor.push(self.floor(case, &frame, effort.packets)?);
            samples
                .gross
                .push(self.timed(target, &frame, effort.packets, case.expected)?);
        }
        Ok(samples)
    }

    /// Sends the packets before the case, checks one packet of it, and gives the frame to repeat.
    fn prepare(&mut self, case: &Case) -> Result<Vec<u8>> {
        let moved_in = case.name == "decapsulate";
        let frame = if moved_in {
            self.tunnelled(&case.frame)?
        } else {
            case.frame.clone()
        };
        if case.full {
            scene::old::fill(&self.product, case.family)?;
        }
        if let Some(preparation) = &case.preparation {
            if preparation.every_flow {
                let (_, first) = preparation.frames.first().context("nothing to prepare with")?;
                self.choose(case, first, NEXT_FLOW)?;
                let flows = u32::try_from(case.flows).context("too many flows to prepare")?;
                let expected = Expected {
                    reason: preparation.reason,
                    ..case.expected
                };
                self.timed(Target::Ingress, first, flows, expected)?;
            } else {
                for (program, frame) in &preparation.frames {
                    match program {
                        Program::Ingress if moved_in => {
                            let frame = self.tunnelled(frame)?;
                            self.once(Target::Ingress, &frame)?
                        }
                        Program::Ingress => self.once(Target::Ingress, frame)?,
                        Program::Egress => self.once(Target::Egress, frame)?,
                    };
                }
            }
        }
        let before = self.reasons()?;
        let (action, length) = self.once(
            if case.program == Program::Egress {
                Target::Egress
            } else {
                Target::Ingress
            },
            &frame,
        )?;
        let after = self.reasons()?;
        let counted: Vec<_> = Reason::ALL
            .iter()
            .zip(before.iter().zip(&after))
            .filter(|(_, (old, new))| old != new)
            .map(|(reason, _)| *reason)
            .collect();
        let growth = length as i32 - frame.len() as i32;
        ensure!(
            action == case.expected.action
                && counted == [case.expected.reason]
                && case.expected.growth.is_none_or(|wanted| wanted == growth),
            "a packet ended with action {action}, {growth} bytes longer, counted as {counted:?}, not as {:?}",
            case.expected
        );
        Ok(frame)
    }

    /// `frame` as the other end of the tunnel sends it to us.
    fn tunnelled(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let mut output = vec![0; 2 * LONG_FRAME];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..TestRunOptions::new()
        };
        let result = xdp(&mut self.product, "weir_ingress")?.test_run(options)?;
        output.truncate(result.data_size_out as usize);
        ensure!(
            output.len() == LONG_FRAME,
            "the tunnel packet has {} bytes and not {LONG_FRAME}",
            output.len()
        );
        Ok(output)
    }

    /// One run without the wrapper: the action and the frame's length after it.
    fn once(&mut self, target: Target, frame: &[u8]) -> Result<(u32, u32)> {
        let mut output = vec![0; 2 * LONG_FRAME];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..TestRunOptions::new()
        };
        let result = match target {
            Target::Egress => classifier(&mut self.product, "weir_egress")?.test_run(options)?,
            _ => xdp(&mut self.product, "weir_ingress")?.test_run(options)?,
        };
        Ok((result.return_value, result.data_size_out))
    }

    /// Tells the wrapper the frame and the choice of flows.
    fn choose(&mut self, case: &Case, frame: &[u8], choice: u64) -> Result<()> {
        let mut bytes = [0; LONG_FRAME];
        bytes[..frame.len()].copy_from_slice(frame);
        let mut words = [0; SETTINGS_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let (address_offset, port_offset) = scene::client_offsets(case.family);
        ensure!(
            address_offset.max(port_offset) < OFFSET_LIMIT,
            "the wrapper does not reach the client's port"
        );
        let choice = if case.flows == 1 { ONE_FLOW } else { choice };
        // In the order of `Settings`, all of whose fields are words.
        let tail = u64::from_ne_bytes(frame[frame.len() - 8..].try_into()?);
        // The last two bytes of the destination, which follows the source.
        let vip_offset = address_offset + if case.family.is_v6() { 18 } else { 6 };
        words[FRAME_WORDS..].copy_from_slice(&[
            tail,
            choice,
            case.flows - 1,
            address_offset,
            port_offset,
            vip_offset,
            case.vips - 1,
        ]);
        let map = self.wrappers.map_mut("SETTINGS").context("no map SETTINGS")?;
        Array::<_, [u64; SETTINGS_WORDS]>::try_from(map)?.set(0, words, 0)?;
        // Not zero, which the generator would never leave.
        let map = self.wrappers.map_mut("CHOICE").context("no map CHOICE")?;
        Array::<_, u64>::try_from(map)?.set(0, 0x9e37_79b9, 0)?;
        Ok(())
    }

    /// The floor of the wrapper that `case` uses. Undoing a move of the head is the wrapper's work and so part of the floor;
    /// it costs half of what moving there and back costs.
    fn floor(&mut self, case: &Case, frame: &[u8], packets: u32) -> Result<f64> {
        let action = |action| Expected {
            action,
            reason: Reason::NotOurs,
            growth: None,
        };
        if case.program == Program::Egress {
            return self.timed(Target::FloorTc, frame, packets, action(0));
        }
        let still = self.timed(Target::Floor, frame, packets, action(2))?;
        if case.expected.growth == Some(0) {
            return Ok(still);
        }
        let moved = self.timed(Target::FloorHead, frame, packets, action(3))?;
        Ok(still + (moved - still).max(0.0) / 2.0)
    }

    /// Nanoseconds per packet of `target` in the wrapper. Fails when any packet was counted otherwise than expected.
    fn timed(&mut self, target: Target, frame: &[u8], packets: u32, expected: Expected) -> Result<f64> {
        self.place(target)?;
        let floor = matches!(target, Target::Floor | Target::FloorHead | Target::FloorTc);
        let before = self.counted(expected.reason)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let result = match (target, frame.len()) {
            (Target::Egress | Target::FloorTc, SHORT_FRAME) => {
                classifier(&mut self.wrappers, "bench_tc")?.test_run(options)?
            }
            (_, SHORT_FRAME) => xdp(&mut self.wrappers, "bench_xdp_short")?.test_run(options)?,
            (_, LONG_FRAME) => xdp(&mut self.wrappers, "bench_xdp_long")?.test_run(options)?,
            (target, length) => bail!("no wrapper for {target:?} with frames of {length} bytes"),
        };
        let counted = self.counted(expected.reason)? - before;
        ensure!(
            result.return_value == expected.action && counted == if floor { 0 } else { u64::from(packets) },
            "{target:?}: action {} and not {}; {counted} of {packets} packets counted as {}",
            result.return_value,
            expected.action,
            expected.reason.name()
        );
        Ok(result.duration.as_nanos() as f64)
    }

    /// Puts a program into the slot that the wrapper calls.
    fn place(&mut self, target: Target) -> Result<()> {
        let (program, slot): (ProgramFd, _) = match target {
            Target::Ingress => (xdp(&mut self.product, "weir_ingress")?.fd()?.try_clone()?, "XDP_TARGET"),
            Target::Floor => (xdp(&mut self.wrappers, "floor_xdp")?.fd()?.try_clone()?, "XDP_TARGET"),
            Target::FloorHead => (
                xdp(&mut self.wrappers, "floor_xdp_head")?.fd()?.try_clone()?,
                "XDP_TARGET",
            ),
            Target::Egress => (
                classifier(&mut self.product, "weir_egress")?.fd()?.try_clone()?,
                "TC_TARGET",
            ),
            Target::FloorTc => (
                classifier(&mut self.wrappers, "floor_tc")?.fd()?.try_clone()?,
                "TC_TARGET",
            ),
        };
        let map = self.wrappers.map_mut(slot).with_context(|| format!("no map {slot}"))?;
        ProgramArray::try_from(map)?
            .set(0, &program, 0)
            .with_context(|| format!("{target:?} does not fit {slot}"))
    }

    /// Packets counted so far for every reason, by number.
    fn reasons(&self) -> Result<Vec<u64>> {
        Reason::ALL.iter().map(|&reason| self.counted(reason)).collect()
    }

    /// Packets counted so far for `reason`.
    fn counted(&self, reason: Reason) -> Result<u64> {
        let map = self.product.map("REASONS").context("the object has no map REASONS")?;
        let counters = PerCpuArray::<_, [u64; 2]>::try_from(map)?.get(&(reason as u32), 0)?;
        Ok(counters.iter().map(|[packets, _]| packets).sum())
    }
}

/// Keeps this thread on the last CPU: the first has most of the machine's interrupts.
pub(super) fn pin() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut cpus = CpuSet::new();
    cpus.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

pub(super) fn load(object: &Path, xdp_programs: &[&str], tc_programs: &[&str]) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new()
        .load_file(object)
        .with_context(|| format!("cannot load {}: run `cargo xtask build-ebpf`", object.display()))?;
    for name in xdp_programs {
        let program = xdp(&mut ebpf, name)?;
        verified(|| program.load()).with_context(|| format!("the verifier refuses {name}"))?;
    }
    for name in tc_programs {
        let program = classifier(&mut ebpf, name)?;
        verified(|| program.load()).with_context(|| format!("the verifier refuses {name}"))?;
    }
    Ok(ebpf)
}

pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}
