//! Every golden frame cut at every length and with every byte changed: nothing panics, what passes is untouched, and the
//! kernel does what the host does.

use tests::packets::cases;
use tests::packets::host::Host;
use tests::packets::kernel::Kernel;
use tests::packets::mutate::{self, Mutant};
use tests::packets::runner::Runner;
use tests::packets::{check, world};

/// Failures shown before the rest is only counted.
const SHOWN: usize = 20;

#[derive(Default)]
struct Tally {
    mutants: usize,
    failures: Vec<String>,
}

impl Tally {
    fn note(&mut self, name: &str, mutant: &Mutant, result: anyhow::Result<()>) {
        self.mutants += 1;
        if let Err(error) = result {
            self.failures
                .push(format!("--- {name}, {:?}\n{error:#}", mutant.change));
        }
    }

    fn finish(self, what: &str) {
        println!("{} mutants {what}", self.mutants);
        assert!(self.mutants > 0, "no mutant was run");
        assert!(
            self.failures.is_empty(),
            "{} of {} mutants failed\n{}",
            self.failures.len(),
            self.mutants,
            self.failures[..self.failures.len().min(SHOWN)].join("\n")
        );
    }
}

#[test]
fn host_survives_every_mutant() {
    let image = world::image();
    let mut host = Host::new(image.clone());
    let mut tally = Tally::default();
    for case in cases::all() {
        check::prepare(&mut host, &image, case).unwrap();
        let flows = host.flows().unwrap();
        for mutant in mutate::mutants(&case.frame) {
            let outcome = host.run(case.program, &mutant.frame).unwrap();
            tally.note(&case.name, &mutant, mutate::check(case, &mutant, &outcome));
            host.restore(&flows).unwrap();
        }
    }
    tally.finish("on the host");
}

#[test]
fn kernel_agrees_about_every_mutant() {
    let image = world::image();
    let mut host = Host::new(image.clone());
    let mut kernel = Kernel::new(&image).unwrap();
    let mut tally = Tally::default();
    for case in cases::all() {
        check::prepare(&mut host, &image, case).unwrap();
        check::prepare(&mut kernel, &image, case).unwrap();
        let (host_flows, kernel_flows) = (host.flows().unwrap(), kernel.flows().unwrap());
        for mutant in mutate::mutants(&case.frame) {
            if !mutate::testable(case.program, &mutant.frame) {
                continue;
            }
            let on_host = host.run(case.program, &mutant.frame).unwrap();
            let on_kernel = kernel
                .run_expecting(case.program, &mutant.frame, Some(on_host.reason))
                .unwrap();
            let same = check::same(&case.name, case.program, &mutant.frame, &on_host, &on_kernel);
            tally.note(&case.name, &mutant, same);
            // Few mutants change the tables, and it is the kernel's that are slow to restore.
            let after = host.flows().unwrap();
            if after != host_flows {
                let kernel_after = kernel.flows().unwrap().timeless();
                assert!(
                    after.timeless() == kernel_after || check::depends_on_time(case),
                    "{}, {:?}: the flow tables differ",
                    case.name,
                    mutant.change
                );
                host.restore(&host_flows).unwrap();
                kernel.restore(&kernel_flows).unwrap();
            }
        }
        let (left, right) = (host.flows().unwrap().timeless(), kernel.flows().unwrap().timeless());
        assert!(
            left == right || check::depends_on_time(case),
            "{}: a mutant that changed no flow on the host did in the kernel",
            case.name
        );
        kernel.check_no_other_reason().unwrap();
    }
    assert_eq!(
        host.counts().unwrap(),
        kernel.counts().unwrap(),
        "host (left) and kernel (right) counted differently"
    );
    tally.finish("on the host and in the kernel");
}
