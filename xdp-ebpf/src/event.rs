//! Rare events of the slow path, for `aya-log` in user space.
//!
//! The level is a constant of the loaded program (`AYA_LOG_LEVEL`, set by the loader, off unless asked for), so when it
//! is off the verifier removes all of this. Records have `aya-log`'s wire format and are built at compile time.

use crate::maps::AYA_LOGS;
use aya_ebpf::Global;
use aya_log_common::{ArgumentKind, DisplayHint, Level, RecordFieldKind};
use weir_common::verdict::Reason;

/// Highest level that is logged; the loader overwrites it. 0 is nothing.
#[unsafe(no_mangle)]
static AYA_LOG_LEVEL: Global<u8> = Global::new(0);

const TARGET: &[u8] = b"weir_ebpf";
const NAME: usize = 24;
const BETWEEN: &[u8] = b" on interface ";
/// The record's length field, six header fields and five arguments, each with kind and length.
const SIZE: usize =
    2 + (3 + TARGET.len()) * 3 + (3 + 1) + (3 + 4) * 2 + (3 + NAME) + (3 + BETWEEN.len()) + (3 + 1) + (3 + 4);

/// Tells user space about a verdict that somebody should look into.
#[inline(always)]
pub fn report(reason: Reason, ifindex: u32) {
    if AYA_LOG_LEVEL.load() < Level::Warn as u8 {
        return;
    }
    match reason {
        Reason::TunnelUnknownSender => emit(&const { record(Reason::TunnelUnknownSender) }, ifindex),
        Reason::TunnelMalformed => emit(&const { record(Reason::TunnelMalformed) }, ifindex),
        Reason::TunnelUnknownBackend => emit(&const { record(Reason::TunnelUnknownBackend) }, ifindex),
        Reason::FlowTableFull => emit(&const { record(Reason::FlowTableFull) }, ifindex),
        Reason::NoHeadroom => emit(&const { record(Reason::NoHeadroom) }, ifindex),
        Reason::NodeUnreachable => emit(&const { record(Reason::NodeUnreachable) }, ifindex),
        _ => {}
    }
}

#[inline(always)]
fn emit(record: &'static [u8; SIZE], ifindex: u32) {
    if let Some(mut entry) = AYA_LOGS.reserve_untyped::<[u8; SIZE]>(0) {
        let bytes = entry.write(*record);
        let [a, b, c, d] = ifindex.to_ne_bytes();
        bytes[SIZE - 4] = a;
        bytes[SIZE - 3] = b;
        bytes[SIZE - 2] = c;
        bytes[SIZE - 1] = d;
        entry.submit(0);
    }
}

const fn record(reason: Reason) -> [u8; SIZE] {
    let mut name = [b' '; NAME];
    let text = reason.name().as_bytes();
    let mut at = 0;
    while at < text.len() {
        name[at] = text[at];
        at += 1;
    }
    let record = ([0; SIZE], 0);
    let record = put(record, &(SIZE as u16).to_ne_bytes());
    let record = field(record, RecordFieldKind::Target as u8, TARGET);
    let record = field(record, RecordFieldKind::Level as u8, &[Level::Warn as u8]);
    let record = field(record, RecordFieldKind::Module as u8, TARGET);
    let record = field(record, RecordFieldKind::File as u8, TARGET);
    let record = field(record, RecordFieldKind::Line as u8, &line!().to_ne_bytes());
    let record = field(record, RecordFieldKind::NumArgs as u8, &4_u32.to_ne_bytes());
    let record = field(record, ArgumentKind::Str as u8, &name);
    let record = field(record, ArgumentKind::Str as u8, BETWEEN);
    let record = field(record, ArgumentKind::DisplayHint as u8, &[DisplayHint::Default as u8]);
    let (bytes, end) = field(record, ArgumentKind::U32 as u8, &[0; 4]);
    assert!(end == SIZE, "SIZE is the sum of what is put");
    bytes
}

const fn field(record: ([u8; SIZE], usize), kind: u8, value: &[u8]) -> ([u8; SIZE], usize) {
    let record = put(record, &[kind]);
    put(put(record, &(value.len() as u16).to_ne_bytes()), value)
}

const fn put((mut bytes, mut end): ([u8; SIZE], usize), value: &[u8]) -> ([u8; SIZE], usize) {
    let mut at = 0;
    while at < value.len() {
        bytes[end] = value[at];
        end += 1;
        at += 1;
    }
    (bytes, end)
}
