//! The suite `kube`: thousands of Services in a real Kubernetes API, and what an agent and a controller make of them.

mod api;
mod figures;
mod stage;

pub use figures::{Report, Row};

use super::{
    cost::{Memory, cpu_seconds, idle, until},
    maps::{Maps, all},
    report::quantile,
};
use anyhow::{Context, Result, ensure};
use api::{Endpoint, Objects};
use stage::Stage;
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use weir::report;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    services: u32,
    endpoints: u32,
    changes: u32,
    /// Services created in a burst.
    burst: u32,
    /// Pods replaced in the rolling update.
    pods: u32,
    /// How long the requests at rest are counted.
    rest: Duration,
}

/// As many as a large cluster has.
pub const FULL: Effort = Effort {
    services: 5000,
    endpoints: 20,
    changes: 200,
    burst: 1000,
    pods: 500,
    rest: Duration::from_secs(60),
};
/// A tenth of it.
pub const QUICK: Effort = Effort {
    services: 500,
    endpoints: 20,
    changes: 20,
    burst: 100,
    pods: 40,
    rest: Duration::from_secs(10),
};

/// Between two replaced pods of the rolling update.
const PACE: Duration = Duration::from_millis(50);
/// Who writes nothing for so long is at rest.
const QUIET: Duration = Duration::from_secs(5);
/// Between two looks at all Services.
const ADDRESSES: Duration = Duration::from_millis(100);

/// Measures.
///
/// # Errors
/// When agent, controller or API server fail or take too long.
pub fn run(effort: Effort) -> Result<Report> {
    let stage = Stage::new(effort.services + effort.burst)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = stage
        .control_plane
        .namespace()
        .run(|| runtime.block_on(measure(&stage, effort)))?;
    Ok(Report::new(effort.services, effort.endpoints, rows))
}

async fn measure(stage: &Stage, effort: Effort) -> Result<Vec<Row>> {
    let objects = Objects::open(&stage.control_plane).await?;
    let run = Run { stage, objects, effort };
    let mut rows = Vec::new();
    let begun = Instant::now();
    run.objects.make_services((0..effort.services).map(name)).await?;
    // What the API server does by itself; the burst is to be seen beside it.
    let pace = f64::from(effort.services) / begun.elapsed().as_secs_f64();
    rows.push(Row::new("Services made a second, without a controller", pace, ""));
    let slices = (0..effort.services).map(|service| (name(service), run.endpoints(service)));
    run.objects.make_slices(slices).await?;

    let begun = Instant::now();
    let controller = stage.start_controller()?;
    run.addresses(effort.services).await?;
    rows.push(Row::new(
        "controller's start to an address for every Service",
        begun.elapsed().as_secs_f64(),
        "s",
    ));
    run.settle()?;
    let settled = begun.elapsed().saturating_sub(QUIET).as_secs_f64();
    rows.push(Row::new("controller's start to its last write", settled, "s"));

    let begun = Instant::now();
    let agent = stage.start_agent()?;
    let folder = stage.lab.state_directory(stage.node());
    let mut last = None;
    let (loaded, report) = until("the first report of something made true", || {
        // Reading one takes long, so each is read once.
        let written = fs::metadata(report::path(&folder)).ok()?.modified().ok()?;
        if last.replace(written) == Some(written) {
            return None;
        }
        let seen = begun.elapsed();
        let report = report::read(&folder).ok().flatten()?;
        report.waiting.is_none().then_some((seen, report))
    })?;
    let programmed = report.frontends.iter().filter(|frontend| frontend.id.is_some()).count();
    ensure!(
        programmed == effort.services as usize,
        "{programmed} of {} frontends are programmed at the first report; {:?}",
        effort.services,
        report.conditions.first()
    );
    idle(agent.id())?;
    rows.push(Row::new("agent's start to all programmed", loaded.as_secs_f64(), "s"));
    rows.push(Row::new("CPU of the agent for it", cpu_seconds(agent.id())?, "s"));
    memory(&mut rows, "agent after loading", agent.id())?;
    memory(&mut rows, "controller after loading", controller.id())?;

    let processes = [("agent", agent.id()), ("controller", controller.id())];
    run.settle()?;
    run.rest(&processes, &mut rows)?;
    run.changes(agent.id(), &mut rows).await?;
    run.rolling_update(&processes, &mut rows).await?;
    run.burst(&mut rows).await?;
    memory(&mut rows, "agent at the end", agent.id())?;
    memory(&mut rows, "controller at the end", controller.id())?;
    Ok(rows)
}

struct Run<'a> {
    stage: &'a Stage,
    objects: Objects,
    effort: Effort,
}

/// Name of Service number `service`.
fn name(service: u32) -> String {
    format!("many-{service}")
}

fn memory(rows: &mut Vec<Row>, whose: &str, process: u32) -> Result<()> {
    let memory = Memory::of(process)?;
    rows.push(Row::new(format!("memory of the {whose}, own"), memory.own, "MiB"));
    rows.push(Row::new(
        format!("memory of the {whose}, with maps and program"),
        memory.all,
        "MiB",
    ));
    rows.push(Row::new(
        format!("memory of the {whose}, the most so far"),
        memory.peak,
        "MiB",
    ));
    Ok(())
}

impl Run<'_> {
    fn endpoints(&self, service: u32) -> Vec<Endpoint<'_>> {
        (0..self.effort.endpoints)
            .map(|number| self.endpoint(service, number))
            .collect()
    }

    fn endpoint(&self, service: u32, number: u32) -> Endpoint<'_> {
        let first = u32::from(Ipv4Addr::new(10, 128, 0, 0));
        self.at(
            number,
            Ipv4Addr::from_bits(first + service * self.effort.endpoints + number),
        )
    }

    /// One on the node that endpoint `number` of a Service is on.
    fn at(&self, number: u32, address: Ipv4Addr) -> Endpoint<'_> {
        let nodes = &self.stage.lab.nodes;
        Endpoint {
            address,
            node: &nodes[number as usize % nodes.len()].name,
            terminating: false,
        }
    }

    /// Waits until that many Services have an address.
    async fn addresses(&self, count: u32) -> Result<BTreeMap<String, Ipv4Addr>> {
        let begun = Instant::now();
        loop {
            let addresses = self.objects.addresses().await?;
            if addresses.len() == count as usize {
                return Ok(addresses);
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(600),
                "{} of {count} Services have an address",
                addresses.len()
            );
            tokio::time::sleep(ADDRESSES).await;
        }
    }

    /// Waits until nobody writes anything but Leases any more, events included.
    fn settle(&self) -> Result<()> {
        let writes = || -> Result<usize> {
            let requests = self.stage.requests()?;
            let reads = [" get ", " list ", " watch "];
            let written = requests
                .iter()
                .filter(|(what, _)| !what.ends_with(" leases") && !reads.iter().any(|read| what.contains(read)));
            Ok(written.map(|(_, count)| count).sum())
        };
        let begun = Instant::now();
        let mut last = writes()?;
        loop {
            thread::sleep(QUIET);
            let now = writes()?;
            if now == last {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(600),
                "there is always something to write"
            );
            last = now;
        }
    }

    /// Requests and CPU while nothing happens.
    fn rest(&self, processes: &[(&str, u32)], rows: &mut Vec<Row>) -> Result<()> {
        let before = self.stage.requests()?;
        let cpu = used(processes)?;
        thread::sleep(self.effort.rest);
        let seconds = self.effort.rest.as_secs_f64();
        for ((whose, _), cpu) in processes.iter().zip(used_since(processes, &cpu)?) {
            rows.push(Row::new(
                format!("CPU of the {whose} at rest"),
                cpu / seconds * 100.0,
                "%",
            ));
        }
        requests(rows, "at rest", &before, &self.stage.requests()?, seconds);
        Ok(())
    }

    /// Replaces the first endpoint of one Service after the other, and looks for when no row leads to the old one any more.
    async fn changes(&self, agent: u32, rows: &mut Vec<Row>) -> Result<()> {
        let maps = Arc::new(Maps::open(&self.stage.lab.pin_directory(self.stage.node()))?);
        let frontends = maps.frontends()?;
        let addresses = self.objects.addresses().await?;
        let mut watch = self.objects.watch().await?;
        let [mut total, mut answered, mut told, mut mapped] = [const { Vec::new() }; 4];
        let cpu = cpu_seconds(agent)?;
        for change in 0..self.effort.changes {
            idle(agent)?;
            // Spread over all of them.
            let service = change * (self.effort.services / self.effort.changes);
            let vip = addresses
                .get(&name(service))
                .context("a Service has lost its address")?;
            let range = *frontends.get(vip).with_context(|| format!("{vip} has no frontend"))?;
            let old = self.endpoint(service, 0).address;
            let new = Ipv4Addr::new(10, 192, (change >> 8) as u8, change as u8);
            let owned: Vec<u32> = all(range)
                .filter(|&index| maps.owner(index).is_ok_and(|owner| owner == old))
                .collect();
            ensure!(!owned.is_empty(), "{old} has no row of {vip}");
            let mut endpoints = self.endpoints(service);
            endpoints[0] = self.at(0, new);

            let begun = Instant::now();
            let (looking, mut left) = (maps.clone(), owned);
            let look = thread::spawn(move || {
                until("the old endpoint to lose its rows", || {
                    left.retain(|&index| looking.owner(index).is_ok_and(|owner| owner == old));
                    left.is_empty().then(|| begun.elapsed())
                })
            });
            self.objects.set_endpoints(&name(service), &endpoints).await?;
            answered.push(begun.elapsed());
            api::told(&mut watch, &name(service), new).await?;
            let heard = begun.elapsed();
            let programmed = look.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let has_rows = all(range).any(|index| maps.owner(index).is_ok_and(|owner| owner == new));
            ensure!(has_rows, "{new} has no row of {vip}");
            total.push(programmed);
            told.push(heard);
            mapped.push(programmed.saturating_sub(heard));
        }
        let cpu = (cpu_seconds(agent)? - cpu) / f64::from(self.effort.changes) * 1e3;
        for (what, latencies) in [
            ("API write to map", &mut total),
            ("API write to answer", &mut answered),
            ("API write to another watch", &mut told),
            ("another watch to map", &mut mapped),
        ] {
            latencies.sort();
            let latencies: Vec<f64> = latencies.iter().map(|latency| latency.as_secs_f64() * 1e3).collect();
            for (quantile_name, share) in [("p50", 0.5), ("p99", 0.99), ("worst", 1.0)] {
                let value = quantile(&latencies, share);
                rows.push(Row::new(format!("one endpoint, {what}, {quantile_name}"), value, "ms"));
            }
        }
        rows.push(Row::new("changes measured", f64::from(self.effort.changes), ""));
        rows.push(Row::new("CPU of the agent for each, with its report", cpu, "ms"));
        Ok(())
    }

    /// Replaces pods of the last Services one after the other: the new one is ready and the old one ends, then that is gone.
    async fn rolling_update(&self, processes: &[(&str, u32)], rows: &mut Vec<Row>) -> Result<()> {
        let before = self.stage.requests()?;
        let cpu = used(processes)?;
        let begun = Instant::now();
        let Effort {
            pods,
            endpoints,
            services,
            ..
        } = self.effort;
        for (number, service) in (services - pods / endpoints..services).enumerate() {
            let mut current = self.endpoints(service);
            for place in 0..current.len() {
                let new = Ipv4Addr::new(10, 193, number as u8, place as u8);
                let new = self.at(place as u32, new);
                current[place].terminating = true;
                current.push(new);
                self.objects.set_endpoints(&name(service), &current).await?;
                tokio::time::sleep(PACE / 2).await;
                current.swap_remove(place);
                self.objects.set_endpoints(&name(service), &current).await?;
                tokio::time::sleep(PACE / 2).await;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        for (_, process) in processes {
            idle(*process)?;
        }
        rows.push(Row::new(
            "rolling update, changes of slices per second",
            f64::from(pods * 2) / seconds,
            "",
        ));
        for ((whose, _), cpu) in processes.iter().zip(used_since(processes, &cpu)?) {
            let what = format!("CPU of the {whose} during the rolling update");
            rows.push(Row::new(what, cpu / seconds * 100.0, "%"));
        }
        requests(
            rows,
            "during the rolling update",
            &before,
            &self.stage.requests()?,
            seconds,
        );
        Ok(())
    }

    /// Makes Services as fast as the API server takes them.
    async fn burst(&self, rows: &mut Vec<Row>) -> Result<()> {
        let Effort { services, burst, .. } = self.effort;
        let begun = Instant::now();
        let names = || (services..services + burst).map(name);
        self.objects.make_services(names()).await?;
        let made = begun.elapsed().as_secs_f64();
        self.addresses(services + burst).await?;
        let given = begun.elapsed().as_secs_f64();
        let what = |part: &str| format!("{burst} Services in a burst, {part}");
        rows.push(Row::new(what("first to last made"), made, "s"));
        rows.push(Row::new(what("made a second"), f64::from(burst) / made, ""));
        rows.push(Row::new(what("first made to all with addresses"), given, "s"));
        let begun = Instant::now();
        self.objects.delete_services(names()).await?;
        self.addresses(services).await?;
        let gone = begun.elapsed().as_secs_f64();
        rows.push(Row::new(what("first deleted to all gone"), gone, "s"));
        Ok(())
    }
}

/// CPU seconds of each so far.
fn used(processes: &[(&str, u32)]) -> Result<Vec<f64>> {
    processes.iter().map(|(_, process)| cpu_seconds(*process)).collect()
}

fn used_since(processes: &[(&str, u32)], before: &[f64]) -> Result<Vec<f64>> {
    let now = used(processes)?;
    Ok(now.iter().zip(before).map(|(now, before)| now - before).collect())
}

/// Requests by account, verb and resource.
type Requests = BTreeMap<String, usize>;

/// A row for each kind of request there was more of than before.
fn requests(rows: &mut Vec<Row>, when: &str, before: &Requests, after: &Requests, seconds: f64) {
    let mut all = 0;
    for (what, count) in after {
        let more = count - before.get(what).copied().unwrap_or(0);
        all += more;
        if more > 0 {
            let what = format!("requests {when}: {what}");
            rows.push(Row::new(what, more as f64 / seconds, "a second"));
        }
    }
    rows.push(Row::new(
        format!("requests {when}, all"),
        all as f64 / seconds,
        "a second",
    ));
}
