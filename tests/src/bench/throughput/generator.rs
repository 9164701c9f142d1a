//! Sends live frames through a path and times them, all on one CPU.

use crate::{
    bench::{
        measure::{load, pin, xdp},
        settings::{FRAME_WORDS, NEXT_FLOW, RANDOM_FLOW, Settings},
    },
    lab::Namespace,
};
use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
    programs::{SchedClassifier, TcAttachType, TestRun, TestRunAttrs, TestRunOptions, XdpMode},
};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Frames that stand in the generator's queue at a time.
const BATCH: u32 = 64;
/// Between two looks whether frames still arrive.
const LOOK: Duration = Duration::from_micros(200);
/// Words of [`Settings`].
const SETTINGS_WORDS: usize = size_of::<Settings>() / 8;

/// Which flows the frames are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// 1,024, in random order.
    Established,
    /// Another one with each frame.
    New,
}

/// The loaded programs. What is attached stays so as long as this.
#[derive(Debug)]
pub struct Generator {
    object: Ebpf,
}

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Frames that arrived, per second.
    pub rate: f64,
    /// Share of the frames sent that did not arrive.
    pub lost: f64,
}

impl Generator {
    /// Loads the object that `cargo xtask build-ebpf` left in `folder`.
    ///
    /// # Errors
    /// When it is missing or refused.
    pub fn load(folder: &Path) -> Result<Self> {
        let programs = ["generate", "redirect", "reflect", "end_xdp"];
        Ok(Self {
            object: load(&folder.join("weir-bench.o"), &programs, &["end_tc"])?,
        })
    }

    /// Attaches an XDP program to a device of `namespace`.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn attach(&mut self, program: &str, namespace: &Namespace, device: &str) -> Result<()> {
        namespace
            .run(|| {
                let program = xdp(&mut self.object, program)?;
                program.attach(device, XdpMode::Driver)?;
                Ok(())
            })
            .with_context(|| format!("{program} on {device} of {}", namespace.name()))
    }

    /// Lets frames that come in by a device of `namespace` as packets end there.
    ///
    /// # Errors
    /// When the device does not take the program.
    pub fn end_packets(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        namespace
            .run(|| {
                let program: &mut SchedClassifier = self
                    .object
                    .program_mut("end_tc")
                    .context("no program end_tc")?
                    .try_into()?;
                program.attach(device, TcAttachType::Ingress)?;
                Ok(())
            })
            .with_context(|| format!("end_tc on {device} of {}", namespace.name()))
    }

    /// Sets where `redirect` sends to, by number.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn redirect_to(&mut self, device: u32) -> Result<()> {
        self.devices()?.set(1, u64::from(device), 0)?;
        Ok(())
    }

    /// Sends `packets` packets of `frame` (60 bytes), as of these flows, out of device number `device` of `namespace`, and
    /// waits until no more arrive.
    ///
    /// # Errors
    /// When they cannot be sent, or none arrives.
    pub fn round(
        &mut self,
        namespace: &Namespace,
        device: u32,
        frame: &[u8],
        flows: Flows,
        packets: u32,
    ) -> Result<Round> {
        self.devices()?.set(0, u64::from(device), 0)?;
        self.choose(frame, flows)?;
        namespace.run(|| {
            pin()?;
            let before = self.arrived()?;
            let begun = Instant::now();
            xdp(&mut self.object, "generate")?.test_run(TestRunOptions {
                data_in: Some(frame),
                repeat: packets,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            let (mut arrived, mut last) = (self.arrived()?, begun.elapsed());
            loop {
                thread::sleep(LOOK);
                let now = self.arrived()?;
                if now == arrived {
                    break;
                }
                (arrived, last) = (now, begun.elapsed());
            }
            let arrived = arrived - before;
            ensure!(arrived > 0, "none of {packets} frames arrived");
            Ok(Round {
                rate: arrived as f64 / last.as_secs_f64(),
                lost: 1.0 - arrived as f64 / f64::from(packets),
            })
        })
    }

    fn choose(&mut self, frame: &[u8], flows: Flows) -> Result<()> {
        let mut words = [0; SETTINGS_WORDS];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let tail = u64::from_ne_bytes(frame[frame.len() - 8..].try_into()?);
        let (choice, mask) = match flows {
            Flows::Established => (RANDOM_FLOW, (1 << 10) - 1),
            Flows::New => (NEXT_FLOW, u64::from(u32::MAX)),
        };
        // In the order of `Settings`: tail, choice, mask, offsets of the client's address and port, and the VIP as it is.
        words[FRAME_WORDS..].copy_from_slice(&[tail, choice, mask, 14 + 12, 14 + 20, 14 + 18, 0]);
        let map = self.object.map_mut("SETTINGS").context("no map SETTINGS")?;
        Array::<_, [u64; SETTINGS_WORDS]>::try_from(map)?.set(0, words, 0)?;
        let map = self.object.map_mut("CHOICE").context("no map CHOICE")?;
        let mut state = Array::<_, u64>::try_from(map)?;
        // The generator would never leave zero; new flows go on where the last round's ended.
        if state.get(&0, 0)? == 0 {
            state.set(0, 0x9e37_79b9, 0)?;
        }
        Ok(())
    }

    fn arrived(&self) -> Result<u64> {
        let map = self.object.map("ARRIVED").context("no map ARRIVED")?;
        Ok(PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?.iter().sum())
    }

    fn devices(&mut self) -> Result<Array<&mut aya::maps::MapData, u64>> {
        let map = self.object.map_mut("DEVICES").context("no map DEVICES")?;
        Ok(Array::try_from(map)?)
    }
}
