//! The kernel harness: the built object, its maps filled from an [`Image`], its programs run by `BPF_PROG_TEST_RUN`.
//!
//! The reason of a packet is the `REASONS` counter that grew. Needs root (or CAP_BPF and CAP_NET_ADMIN) and the object.

use super::image::Image;
use super::runner::{Counts, Flows, Outcome, Program, Runner};
use anyhow::{Context, bail, ensure};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, lpm_trie::Key};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use bytemuck::{AnyBitPattern, NoUninit, bytes_of, must_cast};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use weir::apply::bpf::{mapped::Mapped, verified};
use weir_common::abi::{
    Again, BackendCounter, CacheBucket, Config, FRAGMENT_BUCKETS, FlowBucket, FragmentBucket, FrontendCounter, Held,
    Limiter, Past, Row, SOURCE_LIMITER_BUCKETS, SourceLimiterBucket, SourcePrefix, StackFlow,
};
use weir_common::verdict::{Action, REASON_SLOTS, Reason};

/// Longer than any frame of the table and what a tunnel adds to it.
const LARGEST_FRAME: usize = 16 * 1024;

/// Where the object is: `WEIR_EBPF_OBJECT`, or what `cargo xtask build-ebpf` writes.
#[must_use]
pub fn object_path() -> PathBuf {
    std::env::var_os("WEIR_EBPF_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/weir.o")),
        PathBuf::from,
    )
}

/// The object's bytes, or a sentence about what to do.
pub fn object() -> anyhow::Result<Vec<u8>> {
    let path = object_path();
    std::fs::read(&path).with_context(|| {
        format!(
            "the kernel tests need {}: run `cargo xtask build-ebpf` first",
            path.display()
        )
    })
}

/// A sentence instead of a puzzling error when the kernel would refuse everything.
pub fn require_root() -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the kernel tests load BPF programs and need root: run them with sudo"
    );
    Ok(())
}

/// The loaded object.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Kernel {
    ebpf: Ebpf,
    reasons: PerCpuArray<MapData, [u64; 2]>,
    rows: Array<MapData, [u8; size_of::<Row>()]>,
    flows: Array<MapData, [u8; size_of::<FlowBucket>()]>,
    cache: Array<MapData, [u8; size_of::<CacheBucket>()]>,
    limiters: Array<MapData, [u8; size_of::<Limiter>()]>,
    source_limiters: Mapped<SourceLimiterBucket>,
    fragments: Mapped<FragmentBucket>,
    answered: Array<MapData, u64>,
    held: RingBuf<MapData>,
    stack_flows: HashMap<MapData, [u8; size_of::<StackFlow>()], u32>,
    frontends: PerCpuArray<MapData, [u64; 3]>,
    backends: PerCpuArray<MapData, [u64; 3]>,
    counted: Vec<u64>,
    last: Option<Reason>,
    output: Vec<u8>,
}

/// Loads the object with maps as small as the world needs.
pub fn load(level: VerifierLogLevel) -> anyhow::Result<Ebpf> {
    require_root()?;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(level)
        .map_max_entries("ROWS", Image::ROWS)
        .map_max_entries("HISTORY", Image::ROWS)
        .map_max_entries("BACKENDS", Image::BACKENDS)
        .map_max_entries("BACKEND_COUNTERS", Image::BACKENDS)
        .map_max_entries("FLOWS", Image::FLOW_BUCKETS)
        .map_max_entries("FLOW_CACHE", Image::CACHE_BUCKETS)
        .load(&object()?)
        .context("loading the object")?;
    let ingress = xdp(&mut ebpf)?;
    verified(|| ingress.load()).context("the verifier on weir_ingress")?;
    let egress = classifier(&mut ebpf)?;
    verified(|| egress.load()).context("the verifier on weir_egress")?;
    Ok(ebpf)
}

fn xdp(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    Ok(ebpf
        .program_mut("weir_ingress")
        .context("the object has no program weir_ingress")?
        .try_into()?)
}

fn classifier(ebpf: &mut Ebpf) -> anyhow::Result<&mut SchedClassifier> {
    Ok(ebpf
        .program_mut("weir_egress")
        .context("the object has no program weir_egress")?
        .try_into()?)
}

/// An array in memory: to empty thousands of entries one by one takes too long under emulation.
fn mapped<T: bytemuck::Pod>(map: &Map, name: &'static str, entries: u32) -> anyhow::Result<Mapped<T>> {
    let Map::Array(data) = map else {
        bail!("{name} is no array");
    };
    Ok(Mapped::open(name, data.fd().as_fd(), entries)?)
}

impl Kernel {
    /// Loads the object and fills its maps.
    pub fn new(image: &Image) -> anyhow::Result<Self> {
        let mut ebpf = load(VerifierLogLevel::DISABLE)?;
        fill::<_, { size_of::<Config>() }>(&mut ebpf, "CONFIG", &[image.config])?;
        fill::<_, 8>(&mut ebpf, "FILTER", &image.filter)?;
        fill::<_, 4>(&mut ebpf, "DISPLACEMENT", &image.displacement)?;
        fill::<_, 64>(&mut ebpf, "DIRECTORY", &image.directory)?;
        fill::<_, 8>(&mut ebpf, "ROWS", &image.rows)?;
        fill::<_, { size_of::<Past>() }>(&mut ebpf, "HISTORY", &image.history)?;
        fill::<_, 32>(&mut ebpf, "BACKENDS", &image.backends)?;
        fill::<_, 64>(&mut ebpf, "NODES", &image.nodes)?;
        let mut responders: HashMap<_, [u8; 24], [u8; 8]> =
            HashMap::try_from(ebpf.map_mut("RESPONDERS").context("no map RESPONDERS")?)?;
        for (key, value) in &image.responders {
            responders.insert(must_cast::<_, [u8; 24]>(*key), must_cast::<_, [u8; 8]>(*value), 0)?;
        }
        let mut sources: LpmTrie<_, [u8; size_of::<SourcePrefix>()], u32> =
            LpmTrie::try_from(ebpf.map_mut("SOURCES").context("no map SOURCES")?)?;
        for ((bits, prefix), value) in &image.sources {
            sources.insert(&Key::new(*bits, must_cast(*prefix)), value, 0)?;
        }
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let mut kernel = Self {
            reasons: take("REASONS")?.try_into()?,
            rows: take("ROWS")?.try_into()?,
            flows: take("FLOWS")?.try_into()?,
            cache: take("FLOW_CACHE")?.try_into()?,
            limiters: take("LIMITERS")?.try_into()?,
            source_limiters: mapped(&take("SOURCE_LIMITERS")?, "SOURCE_LIMITERS", SOURCE_LIMITER_BUCKETS)?,
            fragments: mapped(&take("FRAGMENTS")?, "FRAGMENTS", FRAGMENT_BUCKETS)?,
            answered: take("ANSWERED")?.try_into()?,
            held: take("HELD")?.try_into()?,
            stack_flows: take("STACK_FLOWS")?.try_into()?,
            frontends: take("FRONTEND_COUNTERS")?.try_into()?,
            backends: take("BACKEND_COUNTERS")?.try_into()?,
            counted: vec![0; REASON_SLOTS as usize],
            last: None,
            output: vec![0; LARGEST_FRAME],
            ebpf,
        };
        for reason in 0..REASON_SLOTS {
            kernel.counted[reason as usize] = kernel.packets(reason)?;
        }
        Ok(kernel)
    }

    /// Runs a frame for the ingress program that was held `tries` times.
    pub fn run_again(&mut self, frame: &[u8], tries: u32) -> anyhow::Result<Outcome> {
        let again = Again {
            mark: Again::MARK,
            tries,
        };
        let data = [bytes_of(&again), frame].concat();
        // `struct xdp_md`: data, data_end, data_meta, and the interface and queue of the test run.
        let context = [size_of::<Again>() as u32, data.len() as u32, 0, 0, 0, 0];
        while self.held.next().is_some() {}
        let result = xdp(&mut self.ebpf)?.test_run(TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut self.output),
            ctx_in: Some(bytes_of(&context)),
            ..Default::default()
        })?;
        let mut outcome = self.outcome(Program::Ingress, &result, None)?;
        // The metadata comes back with the frame.
        outcome.frame.drain(..size_of::<Again>());
        Ok(outcome)
    }

    /// What the last frame left in `HELD`: interface, tries and the frame.
    pub fn held(&mut self) -> anyhow::Result<Option<(u32, u32, Vec<u8>)>> {
        let Some(record) = self.held.next() else {
            return Ok(None);
        };
        let record = record.get(..size_of::<Held>()).context("a short record in HELD")?;
        let held: Held = bytemuck::pod_read_unaligned(record);
        let frame = held
            .frame
            .get(..held.len as usize)
            .context("a frame longer than HELD's")?;
        Ok(Some((held.ifindex, held.tries, frame.to_vec())))
    }

    /// Runs a frame and says nothing about the reason.
    fn test_run(&mut self, program: Program, frame: &[u8]) -> anyhow::Result<TestRunResult> {
        // Nobody else reads it, and there is room for some 500.
        while self.held.next().is_some() {}
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut self.output),
            ..Default::default()
        };
        Ok(match program {
            Program::Ingress => xdp(&mut self.ebpf)?.test_run(options)?,
            Program::Egress => classifier(&mut self.ebpf)?.test_run(options)?,
            Program::EgressUncut => {
                // `struct __sk_buff` in words, of which gso_segs and gso_size are not 0.
                let mut context = [0_u32; 48];
                (context[41], context[44]) = (2, 1_000);
                classifier(&mut self.ebpf)?.test_run(TestRunOptions {
                    ctx_in: Some(bytes_of(&context)),
                    ..options
                })?
            }
        })
    }

    fn stack_flows(&self) -> anyhow::Result<BTreeSet<StackFlow>> {
        let keys = self.stack_flows.keys();
        Ok(keys
            .map(|key| key.map(|bytes| bytemuck::pod_read_unaligned(&bytes)))
            .collect::<Result<_, _>>()?)
    }

    fn packets(&self, reason: u32) -> anyhow::Result<u64> {
        Ok(self.reasons.get(&reason, 0)?.iter().map(|[packets, _]| packets).sum())
    }

    /// The one reason whose counter grew by one since the last call; `likely` and the last one are looked at first.
    fn reason(&mut self, likely: Option<Reason>) -> anyhow::Result<Reason> {
        if let Some(reason) = likely.or(self.last) {
            let now = self.packets(reason as u32)?;
            if now == self.counted[reason as usize] + 1 {
                self.counted[reason as usize] = now;
                return Ok(reason);
            }
        }
        let mut found = Vec::new();
        for number in 0..REASON_SLOTS {
            let now = self.packets(number)?;
            let grown = now - self.counted[number as usize];
            self.counted[number as usize] = now;
            if grown > 0 {
                found.push((number, grown));
            }
        }
        let [(number, 1)] = found[..] else {
            bail!("one packet, but the reasons counted {found:?}")
        };
        self.last = Reason::ALL.get(number as usize).copied();
        self.last.with_context(|| format!("reason {number} has no name"))
    }

    /// Runs one frame whose reason is probably `likely` (which saves reading all the counters).
    pub fn run_expecting(&mut self, program: Program, frame: &[u8], likely: Option<Reason>) -> anyhow::Result<Outcome> {
        let result = self.test_run(program, frame)?;
        self.outcome(program, &result, likely)
    }

    fn outcome(&mut self, program: Program, result: &TestRunResult, likely: Option<Reason>) -> anyhow::Result<Outcome> {
        let action = match (program, result.return_value) {
            (Program::Ingress, 1) => Action::Drop,
            (Program::Ingress, 2) => Action::Pass,
            (Program::Ingress, 3) => Action::Transmit,
            (Program::Ingress, 4) => Action::Redirect(0),
            // TC_ACT_UNSPEC: whatever comes next sees it.
            (Program::Egress | Program::EgressUncut, u32::MAX) => Action::Pass,
            (program, code) => bail!("{program:?} returned {code}"),
        };
        let frame = self.output[..result.data_size_out as usize].to_vec();
        Ok(Outcome {
            action,
            reason: self.reason(likely)?,
            frame,
        })
    }

    /// Whether some other reason was counted than the calls so far reported.
    pub fn check_no_other_reason(&self) -> anyhow::Result<()> {
        for number in 0..REASON_SLOTS {
            let now = self.packets(number)?;
            ensure!(
                now == self.counted[number as usize],
                "reason {number} was counted beside the one reported"
            );
        }
        Ok(())
    }
}

/// A flow as a key of `STACK_FLOWS`.
fn key_of(flow: &StackFlow) -> anyhow::Result<[u8; size_of::<StackFlow>()]> {
    Ok(bytes_of(flow).try_into()?)
}

/// Writes the elements that are not zero into an array map of values of `N` bytes.
fn fill<T: NoUninit + AnyBitPattern, const N: usize>(ebpf: &mut Ebpf, name: &str, values: &[T]) -> anyhow::Result<()>
where
    [u8; N]: aya::Pod,
{
    let map = ebpf
        .map_mut(name)
        .with_context(|| format!("the object has no map {name}"))?;
    let mut array: Array<_, [u8; N]> = Array::try_from(map).with_context(|| format!("map {name}"))?;
    for (index, value) in values.iter().enumerate() {
        let bytes: [u8; N] = bytes_of(value)
            .try_into()
            .with_context(|| format!("values of {name} are not {N} bytes"))?;
        if bytes != [0; N] {
            array
                .set(index as u32, bytes, 0)
                .with_context(|| format!("map {name}"))?;
        }
    }
    Ok(())
}

impl Runner for Kernel {
    fn run(&mut self, program: Program, frame: &[u8]) -> anyhow::Result<Outcome> {
        self.run_expecting(program, frame, None)
    }

    fn sees_interfaces(&self) -> bool {
        false
    }

    fn flows(&mut self) -> anyhow::Result<Flows> {
        let flows = self.flows.iter().collect::<Result<Vec<_>, _>>()?;
        let cache = self.cache.iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Flows {
            flows: flows.iter().map(|bytes| bytemuck::pod_read_unaligned(bytes)).collect(),
            cache: cache.iter().map(|bytes| bytemuck::pod_read_unaligned(bytes)).collect(),
            stack_flows: self.stack_flows()?,
        })
    }

    fn restore(&mut self, flows: &Flows) -> anyhow::Result<()> {
        for (index, bucket) in flows.flows.iter().enumerate() {
            self.flows
                .set(index as u32, must_cast::<_, [u8; size_of::<FlowBucket>()]>(*bucket), 0)?;
        }
        for (index, bucket) in flows.cache.iter().enumerate() {
            self.cache
                .set(index as u32, must_cast::<_, [u8; size_of::<CacheBucket>()]>(*bucket), 0)?;
        }
        let now = self.stack_flows()?;
        for gone in now.difference(&flows.stack_flows) {
            self.stack_flows.remove(&key_of(gone)?)?;
        }
        for new in flows.stack_flows.difference(&now) {
            self.stack_flows.insert(key_of(new)?, 0, 0)?;
        }
        Ok(())
    }

    fn forget_limits(&mut self) -> anyhow::Result<()> {
        for id in 0..Image::FRONTENDS {
            self.limiters.set(id, [0; size_of::<Limiter>()], 0)?;
        }
        for index in 0..SOURCE_LIMITER_BUCKETS {
            self.source_limiters
                .store(index, &[0; size_of::<SourceLimiterBucket>() / 8])?;
        }
        for index in 0..FRAGMENT_BUCKETS {
            self.fragments.store(index, &[0; size_of::<FragmentBucket>() / 8])?;
        }
        Ok(self.answered.set(0, 0, 0)?)
    }

    fn set_row(&mut self, index: u32, row: Row) -> anyhow::Result<()> {
        Ok(self.rows.set(index, must_cast::<_, [u8; 8]>(row), 0)?)
    }

    fn counts(&mut self) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        for id in 0..Image::FRONTENDS {
            let sum =
                self.frontends
                    .get(&id, 0)?
                    .iter()
                    .fold(FrontendCounter::default(), |sum, &[packets, bytes, syns]| {
                        FrontendCounter {
                            packets: sum.packets + packets,
                            bytes: sum.bytes + bytes,
                            syns: sum.syns + syns,
                        }
                    });
            if sum != FrontendCounter::default() {
                counts.frontends.push((id, sum.packets, sum.bytes, sum.syns));
            }
        }
        for id in 0..Image::BACKENDS {
            let sum =
                self.backends
                    .get(&id, 0)?
                    .iter()
                    .fold(BackendCounter::default(), |sum, &[packets, bytes, flows]| {
                        BackendCounter {
                            packets: sum.packets + packets,
                            bytes: sum.bytes + bytes,
                            flows: sum.flows + flows,
                        }
                    });
            if sum != BackendCounter::default() {
                counts.backends.push((id, sum.packets, sum.bytes, sum.flows));
            }
        }
        Ok(counts)
    }
}
