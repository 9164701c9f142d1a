//! Many VIPs, each with rows of its own: what does not fit the CPU's caches any more.

use super::{mapped, port};
use crate::packets::{
    image::Image,
    world::{Family, address},
};
use anyhow::Result;
use aya::Ebpf;
use bytemuck::must_cast;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weir_common::abi::{self, Row, RowRange, kind, protocol};

/// How many; a power of two.
const VIPS: u32 = 1024;
/// Rows of each: 8 KiB.
const ROWS: u32 = 1024;
/// First row and first frontend id, beyond those of the single VIP.
const FIRST_ROW: u32 = 1 << 20;
const FIRST_ID: u32 = 1 << 10;

/// The VIP with this number; what stands in its last two bytes is the number.
#[must_use]
pub fn vip(family: Family, number: u32) -> IpAddr {
    let [_, _, high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(100, 64, high, low).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, number as u16).into(),
    }
}

/// Gives each VIP one frontend, all of whose rows lead to `backend`.
pub fn fill(product: &Ebpf, image: &mut Image, family: Family, backend: u32) -> Result<()> {
    let half = if family.is_v6() { VIPS } else { 0 };
    let row = must_cast::<Row, u64>(Row {
        current: backend,
        previous: 0,
    });
    let mut rows = mapped::<Row>(product, "ROWS", abi::ROWS)?;
    for number in 0..VIPS {
        let range = RowRange {
            base: FIRST_ROW + (half + number) * ROWS,
            mask: ROWS - 1,
        };
        for index in range.base..=range.base + range.mask {
            rows.store(index, &[row])?;
        }
        let vip = address(vip(family, number));
        image.add(
            vip,
            port::UNCHANGED,
            protocol::TCP,
            kind::FRONTEND,
            FIRST_ID + half + number,
            range,
        );
    }
    Ok(())
}
