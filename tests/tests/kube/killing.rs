//! Controllers that are killed at any moment, between any two writes: no address is lost or given twice.

use crate::controlled::{Cluster, pool, service, shown};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};
use tests::{
    kube::Kubectl,
    lab::{process::Process, wait},
};

/// Addresses there are, and Services that would have one.
const ADDRESSES: usize = 8;
const SERVICES: usize = 12;
const KILLS: usize = 24;

/// Marsaglia's xorshift of 64 bits; the same sequence each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap_or_default()
    }
}

/// Those of the Services that show an address which are not being deleted: they are to keep it.
fn lasting(kubectl: &Kubectl, shown: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let services = kubectl.get("services")?;
    let mut lasting = shown.clone();
    for service in services["items"].as_array().into_iter().flatten() {
        let metadata = &service["metadata"];
        if !metadata["deletionTimestamp"].is_null() {
            lasting.remove(&format!("default/{}", metadata["name"].as_str().unwrap_or_default()));
        }
    }
    Ok(lasting)
}

fn check_not_doubled(shown: &BTreeMap<String, String>) -> Result<()> {
    let addresses: BTreeSet<_> = shown.values().collect();
    ensure!(addresses.len() == shown.len(), "{shown:?}");
    Ok(())
}

/// [B20 B24 G06]
#[test]
fn b24_controllers_killed_between_any_two_writes_lose_and_double_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let in_pool = |name: &str| service(name, &[("eip.openelb.kubesphere.io/v1alpha2", "pool")]);
    kubectl.apply(&pool("10.10.1.0/29"))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // Under one name, who comes after goes on with the Lease at once.
    let start = || cluster.start_with("leader", &["--no-webhook", "--metrics", "off"]);
    let mut controller: Process = start()?;
    let (mut before, mut kept, mut progress) = (BTreeMap::new(), BTreeMap::new(), 0);
    for round in 1.. {
        let names: Vec<String> = (0..3).map(|_| format!("s{}", random.below(SERVICES))).collect();
        // Deleting does not wait: nobody may be there to take the finalizer away.
        kubectl.run(&format!("delete service {} --ignore-not-found --wait=false", names[0]))?;
        // One that is being deleted may vanish while kubectl looks at it.
        let made: String = names[1..].iter().map(|name| in_pool(name)).collect();
        wait::until("Services to be made", || kubectl.apply(&made))?;
        // On a slow machine controllers need longer before they write anything.
        let longest = if progress * 4 < round { 1000 } else { 250 };
        thread::sleep(Duration::from_millis(random.below(longest) as u64));
        controller.kill()?;
        let now = shown(kubectl)?;
        check_not_doubled(&now)?;
        // Nobody but those who were deleted, now or earlier, has another address than before, or none.
        for (name, address) in &kept {
            let same = now.get(name) == Some(address);
            let deleted = *name == format!("default/{}", names[0]);
            ensure!(same || deleted, "{name} had {address}, has {:?}", now.get(name));
        }
        progress += usize::from(before != now);
        kept = lasting(kubectl, &now)?;
        before = now;
        controller = start()?;
        // Or most were killed before they had begun.
        if round >= KILLS && progress >= KILLS / 4 {
            break;
        }
        ensure!(round < 4 * KILLS, "something had changed {progress} times");
    }
    let all: String = (0..SERVICES).map(|index| in_pool(&format!("s{index}"))).collect();
    wait::until("all Services to be there", || kubectl.apply(&all))?;
    wait::until("every address to be given out, and recorded so", || {
        let now = shown(kubectl)?;
        check_not_doubled(&now)?;
        ensure!(now.len() == ADDRESSES, "{now:?}");
        let eip = kubectl.get("eip pool")?;
        let used: BTreeMap<String, String> = serde_json::from_value(eip["status"]["used"].clone())?;
        let recorded: BTreeMap<String, String> = used.into_iter().map(|(address, name)| (name, address)).collect();
        ensure!(recorded == now, "recorded {recorded:?}, shown {now:?}");
        ensure!(
            eip["status"]["occupied"] == true && eip["status"]["usage"] == ADDRESSES,
            "{}",
            eip["status"]
        );
        let services = kubectl.get("services")?;
        for service in services["items"].as_array().into_iter().flatten() {
            let has = service["status"]["loadBalancer"]["ingress"].is_array();
            ensure!(has == (service["metadata"]["finalizers"] != Value::Null), "{service}");
        }
        Ok(())
    })
}
