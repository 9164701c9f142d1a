//! Second chances: whoever has a flow gets its packets, though rows have changed and nodes do not agree about who had them.
//!
//! The packet path runs on every node of a small network, each with tables of its own, and sends the client's packet from
//! one to the other through the tunnel, until somebody has it. Where backends are, what nodes know and whom they reach is
//! made up by [`scene`].

mod frame;
mod network;
mod node;
mod scene;
mod unreachable;

use frame::Sent;
use network::{End, Network};
use node::Path;
use proptest::{option, prelude::*, sample::Index};
use scene::{OWNERS, after_changes, anywhere, apart, chaos, full_row, going_on};
use weir_common::{tunnel::MAX_HOPS, verdict::Reason};

/// Enough cases to meet what is rare. Nothing is written next to the source.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whoever_has_a_flow_gets_its_packets_wherever_they_come_in(
        scene in full_row(1..=OWNERS),
        sent in going_on(),
        has in any::<Index>(),
    ) {
        let has = *has.get(&scene.backends());
        let journey = scene.journey(sent, &scene.equal_rows(), has);
        prop_assert_eq!(journey.end, End::Delivered(has), "{:?}", journey);
    }

    #[test]
    fn nodes_without_a_past_hide_nobody(
        scene in full_row(1..=OWNERS),
        sent in going_on(),
        has in any::<Index>(),
        rebooted in any::<u16>(),
    ) {
        let has = *has.get(&scene.backends());
        let mut rows = scene.equal_rows();
        for (node, row) in (1..).zip(&mut rows) {
            let names_its_own = node == scene.place(has) && scene.has_several(node);
            if rebooted >> node & 1 == 1 && node != scene.place(1) && !names_its_own {
                row.truncate(1);
            }
        }
        let journey = scene.journey(sent, &rows, has);
        prop_assert_eq!(journey.end, End::Delivered(has), "{:?} {:?}", journey, rows);
    }

    #[test]
    fn the_backend_before_is_found_though_only_the_sender_has_a_past(
        scene in full_row(2..=OWNERS),
        sent in going_on(),
    ) {
        let mut rows = vec![vec![1]; scene.nodes as usize];
        rows[scene.entry as usize - 1] = scene.backends();
        let journey = scene.journey(sent, &rows, 2);
        prop_assert_eq!(journey.end, End::Delivered(2), "{:?}", journey);
    }

    #[test]
    fn a_chosen_backends_node_without_a_past_hears_whom_to_ask(
        scene in apart(3..=11, 2..=OWNERS),
        sent in going_on(),
        has in any::<Index>(),
    ) {
        prop_assume!(scene.entry != scene.place(1));
        let mut rows = scene.equal_rows();
        rows[scene.place(1) as usize - 1].truncate(1);
        let has = *has.get(&scene.backends()[1..]);
        let journey = scene.journey(sent, &rows, has);
        prop_assert_eq!(journey.end, End::Delivered(has), "{:?}", journey);
    }

    #[test]
    fn whom_the_chosen_backends_node_names_is_found_though_others_have_missed_changes(
        (scene, rows) in after_changes(prop_oneof![apart(2..=11, 1..=11), anywhere(2..=11, 1..=OWNERS)]),
        sent in going_on(),
        has in any::<Index>(),
    ) {
        let chosen = scene.place(scene.entry_row(&rows)[0]);
        let has = *has.get(&rows[chosen as usize - 1]);
        let journey = scene.journey(sent, &rows, has);
        prop_assert_eq!(journey.end, End::Delivered(has), "{:?} {:?}", journey, rows);
    }

    #[test]
    fn no_packet_takes_more_than_two_steps_for_each_node_that_may_be_asked(
        (scene, rows, paths) in chaos(),
        sent in prop_oneof![Just(Sent::Segment), Just(Sent::Syn), Just(Sent::Datagram)],
        has in option::of(any::<Index>()),
    ) {
        let mut network = Network::new(sent, &scene.places, &rows);
        network.set_paths(&paths);
        if let Some(has) = has {
            network.know(*has.get(&scene.backends()));
        }
        for entry in 1..=scene.nodes {
            let journey = network.carry(sent, entry);
            prop_assert!(journey.steps.len() <= 2 * usize::from(MAX_HOPS) + 2, "{:?}", journey);
        }
    }

    #[test]
    fn a_bare_syn_goes_straight_to_the_current_backend(
        (scene, rows, paths) in chaos(),
        has in option::of(any::<Index>()),
    ) {
        let mut network = Network::new(Sent::Syn, &scene.places, &rows);
        network.set_paths(&paths);
        if let Some(has) = has {
            network.know(*has.get(&scene.backends()));
        }
        let Some(&current) = scene.entry_row(&rows).first() else {
            let journey = network.carry(Sent::Syn, scene.entry);
            prop_assert_eq!(journey.end, End::StoodAside(Reason::NoBackend), "{:?}", journey);
            return Ok(());
        };
        let place = scene.place(current);
        network.set_paths(&[(scene.entry, place, Path::Open), (place, scene.entry, Path::Open)]);
        let journey = network.carry(Sent::Syn, scene.entry);
        prop_assert_eq!(journey.end, End::Delivered(current), "{:?}", journey);
        prop_assert!(journey.steps == [scene.entry] || journey.steps == [scene.entry, place], "{:?}", journey);
    }
}
