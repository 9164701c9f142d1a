//! The stages of the long way as global functions: the verifier checks each once, whoever calls it, and knows of a caller
//! nothing but the types of what it passes. So they take the context or nothing, and find the packet's scratch themselves.

use crate::{
    frame::XdpFrame,
    held,
    maps::{Maps, scratch},
};
use aya_ebpf::bindings::xdp_md;
use weir_common::{
    arrival,
    decide::{self, Found, Way},
    flows::{self, Knowledge, Noted},
    forward, fragments, icmp,
    ingress::{self, Class},
    scratch::Scratch,
    stages::{Decisions, Stages},
    steer,
    verdict::{Action, Reason, Verdict},
};

const INGRESS: Maps<0> = Maps;

/// What [`weir_ours`] returns for each action; the reason and the interface are in the scratch.
mod code {
    pub(super) const PASS: u32 = 0;
    pub(super) const DROP: u32 = 1;
    pub(super) const TRANSMIT: u32 = 2;
    pub(super) const REDIRECT: u32 = 3;
}

macro_rules! stage {
    ($(#[doc = $doc:literal])+ $name:ident($s:ident) $body:expr) => {
        $(#[doc = $doc])+
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name() -> u32 {
            let Some($s) = scratch(0) else { return 0 };
            $body
        }
    };
    ($(#[doc = $doc:literal])+ $name:ident($ctx:ident, $frame:ident, $s:ident) $body:expr) => {
        $(#[doc = $doc])+
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name($ctx: *mut xdp_md) -> u32 {
            let Some($s) = scratch(0) else { return 0 };
            let mut $frame = XdpFrame::new($ctx);
            $body
        }
    };
}

stage! {
    /// [`steer::choose`].
    weir_choose(s) u32::from(steer::choose(&INGRESS, s))
}
stage! {
    /// [`decide::look`].
    weir_look(s) decide::look(&INGRESS, s) as u32
}
stage! {
    /// [`decide::conclude`].
    weir_conclude(s) decide::conclude(&INGRESS, s) as u32
}
stage! {
    /// [`decide::walk`].
    weir_walk(s) decide::walk(&INGRESS, s) as u32
}
stage! {
    /// [`flows::note`].
    weir_note(s) flows::note(&INGRESS, s) as u32
}
stage! {
    /// [`Decisions::stand_aside`].
    weir_stand_aside(s) {
        fragments::teach(&INGRESS, s, (0, 0));
        1
    }
}
stage! {
    /// [`flows::insert`].
    weir_insert(s) flows::insert(&INGRESS, s) as u32
}
stage! {
    /// [`ingress::classify`].
    weir_classify(ctx, frame, s) ingress::classify(&mut frame, &INGRESS, s) as u32
}
stage! {
    /// [`arrival::open`].
    weir_open(ctx, frame, s) u32::from(arrival::open(&mut frame, &INGRESS, s))
}
stage! {
    /// [`forward::deliver`].
    weir_deliver(ctx, frame, s) u32::from(forward::deliver(&mut frame, &INGRESS, s))
}
stage! {
    /// [`forward::send`].
    weir_send(ctx, frame, s) u32::from(forward::send(&mut frame, &INGRESS, s))
}
stage! {
    /// [`icmp::deliver`].
    weir_deliver_error(ctx, frame, s) u32::from(icmp::deliver(&mut frame, s))
}
stage! {
    /// [`icmp::too_big`].
    weir_too_big(ctx, frame, s) u32::from(icmp::too_big(&mut frame, s))
}
/// [`held::hold`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weir_hold(ctx: *mut xdp_md) -> u32 {
    held::hold(ctx) as u32
}
stage! {
    /// [`ingress::ours`]; gives one of [`code`].
    weir_ours(ctx, frame, s) {
        let ifindex = frame.ifindex();
        let verdict = ingress::ours(&mut frame, &INGRESS, ifindex);
        s.reason = verdict.reason;
        match verdict.action {
            Action::Pass => code::PASS,
            Action::Drop => code::DROP,
            Action::Transmit => code::TRANSMIT,
            Action::Redirect(_) => code::REDIRECT,
        }
    }
}

#[inline(always)]
fn found(code: u32) -> Found {
    match code {
        1 => Found::Known,
        2 => Found::Ask,
        3 => Found::Blocked,
        4 => Found::Rows,
        5 => Found::Settled,
        _ => Found::Nobody,
    }
}

impl<const PROGRAM: u32> Decisions for Maps<PROGRAM> {
    type Scratch = &'static mut Scratch;

    #[inline(always)]
    fn scratch(&self) -> Option<&'static mut Scratch> {
        scratch(PROGRAM)
    }

    #[inline(always)]
    fn choose(&self, _: &mut Scratch) -> bool {
        weir_choose() != 0
    }

    #[inline(always)]
    fn look(&self, _: &mut Scratch) -> Found {
        found(weir_look())
    }

    #[inline(always)]
    fn walk(&self, _: &mut Scratch) -> Found {
        found(weir_walk())
    }

    #[inline(always)]
    fn conclude(&self, _: &mut Scratch) -> Way {
        match weir_conclude() {
            1 => Way::Here,
            2 => Way::There,
            _ => Way::Nowhere,
        }
    }

    #[inline(always)]
    fn note(&self, _: &mut Scratch) -> Knowledge {
        match weir_note() {
            1 => Knowledge::Unproven,
            2 => Knowledge::Known,
            3 => Knowledge::Begun,
            _ => Knowledge::Unknown,
        }
    }

    #[inline(always)]
    fn stand_aside(&self, _: &mut Scratch) {
        weir_stand_aside();
    }

    #[inline(always)]
    fn insert(&self, _: &mut Scratch) -> Noted {
        match weir_insert() {
            1 => Noted::New,
            2 => Noted::Old,
            _ => Noted::Refused,
        }
    }
}

impl Stages<XdpFrame> for Maps<0> {
    #[inline(always)]
    fn ours(&self, frame: &mut XdpFrame, _: u32) -> Verdict {
        let code = weir_ours(frame.context());
        let (reason, out) = scratch(0).map_or((Reason::NotServed, 0), |s| (s.reason, s.out));
        let action = match code {
            code::DROP => Action::Drop,
            code::TRANSMIT => Action::Transmit,
            code::REDIRECT => Action::Redirect(out),
            _ => Action::Pass,
        };
        Verdict { action, reason }
    }

    #[inline(always)]
    fn classify(&self, frame: &mut XdpFrame, _: &mut Scratch) -> Class {
        let class = weir_classify(frame.context());
        frame.after(class);
        match class {
            1 => Class::Drop,
            2 => Class::Answered,
            3 => Class::Frontend,
            4 => Class::Tunnel,
            _ => Class::Pass,
        }
    }

    #[inline(always)]
    fn open(&self, frame: &mut XdpFrame, _: &mut Scratch) -> bool {
        frame.after(weir_open(frame.context()))
    }

    #[inline(always)]
    fn deliver(&self, frame: &mut XdpFrame, _: &mut Scratch) -> bool {
        frame.after(weir_deliver(frame.context()))
    }

    #[inline(always)]
    fn send(&self, frame: &mut XdpFrame, _: &mut Scratch) -> bool {
        frame.after(weir_send(frame.context()))
    }

    #[inline(always)]
    fn deliver_error(&self, frame: &mut XdpFrame, _: &mut Scratch) -> bool {
        frame.after(weir_deliver_error(frame.context()))
    }

    #[inline(always)]
    fn too_big(&self, frame: &mut XdpFrame, _: &mut Scratch) -> bool {
        frame.after(weir_too_big(frame.context()))
    }
}
