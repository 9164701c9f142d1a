//! The BPF applier: keeps the kernel half loaded, attached and equal to what the core asks for.
//!
//! [`Dataplane::open`] checks, adopts or creates the pinned maps and loads the programs, without touching any
//! interface; [`Dataplane::apply`] carries out writes; [`Dataplane::attach`] puts the programs on an interface, which is
//! done only after the first writes, so that packets never meet empty maps. Everything that matters is pinned: when the
//! agent ends, in whatever way, packets go on, and the next agent adopts what it finds. aya's types stay in here.

mod abi;
pub mod attach;
pub mod config;
pub mod counters;
pub mod detach;
mod error;
pub mod fill;
mod flows;
mod former;
mod held;
pub mod layout;
pub mod mapped;
mod maps;
mod object;
pub mod pins;
pub mod preflight;
pub mod readings;
pub mod samples;
mod seen;
pub mod stack_flows;
pub mod sweep;
pub(crate) mod sys;
mod tallies;
pub mod tracer;
mod windows;

pub use error::Error;
pub use object::{Capacities, verified};

use crate::source::netlink::Device;
use attach::{AttachError, Attacher, EgressPolicy, ModePolicy};
use aya::{Ebpf, EbpfLoader, maps::MapData};
use aya_log::EbpfLogger;
use flows::{Moved, Reading};
use former::Former;
use layout::{Decision, Fate, Shape};
use mapped::Mapped;
use maps::Maps;
use nix::fcntl::Flock;
use pins::{PinDir, Prepared};
use stack_flows::StackFlows;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use weir_common::abi::{Config, FlowBucket};
use weir_core::tables::{Contents, Write};

/// How often the kernel half's log is read. Its records are rare and wait in a ring buffer.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// How to open the data path.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of pins, on a BPF file system.
    pub pin_dir: PathBuf,
    /// XDP mode to ask for.
    pub mode: ModePolicy,
    /// How to attach the egress program.
    pub egress: EgressPolicy,
    /// Seed of the selection hash, the same on every node.
    pub selection_seed: u64,
    /// UDP port of the tunnel.
    pub tunnel_port: u16,
    /// Capacities other than the object's.
    pub capacities: Capacities,
    /// Level of the kernel half's own log; `None` compiles it out at load.
    pub log: Option<aya_log::Level>,
}

/// The loaded kernel half.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    attacher: Attacher,
    pins: PinDir,
    config: Config,
    moving: Option<Moving>,
    stack_flows: StackFlows,
    adopted: bool,
    stands_by: bool,
    /// Keeps other agents out.
    _lock: Flock<File>,
}

/// Flows on their way from the former map to the new one. Mapped only meanwhile: they are the largest maps.
#[derive(Debug)]
struct Moving {
    old: Vec<(Mapped<FlowBucket>, Reading)>,
    new: Mapped<FlowBucket>,
}

impl Moving {
    fn new(
        old: &[(MapData, Reading)],
        ebpf: &mut Ebpf,
        shapes: &BTreeMap<String, Shape>,
    ) -> Result<Option<Self>, Error> {
        if old.is_empty() {
            return Ok(None);
        }
        let open = |(map, reading): &(MapData, Reading)| {
            let info = map.info().map_err(Error::map("look at", "FLOWS"))?;
            let mapped = Mapped::open("FLOWS", map.fd().as_fd(), info.max_entries())?;
            Ok::<_, Error>((mapped, *reading))
        };
        let old = old.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Some(Self {
            old,
            new: maps::mapped(ebpf, shapes, "FLOWS")?,
        }))
    }
}

impl Dataplane {
    /// Checks the machine, takes over or creates the pinned maps, and loads the programs. No interface is touched.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing that runs has been changed then.
    pub fn open(options: &Options) -> Result<Self, Error> {
        preflight::check(&options.pin_dir)?;
        let overrides = options.capacities.overrides()?;
        let shapes = object::shapes(&overrides)?;
        let pins = PinDir::new(&options.pin_dir);
        let lock = pins.lock()?;
        let Prepared {
            decision,
            config: former,
            formers,
            old_flows,
        } = pins.prepare(&shapes)?;
        report_adoption(&decision, &formers, &pins);

        let (mut ebpf, attacher) = load(options, &pins, &decision, &overrides).inspect_err(|_| {
            if decision.creates_all()
                && let Err(problem) = pins.withdraw(&decision)
            {
                let problem = &problem as &dyn std::error::Error;
                warn!(problem, "empty maps are left behind");
            }
        })?;
        pins.commit(&decision)?;
        // `CONFIG` is written last: as long as there is none, this is done again.
        if let (None, Some(latest)) = (former, formers.last()) {
            former::carry(latest, &pins, &shapes)?;
        }
        let mut maps = Maps::take(&mut ebpf, &shapes)?;

        let capacity = |name: &'static str| {
            shapes
                .get(name)
                .map(|shape| shape.max_entries)
                .ok_or(Error::NoMap(name))
        };
        let seed = former.map_or_else(random_seed, |config| config.flow_seed);
        let mut config = config::fixed(
            options.selection_seed,
            seed,
            capacity("FLOWS")?,
            capacity("FLOW_CACHE")?,
            options.tunnel_port,
        );
        if let Some(former) = former {
            (config.mss_v4, config.mss_v6) = (former.mss_v4, former.mss_v6);
            (config.syn_mss_v4, config.syn_mss_v6) = (former.syn_mss_v4, former.syn_mss_v6);
            if former.selection_seed != config.selection_seed {
                warn!(
                    "the selection seed differs from the one the last agent used: established flows may change backends"
                );
            }
        }
        maps.set_config(&config)?;
        let moving = Moving::new(&old_flows, &mut ebpf, &shapes)?;
        let stack_flows = StackFlows::take(&mut ebpf)?;
        let draws = pins.linked()?.iter().any(|(kind, ..)| kind == "xdp");
        let stands_by = !draws && formers.is_empty() || maps.stand_by()?;
        let dataplane = Self {
            ebpf,
            maps,
            attacher,
            pins,
            config,
            moving,
            stack_flows,
            stands_by,
            adopted: !decision.creates_all(),
            _lock: lock,
        };
        dataplane.move_flows()?;
        Ok(dataplane)
    }

    /// What the maps hold, for the core to go on from.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], [`Error::Mmap`].
    pub fn with_contents<R>(&self, read: impl FnOnce(&Contents<'_>) -> R) -> Result<R, Error> {
        let shown = self.maps.show()?;
        Ok(read(&self.maps.contents(&shown)))
    }

    /// Carries out writes, in order.
    ///
    /// # Errors
    ///
    /// The first write that failed; those before it are done.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), Error> {
        self.maps.write_all(writes)
    }

    /// Sets the clamps of SYN-ACK and SYN, see [`config::mss`] and [`config::syn_mss`].
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn set_mss(&mut self, answer: (u16, u16), syn: (u16, u16)) -> Result<(), Error> {
        let mut config = self.config;
        (config.mss_v4, config.mss_v6) = answer;
        (config.syn_mss_v4, config.syn_mss_v6) = syn;
        if self.config == config {
            return Ok(());
        }
        self.maps.set_config(&config)?;
        self.config = config;
        Ok(())
    }

    /// Makes `device` run our programs; see [`Attacher::attach`].
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub fn attach(&mut self, device: &Device) -> Result<(), AttachError> {
        self.attacher.attach(&mut self.ebpf, device, self.moving.is_some())
    }

    /// Takes the programs off every interface but `devices`.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn keep_only(&self, devices: &BTreeSet<&str>) -> Result<(), Error> {
        for (kind, interface, path) in self.pins.linked()? {
            if !devices.contains(interface.as_str()) {
                pins::remove_if_there(&path)?;
                info!(
                    interface,
                    kind, "took the program of an earlier agent off an interface that is no longer asked for"
                );
            }
        }
        Ok(())
    }

    /// Whether an earlier agent's data path was there to go on with.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.adopted
    }

    /// Whether nothing of ours draws packets yet: no earlier agent was here, or it ended before it did.
    #[must_use]
    pub const fn stands_by(&self) -> bool {
        self.stands_by
    }

    /// The flows that the stack had before.
    pub const fn stack_flows(&mut self) -> &mut StackFlows {
        &mut self.stack_flows
    }

    /// Id of this agent's XDP program.
    #[must_use]
    pub const fn ingress_id(&self) -> u32 {
        self.attacher.ingress_id()
    }

    /// Ends a move of flows, once every interface runs the new program: takes along what the old one noted meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`], [`Error::File`], [`Error::Clsact`].
    pub fn finish_move(&mut self) -> Result<(), Error> {
        if self.moving.is_some() {
            self.move_flows()?;
            self.attacher.part(&mut self.ebpf)?;
            self.moving = None;
            self.pins.forget_former()?;
        }
        Ok(())
    }

    fn move_flows(&self) -> Result<(), Error> {
        if let Some(Moving { old, new }) = &self.moving {
            for (old, reading) in old {
                let Moved { placed, lost } = flows::copy(old, *reading, new, self.config.flow_seed)?;
                if lost > 0 {
                    warn!(
                        placed,
                        lost, "some flows found no room in the new map and may break; raise --max-flow-buckets"
                    );
                } else {
                    info!(placed, lost, "moved flows to a new map");
                }
            }
        }
        Ok(())
    }

    /// Starts the task that brings back fragments which came before their first; see `held.rs`.
    ///
    /// # Errors
    ///
    /// [`Error::NoMap`], [`Error::Map`], [`Error::Held`].
    pub fn start_bringing_back(&mut self) -> Result<(), Error> {
        held::start(&mut self.ebpf, &self.pins)
    }

    /// Starts the task that hands the kernel half's log records to ours.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] when the object has no log.
    pub fn start_log(&mut self) -> Result<(), Error> {
        let mut logger = EbpfLogger::init(&mut self.ebpf).map_err(Error::Log)?;
        tokio::spawn(async move {
            let mut time = interval(LOG_INTERVAL);
            time.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                time.tick().await;
                logger.flush();
            }
        });
        Ok(())
    }
}

fn load(
    options: &Options,
    pins: &PinDir,
    decision: &Decision,
    overrides: &[(&'static str, u32)],
) -> Result<(Ebpf, Attacher), Error> {
    let level = options.log.map_or(0, |level| level as u8);
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, false);
    for name in decision.fates.keys() {
        loader.map_pin_path(name, pins.loading(name, decision));
    }
    for (name, capacity) in overrides {
        loader.map_max_entries(name, *capacity);
    }
    let mut ebpf = loader
        .load(object::OBJECT)
        .map_err(|error| Error::Load(Box::new(error)))?;
    let attacher = Attacher::load(&mut ebpf, pins.clone(), options.mode, options.egress.is_tcx())?;
    Ok((ebpf, attacher))
}

fn report_adoption(decision: &Decision, formers: &[Former], pins: &PinDir) {
    let pin_dir = pins.root().display();
    for Former { version, .. } in formers {
        info!(%pin_dir, version, "taking over the data path of an agent with an earlier map layout");
    }
    if !formers.is_empty() {
        debug!(?decision, "fate of each map");
        return;
    }
    if decision.creates_all() {
        info!(%pin_dir, "no data path here yet, creating one");
    } else if decision.adopts_all() {
        info!(%pin_dir, "adopting the data path of an earlier agent");
    } else {
        let renewed: Vec<&str> = decision
            .fates
            .iter()
            .filter_map(|(name, fate)| (*fate != Fate::Adopt).then_some(*name))
            .collect();
        info!(%pin_dir, renewed = renewed.join(" "), "adopting the data path of an earlier agent, all but some maps");
    }
    debug!(?decision, "fate of each map");
}

/// Not zero, which stands for "no seed".
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Keyed by the operating system's random numbers.
    RandomState::new().hash_one(std::process::id()) | 1
}
