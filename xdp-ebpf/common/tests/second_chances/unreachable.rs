//! Owners that cannot be asked.

use crate::{
    config,
    frame::Sent,
    network::{End, Network},
    node::Path,
    scene::{OWNERS, Rows, Scene, anywhere, apart, going_on},
};
use proptest::{prelude::*, sample::Index};

/// A scene in which node `lost` has one of the backends before. It is neither the node that the packet comes in by nor that
/// of the current backend.
fn with_a_node_lost() -> impl Strategy<Value = (Scene, u32)> {
    let scenes = prop_oneof![apart(3..=11, 3..=OWNERS), anywhere(3..=11, 2..=OWNERS)];
    (scenes, any::<Index>()).prop_filter_map("no such node", |(scene, index)| {
        let mut lost = scene.places.clone();
        lost.retain(|&place| place != scene.entry && place != scene.place(1));
        (!lost.is_empty()).then(|| (scene, *index.get(&lost)))
    })
}

/// The network of `scene` whose nodes agree, but cannot send anything to node `lost`.
fn without(scene: &Scene, lost: u32, sent: Sent) -> Network {
    let mut network = Network::new(sent, &scene.places, &scene.equal_rows());
    network.cut_off(lost);
    network
}

/// Only the node that the packet comes in by has a past: a backend on node `lost`.
fn past_of_the_sender_alone(scene: &Scene, lost: u32) -> Rows {
    let before = scene
        .backends()
        .into_iter()
        .find(|&backend| scene.place(backend) == lost);
    let mut rows = vec![vec![1]; scene.nodes as usize];
    rows[scene.entry as usize - 1].extend(before);
    rows
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_segment_that_nobody_knows_is_dropped((scene, lost) in with_a_node_lost()) {
        let network = without(&scene, lost, Sent::Segment);
        for _ in 0..2 {
            let journey = network.carry(Sent::Segment, scene.entry);
            prop_assert!(matches!(journey.end, End::Dropped(_)), "{:?}", journey);
        }
    }

    #[test]
    fn it_is_dropped_when_only_the_chosen_backends_node_does_not_reach_the_other((scene, lost) in with_a_node_lost()) {
        let mut network = Network::new(Sent::Segment, &scene.places, &scene.equal_rows());
        network.set_paths(&[(scene.place(1), lost, Path::Cut)]);
        let journey = network.carry(Sent::Segment, scene.entry);
        prop_assert!(matches!(journey.end, End::Dropped(_)), "{:?}", journey);
    }

    #[test]
    fn it_is_dropped_when_only_the_sender_names_whom_nobody_reaches((scene, lost) in with_a_node_lost()) {
        let rows = past_of_the_sender_alone(&scene, lost);
        let mut network = Network::new(Sent::Segment, &scene.places, &rows);
        network.cut_off(lost);
        let journey = network.carry(Sent::Segment, scene.entry);
        prop_assert!(matches!(journey.end, End::Dropped(_)), "{:?}", journey);
    }

    #[test]
    fn a_datagram_that_nobody_knows_is_delivered((scene, lost) in with_a_node_lost()) {
        let journey = without(&scene, lost, Sent::Datagram).carry(Sent::Datagram, scene.entry);
        prop_assert_eq!(journey.end, End::Delivered(1), "{:?}", journey);
    }

    #[test]
    fn who_has_the_flow_and_can_be_reached_gets_it(
        (scene, lost) in with_a_node_lost(),
        sent in going_on(),
        has in any::<Index>(),
    ) {
        let mut reached = scene.backends();
        reached.retain(|&backend| scene.place(backend) != lost);
        let has = *has.get(&reached);
        let network = without(&scene, lost, sent);
        network.know(has);
        let journey = network.carry(sent, scene.entry);
        prop_assert_eq!(journey.end, End::Delivered(has), "{:?}", journey);
    }

    #[test]
    fn the_chosen_backend_gets_its_flow_though_the_sender_names_another(
        (scene, lost) in with_a_node_lost(),
        sent in going_on(),
        by_the_sender_alone in any::<bool>(),
    ) {
        let rows = past_of_the_sender_alone(&scene, lost);
        let mut network = Network::new(sent, &scene.places, &rows);
        if by_the_sender_alone {
            network.set_paths(&[(scene.entry, lost, Path::Cut)]);
        } else {
            network.cut_off(lost);
        }
        network.know(1);
        let journey = network.carry(sent, scene.entry);
        prop_assert_eq!(journey.end, End::Delivered(1), "{:?}", journey);
        prop_assert!(journey.steps.len() <= 2, "{:?}", journey);
    }

    #[test]
    fn the_second_datagram_of_a_flow_that_nobody_knows_takes_no_detour(
        (scene, other) in with_a_node_lost(),
        is_lost in any::<bool>(),
        comes_back_by_the_other in any::<bool>(),
    ) {
        let mut network = Network::new(Sent::Datagram, &scene.places, &scene.equal_rows());
        if is_lost {
            network.cut_off(other);
        }
        let first = network.carry(Sent::Datagram, scene.entry);
        prop_assert_eq!(first.end, End::Delivered(1), "{:?}", first);
        prop_assert_eq!(first.steps.contains(&other), !is_lost, "{:?}", first);
        let entry = if comes_back_by_the_other && !is_lost { other } else { scene.entry };
        let second = network.carry(Sent::Datagram, entry);
        prop_assert_eq!(second.end, End::Delivered(1), "{:?}", second);
        prop_assert!(second.steps == [entry] || second.steps == [entry, scene.place(1)], "{:?}", second);
    }
}
