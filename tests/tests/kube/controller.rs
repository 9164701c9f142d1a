//! `weir controller`, with the rights it is delivered with: who gets which address, what is written, and who leads.

use crate::controlled::{Cluster, LABEL, pool, service, shown_and_recorded};
use anyhow::{Result, ensure};
use serde_json::json;
use tests::lab::wait;

/// [B04 B05 B09 B11 B16 B17 B18 B20 A14 A15 B25]
#[test]
fn b16_services_get_addresses_keep_them_and_give_them_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let in_pool = (LABEL, "pool");
    kubectl.apply(&format!(
        "{}{}{}{}{}",
        pool("10.10.1.0/24"),
        service("any", &[in_pool]),
        service("asks", &[in_pool, ("eip.openelb.kubesphere.io/v1alpha1", "10.10.1.99")]),
        service("nobody", &[]),
        "---\n{apiVersion: v1, kind: Service, metadata: {name: others}, spec: {type: LoadBalancer, ports: [{port: 80}]}}\n"
    ))?;
    let mut first = cluster.start("first")?;
    let any = cluster.shows("any", Some("10.10.1.0"))?;
    ensure!(any["metadata"]["labels"][LABEL] == "pool", "{any}");
    ensure!(
        any["metadata"]["finalizers"] == json!(["finalizer.lb.kubesphere.io/v1alpha1"]),
        "{any}"
    );
    cluster.shows("asks", Some("10.10.1.99"))?;
    let eip = cluster.records(&json!({"10.10.1.0": "default/any", "10.10.1.99": "default/asks"}))?;
    let status = &eip["status"];
    ensure!(
        status["poolSize"] == 256 && status["usage"] == 2 && status["occupied"] == false && status["v4"] == true,
        "{status}"
    );
    ensure!(
        status["firstIP"] == "10.10.1.0" && status["lastIP"] == "10.10.1.255",
        "{status}"
    );
    ensure!(
        eip["metadata"]["finalizers"] == json!(["finalizer.ipam.kubesphere.io/v1alpha1"]),
        "{eip}"
    );
    cluster.has_event("any", "Normal", "AssignIP", "10.10.1.0")?;
    cluster.has_event("nobody", "Warning", "ConstructRequest", "annotation")?;
    let others = cluster.shows("others", None)?;
    ensure!(others["metadata"].get("finalizers").is_none(), "{others}");

    // Another that would lead does, at once, when the first one is told to end; nobody's address changes.
    let mut second = cluster.start("second")?;
    ensure!(first.stop(wait::patience())?.success(), "{}", first.log());
    kubectl.run(&format!("annotate service nobody {LABEL}=pool"))?;
    cluster.shows("nobody", Some("10.10.1.1"))?;
    cluster.shows("any", Some("10.10.1.0"))?;

    // Deleted, or not ours any more.
    kubectl.run("delete service asks --timeout=60s")?;
    kubectl.run("annotate service any lb.kubesphere.io/v1alpha1-")?;
    cluster.shows("any", None)?;
    // It is struck from the book when nothing of ours is left on it, which is after it shows no address.
    cluster.records(&json!({"10.10.1.1": "default/nobody"}))?;
    let any = kubectl.get("service any")?;
    ensure!(any["metadata"]["labels"].get(LABEL).is_none(), "{any}");
    ensure!(any["metadata"].get("finalizers").is_none(), "{any}");
    ensure!(second.stop(wait::patience())?.success(), "{}", second.log());
    Ok(())
}

/// [B22 B24] Nothing changes for Services and Eips that OpenELB 0.6 has left, and nothing is written twice.
#[test]
fn b22_what_openelb_has_given_out_is_taken_over_as_it_is() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    cluster.is_left_by_openelb()?;
    kubectl.apply(&service("new", &[(LABEL, "pool")]))?;
    let before = kubectl.get("service old")?;
    let mut controller = cluster.start("only")?;
    cluster.shows("new", Some("10.10.1.0"))?;
    cluster.records(&json!({"10.10.1.0": "default/new", "10.10.1.7": "default/old"}))?;
    let after = kubectl.get("service old")?;
    let eip = kubectl.get("eip pool")?;
    ensure!(eip["status"]["ready"] == true, "what it does not write stays: {eip}");
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "{before}\n{after}"
    );
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

/// [G04 G06] Whoever leads or not, a controller says that it is ready, and of all one says that it leads.
#[test]
fn g04_controllers_say_whether_they_are_ready_and_who_leads() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "{}{}",
        pool("10.10.1.0/24"),
        service("web", &[(LABEL, "pool")])
    ))?;
    kubectl.run("delete crd eips.network.kubesphere.io")?;
    let mut first = cluster.start("first")?;
    wait::until("a word on what is missing", || {
        let refused = cluster.asks(9471, "/readyz").err();
        let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(
            refused.contains("503") && refused.contains("not read yet: eips") && refused.contains("NotServed"),
            "{refused}"
        );
        Ok(())
    })?;
    ensure!(cluster.asks(9471, "/healthz")? == "ok\n");

    cluster.control_plane.apply_definitions()?;
    kubectl.apply(&pool("10.10.1.0/24"))?;
    cluster.shows("web", Some("10.10.1.0"))?;
    let mut second = cluster.start_with("second", &["--metrics", "[::]:9481"])?;
    for port in [9471, 9481] {
        wait::until("readiness", || {
            ensure!(cluster.asks(port, "/readyz")? == "ok\n");
            Ok(())
        })?;
    }
    wait::until("metrics of the leader", || {
        let told = cluster.asks(9471, "/metrics")?;
        for line in [
            "weir_controller_leading 1\n",
            "weir_controller_services 1\n",
            "weir_controller_eip_addresses{eip=\"pool\"} 256\n",
            "weir_controller_eip_addresses_used{eip=\"pool\"} 1\n",
            "weir_controller_writes_total{action=\"record\",result=\"written\"} ",
        ] {
            ensure!(told.contains(line), "no {line} in {told}");
        }
        Ok(())
    })?;
    ensure!(cluster.asks(9481, "/metrics")?.contains("weir_controller_leading 0\n"));
    ensure!(first.stop(wait::patience())?.success(), "{}", first.log());
    wait::until("the other's leadership", || {
        let told = cluster.asks(9481, "/metrics")?;
        ensure!(
            told.contains("weir_controller_leading 1\n")
                && told.contains("weir_controller_lease_transitions_total 1\n"),
            "{told}"
        );
        Ok(())
    })?;
    ensure!(second.stop(wait::patience())?.success(), "{}", second.log());
    Ok(())
}

/// [G06] At rest nothing is asked for but that: whoever leads knows the version of its own Lease, and reads it only when another
/// has written it.
#[test]
fn g06_a_lease_is_renewed_by_one_request_each() -> Result<()> {
    /// Requests in a row that are renewals.
    const RENEWALS: usize = 5;
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "{}{}",
        pool("10.10.1.0/24"),
        service("web", &[(LABEL, "pool")])
    ))?;
    let _controller = cluster.start_with("only", &["--no-webhook"])?;
    cluster.shows("web", Some("10.10.1.0"))?;
    // A watch asks again by itself every few minutes.
    let asked = || -> Result<Vec<_>> {
        let mut asked = cluster.control_plane.asked()?;
        asked.retain(|request| request.account == "weir-controller" && request.verb != "watch");
        Ok(asked)
    };
    let rest = |from: usize| {
        wait::until("nothing but renewals", || {
            let asked = asked()?;
            let last = asked
                .get(from.max(asked.len().saturating_sub(RENEWALS))..)
                .unwrap_or_default();
            let renewals = last
                .iter()
                .filter(|it| it.verb == "patch" && it.resource == "leases" && it.code == 200);
            ensure!(renewals.count() == RENEWALS, "{last:?}");
            Ok(asked.len())
        })
    };
    let before = rest(0)?;
    kubectl.run("annotate lease -n weir-system weir-controller touched=once")?;
    rest(before)?;
    let since = asked()?.split_off(before);
    let of_lease = |verb: &str, code: u64| {
        let found = since
            .iter()
            .filter(|it| it.resource == "leases" && it.verb == verb && it.code == code);
        found.count()
    };
    ensure!(of_lease("patch", 409) == 1 && of_lease("get", 200) == 1, "{since:?}");
    let lease = kubectl.get("lease -n weir-system weir-controller")?;
    ensure!(
        lease["spec"]["holderIdentity"] == "only" && lease["spec"]["leaseTransitions"] == 0,
        "{lease}"
    );
    Ok(())
}

/// [B18 G06] What has gone from a book is given out when the Services have been listed once more: once for many, in pages, and
/// not again.
#[test]
fn b18_many_releases_are_few_lists_of_the_services() -> Result<()> {
    /// Services that have all the addresses there are, and then others.
    const SERVICES: usize = 64;
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/26"))?;
    let _controller = cluster.start_with("only", &["--no-webhook"])?;
    let all = |prefix: &str| -> String {
        (0..SERVICES)
            .map(|number| service(&format!("{prefix}{number}"), &[(LABEL, "pool")]))
            .collect()
    };
    let have = |prefix: &str| {
        wait::until("every Service to have an address", || {
            let now = shown_and_recorded(kubectl)?;
            let ours = now.keys().filter(|key| key.starts_with(&format!("default/{prefix}")));
            ensure!(ours.count() == SERVICES, "{now:?}");
            Ok(())
        })
    };
    let lists = || -> Result<usize> {
        let asked = cluster.control_plane.asked()?;
        let lists = asked
            .iter()
            .filter(|it| (&*it.account, &*it.verb, &*it.resource) == ("weir-controller", "list", "services"));
        let whole = lists.clone().find(|list| !list.uri.contains("limit="));
        ensure!(whole.is_none(), "{whole:?}");
        Ok(lists.count())
    };
    kubectl.apply(&all("a"))?;
    have("a")?;
    let before = lists()?;
    kubectl.apply(&all("b"))?;
    let gone: String = (0..SERVICES).map(|number| format!(" a{number}")).collect();
    kubectl.run(&format!("delete service --wait=false{gone}"))?;
    have("b")?;
    let after = lists()?;
    ensure!(
        before < after && after - before <= SERVICES / 4,
        "{before} lists before {SERVICES} releases, {after} after"
    );
    Ok(())
}

/// Who was asked to do nothing, as nobody may, does it as soon as it may.
#[test]
fn what_was_refused_is_tried_again() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let rights = kubectl.get("clusterrole weir-controller")?;
    let mut fewer = rights.clone();
    for rule in fewer["rules"].as_array_mut().into_iter().flatten() {
        if rule["resources"] == json!(["eips/status"]) {
            rule["verbs"] = json!(["get"]);
        }
    }
    kubectl.patch("clusterrole weir-controller", &json!({"rules": fewer["rules"]}))?;
    kubectl.apply(&format!(
        "{}{}",
        pool("10.10.1.0/24"),
        service("web", &[(LABEL, "pool")])
    ))?;
    let mut controller = cluster.start("only")?;
    wait::until("a refusal", || {
        let told = cluster.asks(9471, "/metrics")?;
        ensure!(
            told.contains("weir_controller_writes_total{action=\"record\",result=\"refused\"}"),
            "{told}"
        );
        Ok(())
    })?;
    // Nothing that it watches changes with its rights.
    kubectl.patch("clusterrole weir-controller", &json!({"rules": rights["rules"]}))?;
    cluster.shows("web", Some("10.10.1.0"))?;
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

/// One Service that the API server does not let be written is told so, and keeps nobody else from an address.
#[test]
fn one_that_may_not_be_written_holds_nobody_up() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "frozen"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["services"]},
            ]},
            "validations": [{"expression": "object.metadata.name != 'frozen'", "message": "it is frozen"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "frozen"}, "spec": {"policyName": "frozen", "validationActions": ["Deny"]},
    });
    kubectl.apply(&format!("{policy}\n---\n{binding}\n"))?;
    kubectl.apply(&format!(
        "{}{}",
        pool("10.10.1.0/24"),
        service("frozen", &[(LABEL, "pool")])
    ))?;
    wait::until("the policy", || {
        let allowed = kubectl.run("label service frozen tried=yes --dry-run=server").is_ok();
        ensure!(!allowed);
        Ok(())
    })?;
    let mut controller = cluster.start_with("only", &["--no-webhook"])?;
    cluster.has_event("frozen", "Warning", "AssignIPFailed", "it is frozen")?;
    for name in ["one", "two"] {
        kubectl.apply(&service(name, &[(LABEL, "pool")]))?;
        cluster.shows(name, Some(if name == "one" { "10.10.1.1" } else { "10.10.1.2" }))?;
    }
    // Allowed again, it gets what has been recorded for it.
    kubectl.run("delete validatingadmissionpolicybinding frozen")?;
    cluster.shows("frozen", Some("10.10.1.0"))?;
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}
