//! The golden table on the host and in the kernel: expected verdict, reason and bytes; equal flow tables and counters.

use anyhow::{Context, ensure};
use std::collections::{BTreeMap, BTreeSet};
use tests::packets::cases::{self, Case, fragments, takeover};
use tests::packets::host::{Host, no_flows};
use tests::packets::kernel::Kernel;
use tests::packets::runner::{Program, Runner};
use tests::packets::world::{Family, Protocol, Target};
use tests::packets::{check, world};
use weir_common::abi::HELD_TRIES;
use weir_common::packet::Hold;
use weir_common::verdict::{Action, Reason};

/// Runs every case and fails with all that failed.
fn run(mut each: impl FnMut(&Case) -> anyhow::Result<()>) {
    let cases = cases::all();
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            check::unpaused(|| each(case))
                .err()
                .map(|error| format!("--- {}\n{error:#}", case.name))
        })
        .collect();
    println!("{} golden cases", cases.len());
    assert!(
        failures.is_empty(),
        "{} of {} cases failed\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

#[test]
fn host_gives_the_expected_verdict_and_bytes() {
    let image = world::image();
    let mut host = Host::new(image.clone());
    run(|case| check::run(&mut host, &image, case).map(drop));
}

#[test]
fn kernel_gives_the_expected_verdict_and_bytes() {
    let image = world::image();
    let mut kernel = Kernel::new(&image).unwrap();
    run(|case| check::run(&mut kernel, &image, case).map(drop));
}

#[test]
fn kernel_leaves_the_same_flows_and_counts() {
    let image = world::image();
    let (mut host, mut kernel) = (Host::new(image.clone()), Kernel::new(&image).unwrap());
    run(|case| {
        let before = [host.counts()?, kernel.counts()?];
        for runner in [&mut host as &mut dyn Runner, &mut kernel] {
            check::prepare(runner, &image, case)?;
        }
        let outcomes = [
            host.run(case.program, &case.frame)?,
            kernel.run(case.program, &case.frame)?,
        ];
        check::same(&case.name, case.program, &case.frame, &outcomes[0], &outcomes[1])?;
        if !check::depends_on_time(case) {
            let flows = [host.flows()?.timeless(), kernel.flows()?.timeless()];
            ensure!(flows[0] == flows[1], "the flow tables differ");
        }
        let counted = [host.counts()?.since(&before[0]), kernel.counts()?.since(&before[1])];
        ensure!(counted[0] == counted[1], "host and kernel counted {counted:?}");
        Ok(())
    });
}

#[test]
fn kernel_and_host_note_what_begins_while_a_frontend_stands_by() {
    let image = world::image();
    let (mut host, mut kernel) = (Host::new(image.clone()), Kernel::new(&image).unwrap());
    for (family, protocol) in Family::BOTH
        .into_iter()
        .flat_map(|family| Protocol::BOTH.map(|protocol| (family, protocol)))
    {
        let (frames, noted) = takeover::noted(family, protocol);
        let expected: BTreeSet<_> = world::stack_flows().into_iter().chain(noted).collect();
        for runner in [&mut host as &mut dyn Runner, &mut kernel] {
            runner.restore(&no_flows()).unwrap();
            for frame in &frames {
                runner.run(Program::Ingress, frame).unwrap();
            }
            assert_eq!(runner.flows().unwrap().stack_flows, expected);
        }
    }
}

/// A frame with a VLAN tag never takes the short way, and its tag is not in what goes into the tunnel: so the two ways can
/// be compared packet by packet.
#[test]
fn host_short_and_long_way_send_the_same_bytes() {
    const MACS: usize = 12;
    const TAG: [u8; 4] = [0x81, 0, 0, 7];
    const UNTAGGED: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];
    let image = world::image();
    let mut host = Host::new(image.clone());
    let mut compared = 0;
    run(|case| {
        if case.reason != Reason::Tunnel || !UNTAGGED.iter().any(|kind| case.frame[MACS..MACS + 2] == *kind) {
            return Ok(());
        }
        check::prepare(&mut host, &image, case)?;
        let short = host.run(case.program, &case.frame)?;
        let mut tagged = case.frame.clone();
        tagged.splice(MACS..MACS, TAG);
        check::prepare(&mut host, &image, case)?;
        let long = host.run(case.program, &tagged)?;
        ensure!(short == long, "untagged {short:?}\ntagged {long:?}");
        compared += 1;
        Ok(())
    });
    assert!(compared >= 50, "only {compared} packets were compared");
}

#[test]
fn host_without_headroom_leaves_the_frame_alone() {
    let image = world::image();
    let mut host = Host::new(image.clone());
    let mut met = 0;
    for case in cases::all() {
        if case.expected.len() <= case.frame.len() {
            continue;
        }
        host.headroom = 256;
        check::prepare(&mut host, &image, case).unwrap();
        host.headroom = 3;
        let outcome = host.run(case.program, &case.frame).unwrap();
        // An answer that only grows at its end needs no headroom.
        if outcome.reason == Reason::NeighborAdvertisement {
            continue;
        }
        met += 1;
        assert_eq!(outcome.reason, Reason::NoHeadroom, "{}", case.name);
        assert_eq!(outcome.frame, case.frame, "{}: the frame was changed", case.name);
    }
    assert!(met > 0, "no case needs headroom");
}

/// In the kernel, the agent tells by metadata how often a frame was held.
#[test]
fn kernel_holds_a_fragment_as_often_as_it_may_and_gives_the_agent_its_frame() -> anyhow::Result<()> {
    let mut kernel = Kernel::new(&world::image())?;
    for frame in Family::BOTH.into_iter().flat_map(fragments::without_first) {
        let outcome = kernel.run(Program::Ingress, &frame)?;
        ensure!(
            outcome.reason == Reason::FragmentHeld && outcome.action == Action::Drop,
            "{outcome:?}"
        );
        ensure!(
            kernel.held()? == Some((world::INTERFACE, 0, frame.clone())),
            "another record"
        );
        for tries in 1..HELD_TRIES {
            let outcome = kernel.run_again(&frame, tries)?;
            ensure!(
                outcome.reason == Reason::FragmentHeld && outcome.action == Action::Drop,
                "{outcome:?}"
            );
            ensure!(
                kernel.held()? == Some((world::INTERFACE, tries, frame.clone())),
                "another record"
            );
        }
        let outcome = kernel.run_again(&frame, HELD_TRIES)?;
        ensure!(
            outcome.reason == Reason::Fragment && outcome.action == Action::Drop,
            "{outcome:?}"
        );
        ensure!(
            kernel.held()?.is_none() && outcome.frame == frame,
            "held once more, or changed"
        );
    }
    Ok(())
}

#[test]
fn host_lets_a_fragment_stand_aside_that_cannot_be_held() -> anyhow::Result<()> {
    let mut host = Host::new(world::image());
    for family in Family::BOTH {
        for (hold, actions) in [
            (Hold::NoRoom, [Action::Pass, Action::Drop]),
            (Hold::Over, [Action::Drop, Action::Drop]),
        ] {
            host.hold = hold;
            for (frame, action) in fragments::without_first(family).into_iter().zip(actions) {
                let outcome = host.run(Program::Ingress, &frame)?;
                ensure!(outcome.reason == Reason::Fragment, "{hold:?}: {outcome:?}");
                ensure!(
                    outcome.action == action && outcome.frame == frame,
                    "{hold:?}: {outcome:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn host_table_meets_every_reason_and_names_every_case_once() {
    let cases = cases::all();
    let mut names = BTreeSet::new();
    let mut reasons = BTreeMap::<&str, usize>::new();
    for case in cases {
        assert!(names.insert(&case.name), "two cases are called {}", case.name);
        *reasons.entry(case.reason.name()).or_default() += 1;
    }
    for (reason, count) in &reasons {
        println!("{count:5} {reason}");
    }
    for reason in Reason::ALL {
        // The kernel's test run always has headroom; its own test takes it away. Fragments stand aside so far.
        assert!(
            matches!(reason, Reason::NoHeadroom | Reason::FragmentHeld) || reasons.contains_key(reason.name()),
            "no case of {}",
            reason.name()
        );
    }
}

#[test]
fn host_counts_the_backend_that_gets_the_packet() {
    let image = world::image();
    for (name, target, flows) in [
        ("local, a later packet tcp", Some(Target::Local), 1),
        ("remote, plain, first tcp", Some(Target::Near), 0),
        ("moved, syn, moved on, later", Some(Target::Near), 0),
        ("moved away, later, begun here", Some(Target::Local), 0),
        ("moved inside, later, begun at the neighbor", Some(Target::Neighbor), 0),
        ("moved here, later", Some(Target::Older), 0),
        ("node unreachable, later tcp", None, 0),
        ("icmp, too big for the tunnel", None, 0),
        ("flows, full of established flows", None, 0),
        // Counted by the node that chose the backend.
        ("tunnel, later tcp", None, 0),
        ("tunnel, second chance at another node", None, 0),
    ] {
        for family in Family::BOTH {
            let name = format!("{name} {}", family.name());
            let case = cases::all().iter().find(|case| case.name == name).expect(&name);
            let mut host = Host::new(image.clone());
            check::prepare(&mut host, &image, case).unwrap();
            let before = host.counts().unwrap().backends;
            host.run(case.program, &case.frame).unwrap();
            let mut grown = host.counts().unwrap().backends;
            for count in &mut grown {
                let earlier = before.iter().find(|earlier| earlier.0 == count.0);
                let (_, packets, bytes, earlier_flows) = earlier.copied().unwrap_or_default();
                (count.1, count.2, count.3) = (count.1 - packets, count.2 - bytes, count.3 - earlier_flows);
            }
            grown.retain(|count| count.1 > 0);
            let bytes = (case.frame.len() - 14) as u64;
            let expected: Vec<_> = target
                .map(|target| (target.id(family, Protocol::Tcp), 1, bytes, flows))
                .into_iter()
                .collect();
            assert_eq!(
                grown, expected,
                "{name}: (backend, packets, bytes, flows) that were counted"
            );
        }
    }
}

#[test]
fn host_passes_without_a_rewriting_reason_untouched() {
    for case in cases::all() {
        if case.action == Action::Pass && !check::rewrites(case.reason) {
            assert_eq!(case.frame, case.expected, "{}", case.name);
        }
        if case.action == Action::Drop {
            assert_eq!(
                case.frame, case.expected,
                "{}: dropped frames are not edited",
                case.name
            );
        }
    }
}

#[test]
fn kernel_reasons_are_as_many_as_frames() -> anyhow::Result<()> {
    let image = world::image();
    let mut kernel = Kernel::new(&image)?;
    for case in cases::all() {
        check::prepare(&mut kernel, &image, case)?;
        kernel
            .run_expecting(case.program, &case.frame, Some(case.reason))
            .with_context(|| case.name.clone())?;
    }
    kernel.check_no_other_reason()
}
