//! The programs of a control plane and what each is told.

use super::{audit, certificates::Certificates, programs::program};
use crate::lab::{Namespace, process::Process};
use anyhow::Result;
use std::{net::IpAddr, path::Path};

/// Where the API server listens.
pub(super) const PORT: u16 = 6443;
/// Where etcd does.
pub(super) const ETCD_PORT: u16 = 2379;
/// Of the Services' cluster addresses, one of each family.
const CLUSTER_ADDRESSES: &str = "10.96.0.0/16,fd96::/108";
/// The cluster address of the API server.
pub(super) const OWN_CLUSTER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));
/// Who issues tokens; any name.
const ISSUER: &str = "https://kubernetes.default.svc";
/// What of the controller manager is always wanted: nothing that needs kubelets or a cloud.
pub(super) const CONTROLLERS: &str = "endpointslice-controller,endpointslice-mirroring-controller,namespace-controller,\
                           garbage-collector-controller,serviceaccount-controller";

/// In which namespace programs run and where they keep files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) directory: &'a Path,
}

impl Place<'_> {
    fn start(&self, name: &str, arguments: Vec<String>) -> Result<Process> {
        let mut command = self.namespace.command(&program(name)?.to_string_lossy());
        command.args(arguments).current_dir(self.directory);
        Process::start(command, name, &self.directory.join(format!("{name}.log")))
    }

    /// A store that forgets when the machine does: nothing here outlives a test.
    pub(super) fn etcd(&self) -> Result<Process> {
        let peers = "http://127.0.0.1:2380";
        let clients = format!("http://127.0.0.1:{ETCD_PORT}");
        self.start(
            "etcd",
            vec![
                format!("--data-dir={}", self.directory.join("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                "--unsafe-no-fsync=true".into(),
                "--log-level=warn".into(),
            ],
        )
    }

    /// The API server at `address`. No admission of service accounts, or pods could not be made by hand.
    pub(super) fn api_server(&self, address: IpAddr, certificates: &Certificates) -> Result<Process> {
        let audit = audit::arguments(self.directory)?;
        self.start(
            "kube-apiserver",
            Vec::from_iter(audit.into_iter().chain([
                format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
                "--bind-address=::".into(),
                format!("--advertise-address={address}"),
                format!("--secure-port={PORT}"),
                format!("--cert-dir={}", self.directory.display()),
                format!("--client-ca-file={}", certificates.authority.display()),
                format!("--tls-cert-file={}", certificates.server.certificate.display()),
                format!("--tls-private-key-file={}", certificates.server.key.display()),
                format!("--service-account-issuer={ISSUER}"),
                format!("--service-account-key-file={}", certificates.tokens_public.display()),
                format!("--service-account-signing-key-file={}", certificates.tokens.display()),
                format!("--service-cluster-ip-range={CLUSTER_ADDRESSES}"),
                "--authorization-mode=RBAC".into(),
                "--endpoint-reconciler-type=none".into(),
                "--disable-admission-plugins=ServiceAccount".into(),
                "--allow-privileged=true".into(),
            ])),
        )
    }

    /// Those of these names.
    pub(super) fn controllers(&self, names: &str, kubeconfig: &Path, certificates: &Certificates) -> Result<Process> {
        self.start(
            "kube-controller-manager",
            vec![
                format!("--kubeconfig={}", kubeconfig.display()),
                "--leader-elect=false".into(),
                "--secure-port=0".into(),
                format!("--service-account-private-key-file={}", certificates.tokens.display()),
                format!("--root-ca-file={}", certificates.authority.display()),
                format!("--controllers={names}"),
            ],
        )
    }
}
