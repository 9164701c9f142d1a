use super::*;
use std::time::Duration;
use tokio::time::timeout;

const EIP: &str =
    "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: pool}\nspec: {address: 10.1.0.0/24}\n";

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
    )
}

fn parsed(files: &[(&str, &str)]) -> Manifests {
    parse(
        &files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect::<Vec<_>>(),
    )
}

/// Names of everything that was read.
fn names(manifests: &Manifests) -> Vec<String> {
    let eips = manifests.cluster.eips.keys().cloned();
    eips.chain(manifests.cluster.services.keys().map(ToString::to_string))
        .collect()
}

fn faults(manifests: &Manifests) -> Vec<String> {
    manifests.cluster.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn documents_lists_and_json_are_read() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d", "namespace": "x"}, "spec": {"ports": [{"port": 1}]}}]}"#;
    let typed = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: e}\n";
    let many = format!(
        "# a comment\n---\n{EIP}--- # another\n{}\n---\n---\n{}...\n",
        service("a"),
        service("b")
    );
    let others = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\n";
    let manifests = parsed(&[
        ("a.yaml", &many),
        ("b.json", list),
        ("c.yml", typed),
        ("d.yaml", others),
    ]);
    assert_eq!(faults(&manifests), Vec::<String>::new());
    assert_eq!(
        names(&manifests),
        ["pool", "default/a", "default/b", "default/e", "x/d"]
    );
}

/// A04.
#[test]
fn the_older_version_is_read_as_the_newer() {
    let text = "
apiVersion: network.kubesphere.io/v1alpha1
kind: BgpConf
metadata: {name: default}
spec: {as: 65000, port: 17900, routerID: 10.0.0.1}
---
apiVersion: network.kubesphere.io/v1alpha1
kind: EipList
items:
- metadata: {name: old}
  spec: {address: 10.7.0.0/24, protocol: layer2}
---
apiVersion: network.kubesphere.io/v1alpha1
kind: BgpPeer
metadata: {name: router}
spec: {config: {peerAs: many}}
";
    let manifests = parsed(&[("a.yaml", text)]);
    let conf = &manifests.bgp_confs["default"].spec;
    assert_eq!(
        (conf.listen_port, conf.router_id.as_deref()),
        (Some(17900), Some("10.0.0.1"))
    );
    assert_eq!(manifests.cluster.eips["old"].address, "10.7.0.0/24");
    let faults = &manifests.cluster.faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].field, "spec.conf.peerAs");
}

#[test]
fn a_broken_document_costs_only_itself() {
    let text = format!(
        "{}---\nkind: [\n---\n{EIP}---\napiVersion: v1\nkind: Service\nmetadata: {{name: bad}}\nspec:\n  ports:\n  - port: many\n",
        service("a")
    );
    let manifests = parsed(&[("a.yaml", &text)]);
    assert_eq!(names(&manifests), ["pool", "default/a"]);
    let faults = &manifests.cluster.faults;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(faults[0].object.to_string(), "File a.yaml (document 2)");
    assert!(faults[0].message.starts_with("line "), "{}", faults[0].message);
    assert_eq!(
        (faults[1].object.name.as_str(), faults[1].field.as_str()),
        ("a.yaml (document 4)", "spec.ports[0].port")
    );
    assert!(faults[1].message.starts_with("line 18: "), "{}", faults[1].message);
}

#[test]
fn no_cut_or_flipped_text_is_too_much() {
    let text = format!(
        "{EIP}---\n{}# é\n",
        service("a").replace("{port: 80}", "{port: 80, targetPort: \"http\"}")
    );
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        parsed(&[("a.yaml", &text[..end]), ("b.json", &text[..end])]);
        for other in ["\t", "\u{0}", "-", "*a", "&a ", "!x ", "{", "\"", "---\n", "\u{feff}"] {
            parsed(&[("a.yaml", &format!("{}{other}{}", &text[..end], &text[end..]))]);
        }
    }
}

#[test]
fn what_is_no_object_is_said_to_be_none() {
    for text in [
        "just words",
        "- 1\n- 2\n",
        "a: 1\n",
        "kind: Service\nmetadata: {name: a}\n",
        "{",
        "apiVersion: v1\nkind: Service\n",
    ] {
        let manifests = parsed(&[("a.yaml", text)]);
        assert_eq!(
            manifests.cluster.faults.len(),
            1,
            "{text}: {:?}",
            manifests.cluster.faults
        );
        assert_eq!(manifests.cluster.faults[0].reason, "Unparsable");
    }
    for text in ["", "\n\n", "# nothing\n", "---\n---\n", "%YAML 1.2\n---\n"] {
        assert_eq!(faults(&parsed(&[("a.yaml", text)])), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn of_two_with_one_name_the_first_counts() {
    let other = EIP.replace("10.1", "10.2");
    for files in [
        [("a.yaml", EIP), ("b.yaml", &other)],
        [("b.yaml", &other), ("a.yaml", EIP)],
    ] {
        let manifests = parsed(&files);
        assert_eq!(manifests.cluster.eips["pool"].address, "10.1.0.0/24");
        let message = "Eip pool, metadata.name: Duplicate: it is defined in a.yaml (document 1) and again in b.yaml (document 1); the first \
                       counts. Remove one of the two.";
        assert_eq!(faults(&manifests), [message]);
    }
}

#[test]
fn values_no_api_server_would_take_are_left_out() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  type: LoadBalancer
  externalTrafficPolicy: local
  ipFamilies: [IPv4, IPv5]
  ports: [{port: 80}, {port: 70000}, {port: 81, protocol: tcp}, {port: 82, protocol: SCTP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1}
addressType: IPv4
endpoints: [{addresses: [pod]}, {addresses: [10.0.0.1]}]
ports: [{port: 8080}]
---
apiVersion: v1
kind: Node
metadata: {name: n}
status: {addresses: [{type: InternalIP, address: nowhere}, {type: InternalIP, address: 10.0.0.9}]}
";
    let manifests = parsed(&[("a.yaml", text)]);
    let at: Vec<_> = manifests
        .cluster
        .faults
        .iter()
        .map(|it| (it.field.as_str(), it.reason.as_str()))
        .collect();
    assert_eq!(
        at,
        [
            ("spec.ipFamilies[1]", "InvalidValue"),
            ("spec.externalTrafficPolicy", "InvalidValue"),
            ("spec.ports[1].port", "InvalidValue"),
            ("spec.ports[2].protocol", "InvalidValue"),
            ("metadata.labels", "NoService"),
            ("endpoints[0].addresses[0]", "InvalidValue"),
            ("status.addresses[0]", "InvalidValue"),
        ]
    );
    assert_eq!(manifests.cluster.nodes["n"].internal_addresses.len(), 1);
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-folder-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_gone_bad_is_served_as_it_was() {
    let scratch = Scratch::new("bad");
    scratch.write("a.yaml", &format!("{EIP}---\n{}", service("a")));
    scratch.write("b.yaml", &service("b"));
    scratch.write(".hidden.yaml", "{");
    scratch.write("notes.txt", "{");
    let mut folder = Folder::open(&scratch.0).unwrap();
    assert_eq!(names(&folder.read()), ["pool", "default/a", "default/b"]);

    scratch.write(
        "a.yaml",
        &format!("{EIP}---\n{}", service("a").replace("kind: ", "kind ")),
    );
    let manifests = folder.read();
    assert_eq!(names(&manifests), ["pool", "default/a", "default/b"]);
    assert_eq!(manifests.cluster.faults.len(), 1);
    assert!(
        manifests.cluster.faults[0]
            .message
            .ends_with("Served as last read until then: Service default/a.")
    );

    fs::write(scratch.0.join("b.yaml"), [0xff, 0xfe]).unwrap();
    let manifests = folder.read();
    assert_eq!(names(&manifests), ["pool", "default/a", "default/b"]);
    assert_eq!(manifests.cluster.faults.len(), 2);

    scratch.write("a.yaml", EIP);
    fs::remove_file(scratch.0.join("b.yaml")).unwrap();
    let manifests = folder.read();
    assert_eq!(
        (names(&manifests), faults(&manifests)),
        (vec!["pool".to_owned()], Vec::new())
    );

    fs::remove_dir_all(&scratch.0).unwrap();
    let manifests = folder.read();
    assert_eq!(names(&manifests), ["pool"]);
    assert_eq!(manifests.cluster.faults[0].reason, "Unparsable");
    assert!(Folder::open(&scratch.0).is_err());
}

/// Waits for one change, much longer than it takes.
async fn change(folder: &mut Folder) {
    timeout(Duration::from_secs(20), folder.changed())
        .await
        .expect("no change was noticed");
}

#[tokio::test]
async fn every_way_of_changing_a_file_is_noticed() {
    let scratch = Scratch::new("watch");
    let mut folder = Folder::open(&scratch.0).unwrap();
    assert_eq!(names(&folder.read()), Vec::<String>::new());

    scratch.write("a.yaml", EIP);
    change(&mut folder).await;
    assert_eq!(names(&folder.read()), ["pool"]);

    // Editors write beside the file and rename.
    scratch.write("a.yaml.new", &service("a"));
    fs::rename(scratch.0.join("a.yaml.new"), scratch.0.join("a.yaml")).unwrap();
    change(&mut folder).await;
    assert_eq!(names(&folder.read()), ["default/a"]);

    fs::remove_file(scratch.0.join("a.yaml")).unwrap();
    change(&mut folder).await;
    assert_eq!(names(&folder.read()), Vec::<String>::new());

    assert!(
        timeout(Duration::from_millis(300), folder.changed()).await.is_err(),
        "a change without one"
    );
}

#[tokio::test]
async fn a_swapped_link_is_noticed() {
    use std::os::unix::fs::symlink;
    // As the kubelet mounts a ConfigMap: files are links through `..data`, which is replaced by a rename.
    let scratch = Scratch::new("links");
    for (version, text) in [("..v1", EIP.to_owned()), ("..v2", service("a"))] {
        fs::create_dir(scratch.0.join(version)).unwrap();
        scratch.write(&format!("{version}/a.yaml"), &text);
    }
    symlink("..v1", scratch.0.join("..data")).unwrap();
    symlink("..data/a.yaml", scratch.0.join("a.yaml")).unwrap();
    let mut folder = Folder::open(&scratch.0).unwrap();
    assert_eq!(names(&folder.read()), ["pool"]);
    symlink("..v2", scratch.0.join("..next")).unwrap();
    fs::rename(scratch.0.join("..next"), scratch.0.join("..data")).unwrap();
    change(&mut folder).await;
    assert_eq!(names(&folder.read()), ["default/a"]);
}

#[tokio::test]
async fn a_folder_that_comes_back_is_watched_again() {
    let scratch = Scratch::new("back");
    scratch.write("a.yaml", EIP);
    let mut folder = Folder::open(&scratch.0).unwrap();
    folder.read();
    fs::remove_dir_all(&scratch.0).unwrap();
    change(&mut folder).await;
    assert_eq!(names(&folder.read()), ["pool"]);
    fs::create_dir(&scratch.0).unwrap();
    scratch.write("a.yaml", &service("a"));
    change(&mut folder).await;
    let mut manifests = folder.read();
    // The folder may have been seen before its file was.
    while names(&manifests) != ["default/a"] {
        change(&mut folder).await;
        manifests = folder.read();
    }
    assert_eq!(faults(&manifests), Vec::<String>::new());
}

fn slice(name: &str, service: &str, address: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
         endpoints: [{{addresses: [{address}], nodeName: n}}]\n---\n"
    )
}

/// Waits for changes until the folder says the same as one that is opened now.
async fn catch_up(folder: &mut Folder, scratch: &Scratch) -> Manifests {
    let expected = Folder::open(&scratch.0).unwrap().read();
    loop {
        change(folder).await;
        let manifests = folder.read();
        if manifests == expected {
            return manifests;
        }
    }
}

#[tokio::test]
async fn reading_what_has_changed_gives_what_reading_all_does() {
    let scratch = Scratch::new("parts");
    let file = |address: &str| service("a") + &slice("a-1", "a", address);
    scratch.write("a.yaml", &file("10.1.0.1"));
    scratch.write("b.yaml", &service("b"));
    let mut folder = Folder::open(&scratch.0).unwrap();
    folder.read();

    let steps: [(&str, String); 8] = [
        ("a.yaml", file("10.1.0.2")),
        ("b.yaml", service("b") + &slice("b-1", "b", "10.1.0.3")),
        ("a.yaml", file("10.1.0.4") + &service("b")),
        ("a.yaml", file("10.1.0.5") + &service("b")),
        ("b.yaml", slice("b-1", "b", "10.1.0.6")),
        ("a.yaml", file("nowhere") + &service("b")),
        ("a.yaml", service("a") + &slice("a-1", "b", "10.1.0.7")),
        ("c.yaml", "{".into()),
    ];
    for (name, text) in steps {
        scratch.write(name, &text);
        catch_up(&mut folder, &scratch).await;
    }
    fs::remove_file(scratch.0.join("c.yaml")).unwrap();
    let manifests = catch_up(&mut folder, &scratch).await;
    assert_eq!(faults(&manifests), Vec::<String>::new());
}

#[test]
fn endpoints_and_nodes_are_urgent_and_nothing_else_is() {
    let read = |text: &str| documents::parse_file("a.yaml", text);
    let node = |ready: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n}}\nstatus: {{conditions: [{{type: Ready, status: {ready}}}]}}\n"
        )
    };
    let before = read(&(service("a") + &slice("a-1", "a", "10.1.0.1") + &node("\"True\"")));
    let urgent = |text: String| read(&text).is_urgent_after(&before);
    assert!(urgent(
        service("a") + &slice("a-1", "a", "10.1.0.2") + &node("\"False\"")
    ));
    assert!(
        !urgent(service("a") + &slice("a-1", "a", "10.1.0.2")),
        "an object is gone"
    );
    assert!(
        !urgent(service("b") + &slice("a-1", "a", "10.1.0.2") + &node("\"True\"")),
        "another Service"
    );
    assert!(
        !urgent(service("a") + &slice("a-1", "b", "10.1.0.2") + &node("\"True\"")),
        "endpoints of another"
    );
    assert!(
        !urgent(service("a") + &slice("a-1", "a", "nowhere") + &node("\"True\"")),
        "something is wrong"
    );
}
