//! The maps, declared for BTF, and the look-ups in them that the packet path makes.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
    helpers::bpf_jiffies64,
    macros::btf_map,
};
use weir_common::{
    abi::{
        self, Backend, BackendCounter, CacheBucket, Config, Counter, DirectoryEntry, FlowBucket, FragmentBucket,
        FrontendCounter, Limiter, Node, Past, Responder, ResponderKey, Row, SourceLimiterBucket, SourcePrefix,
        StackFlow,
    },
    addr::Address,
    scratch::Scratch,
    tables::{CacheWords, FlowWords, FragmentWords, LimiterWords, SourceLimiterWords, Tables},
    verdict::REASON_SLOTS,
    word::Word,
};

/// `BPF_F_MMAPABLE`: user space stores single words into these arrays.
const MMAPABLE: usize = 1 << 10;

/// `BPF_F_NO_PREALLOC`: room is taken as it is needed.
const NO_PREALLOC: usize = 1;
/// `BPF_NOEXIST`: what is there already is left alone.
const NO_EXIST: u64 = 1;

#[btf_map]
static CONFIG: Array<Config, 1, MMAPABLE> = Array::new();
#[btf_map]
static FILTER: Array<u64, { abi::FILTER_WORDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static DISPLACEMENT: Array<u32, { abi::DISPLACEMENTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static DIRECTORY: Array<DirectoryEntry, { abi::DIRECTORY_SLOTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static ROWS: Array<Row, { abi::ROWS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static HISTORY: Array<Past, { abi::ROWS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static BACKENDS: Array<Backend, { abi::BACKENDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static NODES: Array<Node, { abi::NODES as usize }, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS: Array<FlowBucket, { abi::FLOW_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static FLOW_CACHE: Array<CacheBucket, { abi::CACHE_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static FRAGMENTS: Array<FragmentBucket, { abi::FRAGMENT_BUCKETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static LIMITERS: Array<Limiter, { abi::FRONTENDS as usize }> = Array::new();
#[btf_map]
static SOURCE_LIMITERS: Array<SourceLimiterBucket, { abi::SOURCE_LIMITER_BUCKETS as usize }, MMAPABLE> = Array::new();
/// One limiter: up to when the ICMP errors of our own are used up.
#[btf_map]
static ANSWERED: Array<u64, 1> = Array::new();
#[btf_map]
static SOURCES: LpmTrie<SourcePrefix, u32, { abi::SOURCE_PREFIXES as usize }> = LpmTrie::new();
#[btf_map]
static RESPONDERS: HashMap<ResponderKey, Responder, { abi::RESPONDERS as usize }> = HashMap::new();
#[btf_map]
static STACK_FLOWS: HashMap<StackFlow, u32, { abi::STACK_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static REASONS: PerCpuArray<Counter, { REASON_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static FRONTEND_COUNTERS: PerCpuArray<FrontendCounter, { abi::FRONTENDS as usize }> = PerCpuArray::new();
#[btf_map]
static BACKEND_COUNTERS: PerCpuArray<BackendCounter, { abi::BACKENDS as usize }> = PerCpuArray::new();
#[btf_map]
pub static HELD: RingBuf<[u8; 0], { abi::HELD_BYTES }> = RingBuf::new();
/// Under this name `aya-log` finds it. Declared here because that crate's own declaration is of the old kind, without
/// BTF, which libbpf no longer loads.
#[btf_map]
pub static AYA_LOGS: RingBuf<[u8; 0], { 1 << 17 }> = RingBuf::new();

/// A packet's [`Scratch`], one for each program; never seen by user space. A program does not interrupt itself on a CPU.
#[btf_map]
static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS], 2> = PerCpuArray::new();
const SCRATCH_WORDS: usize = size_of::<Scratch>().div_ceil(8);

/// The maps as [`Tables`], with the scratch that the program uses.
#[derive(Clone, Copy)]
pub struct Maps<const PROGRAM: u32>;

/// Whether nothing may be changed, so that one can ask what would happen to a packet. A constant of the loaded program, set by
/// the loader: what is not done then is not there at all otherwise.
#[unsafe(no_mangle)]
static READ_ONLY: Global<u8> = Global::new(0);

/// The scratch of a program on this CPU. Whoever asks again gets the same, so nobody keeps two.
#[inline(always)]
pub fn scratch(program: u32) -> Option<&'static mut Scratch> {
    // SAFETY: this CPU's own value, large and aligned enough; whatever bytes it holds were zero or a `Scratch`.
    SCRATCH.get_ptr_mut(program).map(|words| unsafe { &mut *words.cast() })
}

impl<const PROGRAM: u32> Tables for Maps<PROGRAM> {
    #[inline(always)]
    fn read_only(&self) -> bool {
        READ_ONLY.load() != 0
    }

    #[inline(always)]
    fn settle(&self, scratch: &mut Scratch) {
        // SAFETY: a move of a register to itself; that it may change what the pointer leads to is the point. Without any
        // instruction two lines of debug information would share one, which the kernel refuses.
        unsafe { core::arch::asm!("{0} = {0}", in(reg) core::ptr::from_mut(scratch), options(nostack)) };
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn filter(&self, index: u32) -> u64 {
        FILTER.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn displacement(&self, index: u32) -> u32 {
        DISPLACEMENT.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn directory(&self, slot: u32) -> Option<&DirectoryEntry> {
        DIRECTORY.get(slot)
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<Row> {
        let row = ROWS.get_ptr(index)?.cast::<u64>();
        // SAFETY: a live map value of eight aligned bytes. Volatile, so that it is one load and never half a row.
        Some(bytemuck::must_cast(unsafe { row.read_volatile() }))
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn node(&self, id: u32) -> Option<&Node> {
        NODES.get(id)
    }

    #[inline(always)]
    fn responder(&self, key: &ResponderKey) -> Option<Responder> {
        // SAFETY: copied at once; an entry replaced meanwhile gives one MAC or the other, as user space meant.
        unsafe { RESPONDERS.get(key) }.copied()
    }

    #[inline(always)]
    fn stack_flow(&self, flow: &StackFlow) -> bool {
        // SAFETY: nothing is read of the value.
        unsafe { STACK_FLOWS.get(flow) }.is_some()
    }

    #[inline(always)]
    fn note_stack_flow(&self, flow: &StackFlow) {
        if !self.read_only() {
            // Most packets are of a flow that is there.
            let _ = STACK_FLOWS.insert(flow, 0_u32, NO_EXIST);
        }
    }

    #[inline(always)]
    fn flows(&self, index: u32) -> Option<&[FlowWords; abi::FLOW_WAYS]> {
        // SAFETY: a live map value; a `Flow` is eight aligned words, and words are accessed as such everywhere.
        FLOWS.get_ptr(index).map(|bucket| unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn cache(&self, index: u32) -> Option<&[CacheWords; abi::CACHE_WAYS]> {
        // SAFETY: as for `flows`, with two words.
        FLOW_CACHE.get_ptr(index).map(|bucket| unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn past(&self, index: u32) -> Option<&Past> {
        HISTORY.get(index)
    }

    #[inline(always)]
    fn source(&self, id: u32, address: &Address) -> u32 {
        let key = Key::new(
            8 * size_of::<SourcePrefix>() as u32,
            SourcePrefix {
                frontend: id.to_be_bytes(),
                address: address.octets,
            },
        );
        SOURCES.get(&key).copied().unwrap_or(abi::source::UNKNOWN)
    }

    #[inline(always)]
    fn fragments(&self, index: u32) -> Option<&[FragmentWords; abi::FRAGMENT_WAYS]> {
        // SAFETY: as for `flows`, with six words.
        FRAGMENTS
            .get_ptr(index & (abi::FRAGMENT_BUCKETS - 1))
            .map(|bucket| unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn limiter(&self, id: u32) -> Option<&LimiterWords> {
        // SAFETY: as for `flows`, with two words.
        LIMITERS.get_ptr(id).map(|limiter| unsafe { &*limiter.cast() })
    }

    #[inline(always)]
    fn source_limiters(&self, index: u32) -> Option<&[SourceLimiterWords; abi::LIMITER_WAYS]> {
        // SAFETY: as for `flows`, with four words.
        SOURCE_LIMITERS
            .get_ptr(index & (abi::SOURCE_LIMITER_BUCKETS - 1))
            .map(|bucket| unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn answered(&self) -> Option<&Word> {
        // SAFETY: as for `flows`, with one word.
        ANSWERED.get_ptr(0).map(|word| unsafe { &*word.cast() })
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: reads a kernel variable; the verifier inlines it.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn count_frontend(&self, id: u32, bytes: u64, syn: bool) {
        if self.read_only() {
            return;
        }
        if let Some(counter) = FRONTEND_COUNTERS.get_ptr_mut(id) {
            // SAFETY: this CPU's own value.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += bytes;
                (*counter).syns += u64::from(syn);
            }
        }
    }

    #[inline(always)]
    fn count_backend(&self, id: u32, bytes: u64) {
        if self.read_only() {
            return;
        }
        if let Some(counter) = BACKEND_COUNTERS.get_ptr_mut(id) {
            // SAFETY: this CPU's own value.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += bytes;
            }
        }
    }

    #[inline(always)]
    fn count_flow(&self, id: u32) {
        if self.read_only() {
            return;
        }
        if let Some(counter) = BACKEND_COUNTERS.get_ptr_mut(id) {
            // SAFETY: this CPU's own value.
            unsafe { (*counter).flows += 1 };
        }
    }
}

/// Reason of the packet that was asked about; see [`READ_ONLY`].
#[btf_map]
static TRACED: Array<u32, 1> = Array::new();

/// Adds one packet to the counter of reason number `reason`. A missing counter changes nothing.
#[inline(always)]
pub fn count_reason(reason: u32, bytes: u64) {
    if READ_ONLY.load() != 0 {
        if let Some(traced) = TRACED.get_ptr_mut(0) {
            // SAFETY: whoever asks what would happen does so one packet at a time.
            unsafe { traced.write(reason) };
        }
        return;
    }
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own value.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}
