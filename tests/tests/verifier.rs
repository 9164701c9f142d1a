//! What the kernel and libbpf-style tools see of the object: it verifies within a budget, is complete, and describes its
//! maps by the ABI's names.

use anyhow::{Context, ensure};
use aya::VerifierLogLevel;
use aya::maps::{Map, MapInfo};
use aya::programs::ProgramInfo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::Command;
use tests::packets::image::Image;
use tests::packets::kernel;
use tests::release;
use weir_common::abi::{
    self, Address, Backend, BackendCounter, CacheBucket, CacheEntry, Config, Counter, DirectoryEntry, Flow, FlowBucket,
    Fragment, FragmentBucket, FrontendCounter, Limiter, Monitor, Node, Past, Responder, ResponderKey, Row, RowRange,
    SourceLimiter, SourceLimiterBucket, SourcePrefix,
};
use weir_common::verdict::REASON_SLOTS;

/// Instructions the verifier may process for one program. Less is a faster load.
const BUDGET: u32 = 120_000;
/// The same on kernels before 6.6, which forget more of the ways they have walked and so walk them again.
const BUDGET_OF_OLD_KERNELS: u32 = 150_000;

#[test]
fn kernel_verifies_the_object_within_the_budget() {
    let ebpf = kernel::load(VerifierLogLevel::STATS).unwrap();
    let budget = if release::at_least(6, 6).unwrap() {
        BUDGET
    } else {
        BUDGET_OF_OLD_KERNELS
    };
    let mut names = Vec::new();
    for (name, program) in ebpf.programs() {
        let Ok(info) = program.info() else { continue };
        let info: ProgramInfo = info;
        let count = info.verified_instruction_count().unwrap();
        let size = info.size_translated().unwrap();
        println!("{name}: {count} instructions verified, {size} bytes after translation, budget {budget}");
        assert!(
            count <= budget,
            "{name}: {count} instructions verified, more than {budget}"
        );
        assert!(
            info.gpl_compatible().unwrap_or(true),
            "{name} has no licence that the kernel's helpers want"
        );
        assert!(info.btf_id().is_some(), "{name} was loaded without BTF");
        names.push(name.to_owned());
    }
    names.sort();
    assert_eq!(names, ["weir_egress", "weir_ingress"], "the programs that were loaded");
}

/// (type, key bytes, value bytes, entries, flags) of every map of the ABI.
fn maps() -> BTreeMap<&'static str, (&'static str, u64, u64, u64, u64)> {
    const MMAPABLE: u64 = 1 << 10;
    const NO_PREALLOC: u64 = 1;
    let private = |value: usize, entries: u32| ("array", 4, value as u64, u64::from(entries), 0);
    let array = |value: usize, entries: u32| ("array", 4, value as u64, u64::from(entries), MMAPABLE);
    let per_cpu = |value: usize, entries: u32| ("percpu_array", 4, value as u64, u64::from(entries), 0);
    BTreeMap::from([
        ("CONFIG", array(size_of::<Config>(), 1)),
        ("FILTER", array(8, abi::FILTER_WORDS)),
        ("DISPLACEMENT", array(4, abi::DISPLACEMENTS)),
        ("DIRECTORY", array(size_of::<DirectoryEntry>(), abi::DIRECTORY_SLOTS)),
        ("ROWS", array(size_of::<Row>(), Image::ROWS)),
        ("BACKENDS", array(size_of::<Backend>(), Image::BACKENDS)),
        ("NODES", array(size_of::<Node>(), abi::NODES)),
        ("FLOWS", array(size_of::<FlowBucket>(), Image::FLOW_BUCKETS)),
        ("FLOW_CACHE", array(size_of::<CacheBucket>(), Image::CACHE_BUCKETS)),
        (
            "RESPONDERS",
            (
                "hash",
                size_of::<ResponderKey>() as u64,
                size_of::<Responder>() as u64,
                u64::from(abi::RESPONDERS),
                0,
            ),
        ),
        ("REASONS", per_cpu(size_of::<Counter>(), REASON_SLOTS)),
        (
            "FRONTEND_COUNTERS",
            per_cpu(size_of::<FrontendCounter>(), abi::FRONTENDS),
        ),
        (
            "BACKEND_COUNTERS",
            per_cpu(size_of::<BackendCounter>(), Image::BACKENDS),
        ),
        ("HISTORY", array(size_of::<Past>(), Image::ROWS)),
        ("FRAGMENTS", array(size_of::<FragmentBucket>(), abi::FRAGMENT_BUCKETS)),
        ("LIMITERS", private(size_of::<Limiter>(), abi::FRONTENDS)),
        (
            "SOURCE_LIMITERS",
            array(size_of::<SourceLimiterBucket>(), abi::SOURCE_LIMITER_BUCKETS),
        ),
        ("ANSWERED", private(8, 1)),
        ("MONITOR", array(size_of::<Monitor>(), 1)),
        ("SAMPLES", ("ringbuf", 0, 0, 1 << 18, 0)),
        ("HELD", ("ringbuf", 0, 0, abi::HELD_BYTES as u64, 0)),
        (
            "SOURCES",
            (
                "lpm_trie",
                4 + size_of::<SourcePrefix>() as u64,
                4,
                u64::from(abi::SOURCE_PREFIXES),
                NO_PREALLOC,
            ),
        ),
    ])
}

#[test]
fn kernel_makes_every_map_of_the_abi() {
    let ebpf = kernel::load(VerifierLogLevel::DISABLE).unwrap();
    for (name, wanted) in maps() {
        let map = ebpf.map(name).unwrap_or_else(|| panic!("the object has no map {name}"));
        let id = id(map).unwrap();
        let shown = bpftool(&["map", "show", "id", &id.to_string()]).unwrap();
        let number = |field: &str| shown[field].as_u64().unwrap_or(0);
        let found = (
            shown["type"].as_str().unwrap_or("unknown"),
            number("bytes_key"),
            number("bytes_value"),
            number("max_entries"),
            number("flags"),
        );
        assert_eq!(found, wanted, "map {name}: (type, key, value, entries, flags)");
        // A ring buffer's records have no type of their own.
        assert!(
            number("btf_id") > 0 || wanted.0 == "ringbuf",
            "map {name} has no BTF: `bpftool map dump` would print bytes"
        );
    }
}

fn id(map: &Map) -> anyhow::Result<u32> {
    let (Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LpmTrie(data) | Map::RingBuf(data)) =
        map
    else {
        anyhow::bail!("{map:?} is of no kind that the ABI uses");
    };
    let info: MapInfo = data.info()?;
    Ok(info.id())
}

fn bpftool(arguments: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new("bpftool")
        .arg("-j")
        .args(arguments)
        .output()
        .context("this test needs bpftool: run `cargo xtask setup`")?;
    ensure!(
        output.status.success(),
        "bpftool {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Name, size and field names of an ABI struct, from how it prints itself.
fn shape<T: Debug + Default>() -> (String, u64, Vec<String>) {
    let text = format!("{:#?}", T::default());
    let name = text.split_once(" {").map_or(text.as_str(), |(name, _)| name);
    // Its own fields are one step in.
    let fields = text.lines().filter_map(|line| {
        line.strip_prefix("    ")
            .filter(|rest| !rest.starts_with([' ', '}', ']']))
    });
    let fields = fields
        .filter_map(|line| line.split_once(':'))
        .map(|(field, _)| field.to_owned());
    (name.to_owned(), size_of::<T>() as u64, fields.collect())
}

#[test]
fn kernel_object_describes_the_abi_in_its_btf() {
    kernel::object().unwrap();
    let path = kernel::object_path();
    let btf = bpftool(&["btf", "dump", "file", path.to_str().unwrap()]).unwrap();
    let types = btf["types"].as_array().unwrap();
    for (name, size, fields) in [
        shape::<Address>(),
        shape::<Config>(),
        shape::<RowRange>(),
        shape::<DirectoryEntry>(),
        shape::<Row>(),
        shape::<Backend>(),
        shape::<Node>(),
        shape::<ResponderKey>(),
        shape::<Responder>(),
        shape::<Flow>(),
        shape::<FlowBucket>(),
        shape::<CacheEntry>(),
        shape::<CacheBucket>(),
        shape::<Counter>(),
        shape::<Monitor>(),
        shape::<BackendCounter>(),
        shape::<Past>(),
        shape::<Fragment>(),
        shape::<FragmentBucket>(),
        shape::<Limiter>(),
        shape::<SourceLimiter>(),
        shape::<SourceLimiterBucket>(),
        shape::<SourcePrefix>(),
        shape::<FrontendCounter>(),
    ] {
        let described = types.iter().any(|kind| {
            let members = kind["members"].as_array().map_or(&[][..], Vec::as_slice);
            let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
            kind["kind"] == "STRUCT" && kind["name"] == name.as_str() && kind["size"] == size && names == fields
        });
        assert!(
            described,
            "the object's BTF has no struct {name} of {size} bytes with the fields {fields:?}"
        );
    }
}

#[test]
fn kernel_object_has_no_undefined_symbol() {
    let object = kernel::object().unwrap();
    let undefined = elf::undefined_symbols(&object).unwrap();
    assert!(
        undefined.is_empty(),
        "undefined symbols (a panic path, or a call of a missing helper): {undefined:?}"
    );
}

/// The little of ELF64 (little endian) that the test above wants.
mod elf {
    use anyhow::{Context, ensure};

    const SYMBOL_TABLE: u64 = 2;

    fn number(bytes: &[u8], at: usize, size: usize) -> anyhow::Result<u64> {
        let bytes = bytes.get(at..at + size).context("the object ends early")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Names of the symbols that no section defines.
    pub fn undefined_symbols(object: &[u8]) -> anyhow::Result<Vec<String>> {
        ensure!(
            object.starts_with(b"\x7fELF\x02\x01"),
            "not a little-endian ELF64 object"
        );
        let (table, size, count) = (number(object, 40, 8)?, number(object, 58, 2)?, number(object, 60, 2)?);
        let section = |index: u64| (table + index * size) as usize;
        let mut names = Vec::new();
        for index in 0..count {
            let header = section(index);
            if number(object, header + 4, 4)? != SYMBOL_TABLE {
                continue;
            }
            let (offset, length) = (number(object, header + 24, 8)?, number(object, header + 32, 8)?);
            let strings = number(object, section(number(object, header + 40, 4)?) + 24, 8)?;
            // The first symbol is the empty one.
            for symbol in (offset + 24..offset + length).step_by(24) {
                let (name, defined) = (
                    number(object, symbol as usize, 4)?,
                    number(object, symbol as usize + 6, 2)?,
                );
                if defined == 0 {
                    let name = object
                        .get((strings + name) as usize..)
                        .context("the object ends early")?;
                    let end = name.iter().position(|&byte| byte == 0).unwrap_or(0);
                    names.push(String::from_utf8_lossy(&name[..end]).into_owned());
                }
            }
        }
        Ok(names)
    }
}
