//! The keys and certificates of a control plane, made anew for each.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Files in PEM.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    /// Who signed all others.
    pub(super) authority: PathBuf,
    /// The API server's.
    pub(super) server: Pair,
    /// Of a person who may do everything.
    pub(super) admin: Pair,
    /// Signs the tokens of service accounts.
    pub(super) tokens: PathBuf,
    /// Tells whether a token is signed so.
    pub(super) tokens_public: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`, which is there; the server is known by each of `addresses`.
    pub(super) fn make(folder: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let names = [
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default.svc".to_owned(),
        ];
        let names: Vec<String> = names
            .into_iter()
            .chain(addresses.iter().map(IpAddr::to_string))
            .collect();

        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut admin = CertificateParams::default();
        admin.distinguished_name.push(DnType::CommonName, "admin");
        // The group that RBAC lets do everything.
        admin
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let tokens = KeyPair::generate()?;
        Ok(Self {
            authority: write(folder, "authority.crt", &authority.pem())?,
            server: sign(folder, "server", &server, &authority)?,
            admin: sign(folder, "admin", &admin, &authority)?,
            tokens: write(folder, "tokens.key", &tokens.serialize_pem())?,
            tokens_public: write(folder, "tokens.pub", &tokens.public_key_pem())?,
        })
    }
}

fn sign(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<Pair> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok(Pair {
        certificate: write(folder, &format!("{name}.crt"), &certificate.pem())?,
        key: write(folder, &format!("{name}.key"), &key.serialize_pem())?,
    })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
