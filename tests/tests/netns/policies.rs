//! Who may connect, how often, and who stays where.

use crate::scene::{Scene, web};
use anyhow::{Context, Result, anyhow, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use tests::lab::{
    FAMILIES, Family, Node, Shape, address,
    address::vip,
    client,
    manifests::{DNS, Service},
    traffic, wait,
};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};
/// How long nothing has to come before it is taken for refused.
const SILENCE: Duration = Duration::from_millis(400);

const DENIED: &str = "lb.weir.dev/denied-source-ranges";

fn ranges(sources: &[IpAddr]) -> String {
    let ranges = sources.iter().map(|source| format!("\"{source}/{}\"", whole(*source)));
    format!("loadBalancerSourceRanges: [{}]", ranges.collect::<Vec<_>>().join(", "))
}

fn whole(address: IpAddr) -> u8 {
    address::host_length(Family::of(address))
}

/// Gives the client its second address of each family, which it uses only where it is told to.
fn second_client(scene: &Scene) -> Result<()> {
    let lines = FAMILIES.map(|family| {
        let (address, length) = (address::second_client(family), address::network_length(family));
        let flags = if family == Family::V6 {
            "nodad preferred_lft 0"
        } else {
            ""
        };
        format!("address add {address}/{length} dev eth0 {flags}\n")
    });
    scene.lab.client.ip_batch(&lines.concat())
}

/// Whether the Service `web` answers the client's address `source` over UDP.
fn answers_udp(scene: &Scene, source: IpAddr, family: Family) -> Result<bool> {
    scene.lab.client.run(|| {
        let socket = client::udp_socket_from(source, Scene::dns(family))?;
        socket.set_read_timeout(Some(SILENCE))?;
        Ok(client::ask_udp_again(&socket).is_ok())
    })
}

/// Whether it takes a connection from the client's own address.
fn answers_tcp(scene: &Scene, family: Family) -> Result<bool> {
    let connect = || Ok(TcpStream::connect_timeout(&Scene::http(family), SILENCE).is_ok());
    scene.lab.client.run(connect)
}

/// Waits until of the client's two addresses those are let in that `expected` says, over TCP and UDP.
fn let_in(scene: &Scene, family: Family, expected: [bool; 2]) -> Result<()> {
    wait::until("the right clients to be let in", || {
        let first = answers_udp(scene, address::client(family), family)?;
        let second = answers_udp(scene, address::second_client(family), family)?;
        let tcp = answers_tcp(scene, family)?;
        ensure!([first, second] == expected, "{family}: {first}, {second}");
        ensure!(tcp == expected[0], "{family}, TCP: {tcp}");
        Ok(())
    })
}

/// [C04] Also the older annotation, which OpenELB's users may have.
#[test]
fn source_ranges_let_in_whom_they_name_and_a_deny_list_keeps_out() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        second_client(scene)?;
        let put = |service: Service| scene.lab.apply("web.yaml", &service.with(scene.lab.pods()));
        let [first, second] = [address::client, address::second_client].map(|of| FAMILIES.map(of));
        put(web().with_spec(ranges(&first)))?;
        for family in FAMILIES {
            let_in(scene, family, [true, false])?;
            let refused = scene.status(scene.owner(family)?)?.reason("source_refused")?;
            ensure!(refused > 0, "{family}: nothing was refused");
        }
        put(web().with_spec(ranges(&second)))?;
        FAMILIES
            .iter()
            .try_for_each(|family| let_in(scene, *family, [false, true]))?;
        let both = [first, second].concat();
        let denied: Vec<_> = second.iter().map(ToString::to_string).collect();
        put(web().with_spec(ranges(&both)).annotated(DENIED, denied.join(",")))?;
        FAMILIES
            .iter()
            .try_for_each(|family| let_in(scene, *family, [true, false]))?;
        put(web().annotated(DENIED, format!("{},{}/64", first[0], first[1])))?;
        let_in(scene, Family::V4, [false, true])?;
        let_in(scene, Family::V6, [false, false])?;
        put(web().annotated(
            "service.beta.kubernetes.io/load-balancer-source-ranges",
            format!("{}/32", first[0]),
        ))?;
        let_in(scene, Family::V4, [true, false])?;
        let_in(scene, Family::V6, [false, false])?;
        put(web())?;
        FAMILIES
            .iter()
            .try_for_each(|family| let_in(scene, *family, [true, true]))
    })
}

/// [C04] A typo does not open what was to be closed, and is told.
#[test]
fn a_source_range_that_cannot_be_read_lets_nobody_in() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        second_client(scene)?;
        let own = address::client(Family::V4);
        let service = web().with_spec(format!("loadBalancerSourceRanges: [\"{own}/32\", \"10.99.0.3/33\"]"));
        scene.lab.apply("web.yaml", &service.with(scene.lab.pods()))?;
        let_in(scene, Family::V4, [true, false])?;
        let_in(scene, Family::V6, [false, false])?;
        let status = scene.status(&scene.lab.nodes[0])?;
        let condition = status.condition("Service", "web", "InvalidSourceRanges")?;
        ensure!(condition.field == "spec.loadBalancerSourceRanges[1]", "{condition:?}");
        status.condition("Service", "web", "NoSourceAllowed")?;
        scene.lab.apply(
            "web.yaml",
            &web()
                .annotated(DENIED, "192.0.2.0/24,10.99.0.256")
                .with(scene.lab.pods()),
        )?;
        FAMILIES
            .iter()
            .try_for_each(|family| let_in(scene, *family, [false, false]))
    })
}

/// The pods that answer the client's next connections.
fn pods(scene: &Scene, family: Family) -> Result<BTreeSet<String>> {
    Ok(traffic::spread(&scene.lab.client, Scene::http(family), 30)?
        .into_keys()
        .collect())
}

/// The one pod that answers all of them.
fn only_pod(scene: &Scene, family: Family) -> Result<String> {
    let pods = pods(scene, family)?;
    ensure!(pods.len() == 1, "{family}: one client at {pods:?}");
    pods.into_iter().next().context("no pod")
}

/// Fails unless `count` backends get new connections to the Service `web`.
fn serving_now(scene: &Scene, owner: &Node, family: Family, count: usize) -> Result<()> {
    let status = scene.status(owner)?;
    let backends = status.tcp(Scene::http(family))?.backends.iter();
    let serving = backends.filter(|backend| backend.state == "serving").count();
    ensure!(
        serving == count,
        "{family}: {serving} instead of {count} backends serve"
    );
    Ok(())
}

fn serving(scene: &Scene, owner: &Node, family: Family, count: usize) -> Result<()> {
    wait::until("the backends to serve", || serving_now(scene, owner, family, count))
}

/// [C03]
#[test]
fn a_client_with_affinity_stays_with_its_pod_until_it_was_away_for_the_time_out() -> Result<()> {
    const SECONDS: u64 = 4;
    // The last packets of connections that close count, too.
    const AWAY: Duration = Duration::from_secs(2 * SECONDS + 2);
    let sticky = || {
        web().with_spec("sessionAffinity: ClientIP").with_spec(format!(
            "sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {SECONDS}}}}}"
        ))
    };
    Scene::play(SHAPE, |scene| {
        scene.lab.apply("web.yaml", &sticky().with(scene.lab.pods()))?;
        for family in FAMILIES {
            let usual = wait::until("one pod for the client", || only_pod(scene, family))?;
            // Where this process is stopped for as long as the time-out, the client is away when it should not be: once more then.
            let other = wait::until("a machine that is not paused", || {
                // Away for long, and without its pod, the client goes to another one, where it stays when its pod is back.
                thread::sleep(AWAY);
                let others = scene.lab.pods().filter(|pod| pod.name != usual);
                scene.lab.apply("web.yaml", &sticky().with(others))?;
                let owner = scene.owner(family)?;
                serving(scene, owner, family, 5)?;
                let begun = Instant::now();
                let stay = Stay::begin(scene, family);
                ensure!(begun.elapsed().as_secs() < SECONDS, "begun in {:?}", begun.elapsed());
                let mut stay = match stay {
                    Ok(stay) => stay,
                    Err(spread) => return Ok(Err(spread)),
                };
                let gone = (stay.pod == usual).then(|| anyhow!("{family}: at {usual}, which is gone"));
                scene.lab.apply("web.yaml", &sticky().with(scene.lab.pods()))?;
                let back = wait::until("all pods to serve again", || {
                    stay.ask(scene)?;
                    serving_now(scene, owner, family, 6)
                });
                let stayed = back.and_then(|()| stay.ask(scene));
                ensure!(stay.longest.as_secs() < SECONDS, "away for {:?}", stay.longest);
                Ok(gone
                    .map_or(stayed, Err)
                    .and_then(|()| stay.check())
                    .with_context(|| format!("when {usual} came back"))
                    .map(|()| stay.pod))
            })??;
            thread::sleep(AWAY);
            ensure!(
                only_pod(scene, family)? == usual,
                "{family}: still at {other} after the time-out"
            );
        }
        Ok(())
    })
}

/// A client that stays with its pod, or does not.
struct Stay {
    family: Family,
    pod: String,
    /// Where it was instead.
    moved: Option<String>,
    /// When it was there last, and the longest time that it was not.
    last: Instant,
    longest: Duration,
}

impl Stay {
    fn begin(scene: &Scene, family: Family) -> Result<Self> {
        Ok(Self {
            family,
            last: Instant::now(),
            longest: Duration::ZERO,
            pod: only_pod(scene, family)?,
            moved: None,
        })
    }

    fn ask(&mut self, scene: &Scene) -> Result<()> {
        let begun = Instant::now();
        let pods = pods(scene, self.family)?;
        self.longest = self.longest.max(self.last.elapsed());
        self.last = begun;
        self.moved = self.moved.take().or(pods.into_iter().find(|pod| *pod != self.pod));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.moved.is_none(),
            "{}: moved from {} to {:?}",
            self.family,
            self.pod,
            self.moved
        );
        Ok(())
    }
}

/// Of no answer in [`SILENCE`], so many in a row are quiet: a machine that was paused meanwhile has its turn before the last.
const QUIET: usize = 4;

/// Sends `count` datagrams in a row and gives how many answers come until all have, or it is quiet.
fn answered(socket: &UdpSocket, count: usize) -> Result<usize> {
    let mut buffer = [0; 2048];
    let mut answers = 0;
    // Slow enough for the echo's buffer; the own one is emptied meanwhile.
    socket.set_read_timeout(Some(Duration::from_micros(500)))?;
    for _ in 0..count {
        socket.send(b"one of many")?;
        answers += usize::from(wait::uninterrupted(|| socket.recv(&mut buffer)).is_ok());
    }
    socket.set_read_timeout(Some(SILENCE))?;
    let mut quiet = 0;
    while answers < count && quiet < QUIET {
        match wait::uninterrupted(|| socket.recv(&mut buffer)) {
            Ok(_) => (answers, quiet) = (answers + 1, 0),
            Err(_) => quiet += 1,
        }
    }
    Ok(answers)
}

/// The most that a limit of `rate` lets in of what was sent since `begun`: a second's worth at once, then by time.
fn most(rate: usize, begun: Instant) -> usize {
    rate + (rate as f64 * begun.elapsed().as_secs_f64()).ceil() as usize + 1
}

fn bystander(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, 9), DNS)
}

#[test]
fn packets_beyond_a_services_limit_are_dropped_and_other_services_do_not_notice() -> Result<()> {
    const RATE: usize = 40;
    const MANY: usize = 200;
    Scene::play(SHAPE, |scene| {
        let limited = web().annotated("lb.weir.dev/packets-per-second", RATE);
        scene.lab.apply("web.yaml", &limited.with(scene.lab.pods()))?;
        let other = Service::new("other")
            .with_udp()
            .at(FAMILIES.map(|family| vip(family, 9)));
        scene.lab.apply("other.yaml", &other.with(scene.lab.pods()))?;
        for family in FAMILIES {
            wait::until("both Services", || {
                scene.lab.client.run(|| client::ask_udp(bystander(family)))?;
                let status = scene.status(scene.owner(family)?)?;
                ensure!(status.tcp(Scene::http(family))?.policy.limits.packets == Some(RATE as u32));
                Ok(())
            })?;
            // What was asked so far is used up no more after a second.
            thread::sleep(Duration::from_secs(2));
            let begun = Instant::now();
            let count = |address| scene.lab.client.run(|| answered(&client::udp_socket(address)?, MANY));
            let through = count(Scene::dns(family))?;
            ensure!(
                (RATE..=most(RATE, begun)).contains(&through),
                "{family}: {through} of {MANY} at {RATE} a second"
            );
            let dropped = scene.status(scene.owner(family)?)?.reason("packet_limit")?;
            ensure!(dropped as usize >= MANY - through, "{family}: {dropped} counted");
            let other = count(bystander(family))?;
            ensure!(
                other == MANY,
                "{family}: the other Service lost {} of {MANY}",
                MANY - other
            );
        }
        Ok(())
    })
}

#[test]
fn one_source_beyond_its_limit_leaves_the_others_alone() -> Result<()> {
    const RATE: usize = 20;
    Scene::play(SHAPE, |scene| {
        second_client(scene)?;
        let limited = web().annotated("lb.weir.dev/packets-per-second-per-source", RATE);
        scene.lab.apply("web.yaml", &limited.with(scene.lab.pods()))?;
        for family in FAMILIES {
            wait::until("the limit", || {
                let status = scene.status(scene.owner(family)?)?;
                ensure!(status.tcp(Scene::http(family))?.policy.limits.source_packets == Some(RATE as u32));
                Ok(())
            })?;
            let begun = Instant::now();
            let count = |source: IpAddr, many| {
                let socket = || client::udp_socket_from(source, Scene::dns(family));
                scene.lab.client.run(|| answered(&socket()?, many))
            };
            let through = count(address::client(family), 300)?;
            ensure!(
                (RATE..=most(RATE, begun)).contains(&through),
                "{family}: {through} of 300 at {RATE} a second"
            );
            let other = count(address::second_client(family), RATE)?;
            ensure!(other == RATE, "{family}: another source got {other} of {RATE} through");
        }
        Ok(())
    })
}

#[test]
fn new_flows_beyond_the_limit_are_dropped_and_those_that_are_there_go_on() -> Result<()> {
    const RATE: usize = 5;
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
            let mut open = wait::until("a connection", || {
                scene.lab.client.run(|| client::connect(Scene::http(family)))
            })?;
            let limited = web().annotated("lb.weir.dev/new-flows-per-second", RATE);
            scene.lab.apply("web.yaml", &limited.with(scene.lab.pods()))?;
            wait::until("the limit", || {
                let status = scene.status(scene.owner(family)?)?;
                ensure!(status.tcp(Scene::http(family))?.policy.limits.flows == Some(RATE as u32));
                Ok(())
            })?;
            thread::sleep(Duration::from_secs(2));
            let begun = Instant::now();
            let attempts: Vec<_> = (0..40)
                .map(|_| {
                    let namespace = scene.lab.client.clone();
                    thread::spawn(move || {
                        namespace.run(|| Ok(TcpStream::connect_timeout(&Scene::http(family), SILENCE)))
                    })
                })
                .collect();
            // Kept until the count, so that none is closed in between.
            let attempts: Vec<_> = attempts
                .into_iter()
                .map(|attempt| attempt.join().expect("no panic"))
                .collect();
            let through = attempts.iter().filter(|attempt| matches!(attempt, Ok(Ok(_)))).count();
            ensure!(
                (RATE..=most(RATE, begun)).contains(&through),
                "{family}: {through} of 40 at {RATE} a second"
            );
            ensure!(
                scene.status(scene.owner(family)?)?.reason("flow_limit")? > 0,
                "{family}: nothing counted"
            );
            scene
                .lab
                .client
                .run(|| (0..50).try_for_each(|_| client::ask_on(&mut open).map(drop)))?;
        }
        Ok(())
    })
}
