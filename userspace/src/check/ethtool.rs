//! What a driver says of itself and of its offloads, by the `SIOCETHTOOL` ioctl (`include/uapi/linux/ethtool.h`).
#![expect(unsafe_code, reason = "an ioctl that fills in a structure")]

use std::{
    io, mem,
    net::UdpSocket,
    os::fd::AsRawFd,
    ptr::{self, NonNull},
};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `enum ethtool_flags`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Offloads that matter to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The card merges segments before anybody sees them.
    pub lro: bool,
    /// The card takes VLAN tags out of frames.
    pub rx_vlan: bool,
}

/// Name of the interface's driver; `None` if it has none or does not say.
pub fn driver(interface: &str) -> Option<String> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    ask(interface, NonNull::from(&mut info).cast()).ok()?;
    let name = info.driver.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// The interface's offloads; `None` if the driver does not say.
pub fn offloads(interface: &str) -> Option<Offloads> {
    let mut flags = Value {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    ask(interface, NonNull::from(&mut flags).cast()).ok()?;
    Some(Offloads {
        lro: flags.data & LRO != 0,
        rx_vlan: flags.data & RX_VLAN != 0,
    })
}

/// `structure` is one that its own command word tells the kernel to fill in.
fn ask(interface: &str, structure: NonNull<libc::c_char>) -> io::Result<()> {
    // SAFETY: every field is plain data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = structure.as_ptr();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request and what it points to live until the call returns, and are as large as the command says.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, ptr::from_mut(&mut request)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
