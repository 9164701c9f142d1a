//! Puts the programs on an interface: ingress as XDP, egress as tcx or clsact, both held by pins.
//!
//! Takes one interface as netlink shows it and makes it run this agent's programs: a link an earlier agent pinned gets
//! the new program in one step, a link whose interface is gone is thrown away, a program of somebody else is left alone
//! and named. Which interfaces there should be is the agent's affair.
//!
//! While flows move to another map, the former egress program goes on behind the new one, and either leaves alone what the
//! other has rewritten: a flow that only the former map has yet loses no reply. [`Attacher::part`] ends that.

use super::{
    error::Error,
    object::verified,
    pins::{PinDir, remove_if_there},
    preflight, sys,
};
use crate::source::netlink::Device;
use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, SchedClassifier, TcAttachType, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
        xdp::{XdpLink, XdpMode as AyaMode},
    },
};
use std::{io, path::Path};
use tracing::{info, warn};

/// Names of the programs in the object.
pub const INGRESS: &str = "weir_ingress";
/// See [`INGRESS`].
pub const EGRESS: &str = "weir_egress";

/// Where our filter stands in clsact on kernels without tcx; fixed, so that a new agent replaces it.
pub const TC_PRIORITY: u16 = 50;
const TC_HANDLE: TcHandle = TcHandle::new(0, 0x5745);
/// Where it stands, before the former one, while flows move.
const TC_PRIORITY_BESIDE: u16 = 49;
/// Kind of the pin of a tcx link that is to take the place of the one pinned as `tc`.
pub const BESIDE: &str = "tc_beside";

/// Which XDP mode to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModePolicy {
    /// Native if the driver has it, else generic.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic only.
    Generic,
}

/// How the egress program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EgressPolicy {
    /// tcx on Linux 6.6 and newer, else clsact.
    #[default]
    Auto,
    /// A pinned tcx link.
    Tcx,
    /// A filter in the clsact qdisc.
    Clsact,
}

impl EgressPolicy {
    /// Whether that is tcx on this kernel.
    #[must_use]
    pub fn is_tcx(self) -> bool {
        match self {
            Self::Auto => preflight::kernel_is_at_least(6, 6),
            Self::Tcx => true,
            Self::Clsact => false,
        }
    }
}

/// Why an interface has no programs.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's XDP program.
    #[error(
        "interface {interface} already runs the XDP program {name} (id {id}), and an interface runs only one; \
         remove it with `ip link set dev {interface} xdp off` (or stop what installed it) and it is taken within seconds"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// Name of the program, `?` when it may not be asked.
        name: String,
        /// Its id.
        id: u32,
    },
    /// Every mode allowed was refused.
    #[error(
        "the kernel refuses XDP on interface {interface}: {reasons}; see the kernel log, and `ip -d link show {interface}`"
    )]
    Refused {
        /// The interface.
        interface: String,
        /// Mode and error, of each try.
        reasons: String,
    },
    /// The egress program.
    #[error(
        "the kernel refuses the egress program on interface {interface}: {cause}; without it replies of local backends \
         would leave unchanged, so the interface is not taken at all"
    )]
    Egress {
        /// The interface.
        interface: String,
        /// Why.
        cause: String,
    },
    /// Pins and the like.
    #[error(transparent)]
    Applier(#[from] Error),
}

impl AttachError {
    /// One word for tools.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "ForeignXdpProgram",
            Self::Refused { .. } => "XdpRefused",
            Self::Egress { .. } => "EgressRefused",
            Self::Applier(_) => "AttachFailed",
        }
    }
}

/// Attaches one load of the object to interfaces.
#[derive(Debug)]
pub struct Attacher {
    pins: PinDir,
    policy: ModePolicy,
    tcx: bool,
    ingress: u32,
    egress: u32,
}

impl Attacher {
    /// Loads both programs into the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::NoProgram`], [`Error::Program`].
    pub fn load(ebpf: &mut Ebpf, pins: PinDir, policy: ModePolicy, tcx: bool) -> Result<Self, Error> {
        let refused = |name| {
            move |source| Error::Program {
                name,
                source: Box::new(source),
            }
        };
        let xdp = ingress(ebpf)?;
        verified(|| xdp.load()).map_err(refused(INGRESS))?;
        let ingress = xdp.info().map_err(refused(INGRESS))?.id();
        let classifier = egress(ebpf)?;
        verified(|| classifier.load()).map_err(refused(EGRESS))?;
        let egress = classifier.info().map_err(refused(EGRESS))?.id();
        Ok(Self {
            pins,
            policy,
            tcx,
            ingress,
            egress,
        })
    }

    /// Id of the loaded XDP program.
    #[must_use]
    pub const fn ingress_id(&self) -> u32 {
        self.ingress
    }

    /// Makes `device` run both programs; with `moving` beside the former egress program, where there is one. Calling it
    /// again changes nothing.
    ///
    /// # Errors
    ///
    /// See [`AttachError`]; the interface is then as it was, except that a stale pin may be gone.
    pub fn attach(&self, ebpf: &mut Ebpf, device: &Device, moving: bool) -> Result<(), AttachError> {
        // Egress first: a reply that leaves unchanged breaks a connection, a request that is not taken does not.
        self.attach_egress(ebpf, device, moving)?;
        self.attach_ingress(ebpf, device)
    }

    /// Takes the former egress programs away, now that flows have moved.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Clsact`].
    pub fn part(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        for (kind, interface, _) in self.pins.linked()? {
            if kind == BESIDE {
                self.pins.replace_link(BESIDE, "tc", &interface)?;
            } else if kind == "xdp" && !self.tcx {
                let clsact = |cause| Error::Clsact {
                    interface: interface.clone(),
                    cause,
                };
                attach_clsact(egress(ebpf)?, &interface, TC_PRIORITY).map_err(clsact)?;
                let _ = detach_filter(&interface, TC_PRIORITY_BESIDE);
            }
        }
        Ok(())
    }

    fn attach_ingress(&self, ebpf: &mut Ebpf, device: &Device) -> Result<(), AttachError> {
        let path = self.pins.link("xdp", &device.name);
        let mut foreign = device.xdp.map(|xdp| xdp.program);
        if let Some(program) = self.live_pin(&path, device)? {
            let mode = device.xdp.filter(|xdp| xdp.program == program).map(|xdp| xdp.native);
            let right_mode = match self.policy {
                ModePolicy::Auto => true,
                ModePolicy::Native => mode == Some(true),
                ModePolicy::Generic => mode == Some(false),
            };
            if right_mode && program == self.ingress {
                return Ok(());
            }
            if right_mode {
                replace_xdp(ingress(ebpf)?, &path).map_err(|reason| AttachError::Refused {
                    interface: device.name.clone(),
                    reasons: format!("replacing the program of {}: {reason}", path.display()),
                })?;
                info!(interface = device.name, "took over the XDP link of an earlier agent");
                return Ok(());
            }
            info!(
                interface = device.name,
                "attaching anew, because another XDP mode is asked for"
            );
            remove_if_there(&path)?;
            foreign = None;
        }
        if let Some(id) = foreign {
            return Err(AttachError::Foreign {
                interface: device.name.clone(),
                name: program_name(id),
                id,
            });
        }
        self.attach_new_xdp(ebpf, device, &path)
    }

    fn attach_new_xdp(&self, ebpf: &mut Ebpf, device: &Device, path: &Path) -> Result<(), AttachError> {
        let modes: &[(&str, AyaMode)] = match self.policy {
            ModePolicy::Auto => &[("native", AyaMode::Driver), ("generic", AyaMode::Skb)],
            ModePolicy::Native => &[("native", AyaMode::Driver)],
            ModePolicy::Generic => &[("generic", AyaMode::Skb)],
        };
        let mut reasons = Vec::new();
        for (name, mode) in modes {
            match attach_xdp(ingress(ebpf)?, device.ifindex, *mode, path) {
                Ok(()) if reasons.is_empty() => {
                    info!(interface = device.name, mode = name, "XDP attached");
                    return Ok(());
                }
                Ok(()) => {
                    let refused = reasons.join("; ");
                    warn!(
                        interface = device.name,
                        mode = name,
                        refused,
                        "XDP attached in the slow mode"
                    );
                    return Ok(());
                }
                Err(reason) => reasons.push(format!("{name}: {reason}")),
            }
        }
        Err(AttachError::Refused {
            interface: device.name.clone(),
            reasons: reasons.join("; "),
        })
    }

    fn attach_egress(&self, ebpf: &mut Ebpf, device: &Device, moving: bool) -> Result<(), AttachError> {
        let refused = |cause| AttachError::Egress {
            interface: device.name.clone(),
            cause,
        };
        let program = egress(ebpf)?;
        let path = self.pins.link("tc", &device.name);
        if !self.tcx {
            let priority = if moving { TC_PRIORITY_BESIDE } else { TC_PRIORITY };
            attach_clsact(program, &device.name, priority).map_err(refused)?;
            if !moving {
                remove_if_there(&path)?;
            }
            return Ok(());
        }
        let beside = self.pins.link(BESIDE, &device.name);
        // The order matters: what stands beside is the later one.
        let mut running = None;
        for path in [&beside, &path] {
            if let Some(program) = self.live_pin(path, device)? {
                running = Some((path, program));
                break;
            }
        }
        match running {
            Some((_, running)) if running == self.egress => Ok(()),
            Some((at, _)) if !moving || *at == beside => replace_tcx(program, at).map_err(refused),
            Some(_) => attach_tcx(program, &device.name, &beside).map_err(refused),
            None => {
                attach_tcx(program, &device.name, &path).map_err(refused)?;
                if detach_clsact(&device.name) {
                    info!(
                        interface = device.name,
                        "removed the tc filter of an earlier agent, tcx does its work now"
                    );
                }
                Ok(())
            }
        }
    }

    /// The program that the link pinned at `path` runs on `device`. A link on anything else is thrown away.
    fn live_pin(&self, path: &Path, device: &Device) -> Result<Option<u32>, AttachError> {
        match sys::pinned_link(path) {
            Ok(link) if link.ifindex == device.ifindex => Ok(Some(link.program)),
            Ok(_) => {
                info!(interface = device.name, pin = %path.display(), "removing the pin of an interface that is gone");
                remove_if_there(path)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("open", path)(error).into()),
        }
    }
}

pub(super) fn ingress(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    match ebpf.program_mut(INGRESS) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(Error::NoProgram(INGRESS)),
    }
}

fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Error> {
    match ebpf.program_mut(EGRESS) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(Error::NoProgram(EGRESS)),
    }
}

/// The links below are closed as soon as they are pinned: the pin is what holds them.
fn attach_xdp(program: &mut Xdp, ifindex: u32, mode: AyaMode, path: &Path) -> Result<(), String> {
    let id = program
        .attach_to_if_index(ifindex, mode)
        .map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    link.pin(path).map(drop).map_err(|error| chain(&error))
}

fn replace_xdp(program: &mut Xdp, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|error| chain(&error))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| chain(&error))?;
    let id = program.attach_to_link(link).map_err(|error| chain(&error))?;
    program.take_link(id).map(drop).map_err(|error| chain(&error))
}

fn attach_tcx(program: &mut SchedClassifier, interface: &str, path: &Path) -> Result<(), String> {
    // First, because a program before ours that ends the chain would hide replies from us.
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(interface, TcAttachType::Egress, order)
        .map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    link.pin(path).map(drop).map_err(|error| chain(&error))
}

fn replace_tcx(program: &mut SchedClassifier, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|error| chain(&error))?;
    let link = SchedClassifierLink::try_from(FdLink::from(link)).map_err(|error| chain(&error))?;
    let id = program.attach_to_link(link).map_err(|error| chain(&error))?;
    program.take_link(id).map(drop).map_err(|error| chain(&error))
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str, priority: u16) -> Result<(), String> {
    // It may be there already; if it could not be made, attaching says so.
    let _ = tc::qdisc_add_clsact(interface);
    let earlier = SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, TC_HANDLE, None)
        .map_err(|error| chain(&error))?;
    let id = match program.attach_to_link(earlier) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions {
                priority,
                handle: TC_HANDLE,
                classid: None,
            };
            program
                .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
                .map_err(|error| chain(&error))?
        }
    };
    // Dropping it would take the filter away.
    std::mem::forget(program.take_link(id).map_err(|error| chain(&error))?);
    Ok(())
}

/// Takes our filters off `interface`; whether there was one.
#[must_use]
pub fn detach_clsact(interface: &str) -> bool {
    let beside = detach_filter(interface, TC_PRIORITY_BESIDE);
    detach_filter(interface, TC_PRIORITY) || beside
}

fn detach_filter(interface: &str, priority: u16) -> bool {
    SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, TC_HANDLE, None)
        .is_ok_and(|link| aya::programs::links::Link::detach(link).is_ok())
}

/// Name of a loaded program, `?` when it cannot be asked.
#[must_use]
pub fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "?".to_owned())
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
