//! A controller that is stopped in the middle of its work for as long as it takes another to lead, and then goes on.

use crate::controlled::{Cluster, LABEL, pool, service, shown, shown_and_recorded};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeSet, ops::Range, thread};
use tests::lab::{process::Process, wait};

/// Addresses there are; every one is wanted, and wanted again when it is free.
const ADDRESSES: usize = 64;
/// Services that go while the leader is stopped, and others that come.
const CHANGED: usize = 16;
/// How often a leader may be stopped until each of the two was in the middle of its work.
const ROUNDS: usize = 12;

/// How often a controller has said that it writes a Service's status.
fn written(controller: &Process) -> usize {
    controller.log().matches("writing the status").count()
}

/// [B20 B24 G06]
#[test]
fn b24_a_leader_that_is_stopped_and_goes_on_writes_nothing_of_what_it_had_planned() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/26"))?;
    let port = |who: usize| 9481 + u16::try_from(who).unwrap_or_default();
    let start = |who: usize| {
        let metrics = format!("[::]:{}", port(who));
        cluster.start_with(["first", "second"][who], &["--no-webhook", "--metrics", &metrics])
    };
    let controllers = [start(0)?, start(1)?];
    let says = |who: usize, line: &str| -> Result<bool> { Ok(cluster.asks(port(who), "/metrics")?.contains(line)) };
    let leads = |who: usize| says(who, "weir_controller_leading 1\n");
    let have = |names: &BTreeSet<String>| {
        wait::until("these Services to have an address, and no others", || {
            let now = shown_and_recorded(kubectl)?;
            ensure!(now.keys().eq(names), "{now:?}");
            Ok(now)
        })
    };
    let free = || {
        kubectl.run("delete service --all --wait=false")?;
        wait::until("every address to be free", || {
            ensure!(shown_and_recorded(kubectl)?.is_empty());
            Ok(())
        })
    };
    let mut stopped = BTreeSet::new();
    for round in 0.. {
        let leader = wait::until("one to lead", || {
            let leaders: Vec<usize> = [0, 1].into_iter().filter(|who| leads(*who).unwrap_or(false)).collect();
            ensure!(leaders.len() == 1, "{leaders:?}");
            leaders.first().copied().context("nobody")
        })?;
        let other = 1 - leader;
        let named = |number: usize| format!("r{round}-{number}");
        let make = |numbers: Range<usize>| -> String {
            numbers
                .map(|number| service(&named(number), &[(LABEL, "pool")]))
                .collect()
        };
        let earlier = written(&controllers[leader]);
        let begun = thread::scope(|scope| {
            let making = scope.spawn(|| kubectl.apply(&make(0..ADDRESSES)));
            // By its log: kubectl may take as long for one look as the leader for all there is to do.
            wait::until("it to have begun", || {
                ensure!(written(&controllers[leader]) > earlier);
                Ok(())
            })?;
            controllers[leader].pause()?;
            match making.join() {
                Ok(made) => made?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            shown(kubectl)
        })?;
        // As where this test had no processor meanwhile: once more, with others.
        if begun.len() == ADDRESSES {
            ensure!(round < ROUNDS, "it was stopped when it had done everything");
            controllers[leader].resume()?;
            free()?;
            continue;
        }
        let before = written(&controllers[leader]);

        // What it may have planned for some is others' now.
        let gone: String = (0..CHANGED).map(|number| format!(" {}", named(number))).collect();
        kubectl.run(&format!("delete service --wait=false{gone}"))?;
        kubectl.apply(&make(ADDRESSES..ADDRESSES + CHANGED))?;
        let mut names: BTreeSet<String> = (CHANGED..ADDRESSES + CHANGED)
            .map(|number| format!("default/{}", named(number)))
            .collect();
        let given = have(&names)?;
        ensure!(leads(other)?, "every Service has an address, and nobody leads");
        for (name, had) in begun.iter().filter(|(name, _)| names.contains(*name)) {
            let has = given.get(name);
            ensure!(has == Some(had), "{name} had {had}, has {has:?}");
        }

        controllers[leader].resume()?;
        // It has caught up when it knows of one that has come since, in the place of another.
        let (former, last) = (named(CHANGED), format!("last-{round}"));
        kubectl.run(&format!("delete service {former}"))?;
        kubectl.apply(&service(&last, &[(LABEL, "pool")]))?;
        names.remove(&format!("default/{former}"));
        names.insert(format!("default/{last}"));
        let after = have(&names)?;
        let others = given.iter().filter(|(name, _)| names.contains(*name));
        for (name, had) in others {
            let has = after.get(name);
            ensure!(has == Some(had), "{name} had {had}, has {has:?}");
        }
        wait::until("the one that was stopped to have read everything", || {
            ensure!(says(leader, &format!("weir_controller_services {ADDRESSES}\n"))?);
            Ok(())
        })?;
        ensure!(!leads(leader)? && leads(other)?, "the one that was stopped leads");
        ensure!(
            written(&controllers[leader]) == before,
            "it has written on:\n{}",
            controllers[leader].last_words(30)
        );
        ensure!(have(&names)? == after, "something has moved");

        stopped.insert(leader);
        if stopped.len() == controllers.len() {
            break;
        }
        free()?;
    }
    Ok(())
}
