//! Who may talk to the API server: kubeconfigs of the admin and of service accounts.

use super::{ControlPlane, Kubectl, certificates::Certificates};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How long tokens are good for; longer than any test.
const LIFE: &str = "24h";

pub(super) fn admin(folder: &Path, server: &str, certificates: &Certificates) -> Result<PathBuf> {
    let pair = &certificates.admin;
    let user = format!(
        "client-certificate: {}, client-key: {}",
        pair.certificate.display(),
        pair.key.display()
    );
    write(folder, "admin", server, certificates, &user)
}

fn write(folder: &Path, name: &str, server: &str, certificates: &Certificates, user: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.kubeconfig"));
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: lab, cluster: {{server: \"{server}\", certificate-authority: {authority}}}}}]\n\
         users: [{{name: {name}, user: {{{user}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: {name}}}}}]\n\
         current-context: lab\n",
        authority = certificates.authority.display()
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

impl ControlPlane {
    /// kubectl as a service account, by a token as a pod would have (TokenRequest), so with that account's rights alone. The
    /// account has to exist.
    ///
    /// # Errors
    /// When it does not.
    pub fn kubectl_as(&self, namespace: &str, account: &str) -> Result<Kubectl> {
        let token = self.token(namespace, account)?;
        let name = format!("{namespace}-{account}");
        let kubeconfig = write(
            self.directory(),
            &name,
            self.server(),
            self.certificates(),
            &format!("token: {token}"),
        )?;
        Kubectl::new(
            self.namespace(),
            &kubeconfig,
            &self.directory().join(format!("{name}-cache")),
        )
    }

    /// A token of a service account.
    pub(super) fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let token = self
            .kubectl()
            .run(&format!("create token {account} -n {namespace} --duration={LIFE}"))?;
        Ok(token.trim().to_owned())
    }
}
