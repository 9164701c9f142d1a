//! Who may talk to the API server: kubeconfigs of the admin and of service accounts.

use super::{ControlPlane, Kubectl, certificates::Certificates};
use anyhow::{Context, Result};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::symlink,
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

/// What a pod has of its ServiceAccount, in a folder that is changed as kubelet changes it: what is new is put beside what is
/// there, and one link is turned from that to this.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    authority: PathBuf,
    namespace: String,
    turns: u32,
}

impl Mounted {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes `token` its token.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn turn_to(&mut self, token: &str) -> Result<()> {
        self.turns += 1;
        let next = format!("..turn_{}", self.turns);
        let folder = self.folder.join(&next);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(folder.join("token"), token)?;
        fs::write(folder.join("namespace"), &self.namespace)?;
        fs::copy(&self.authority, folder.join("ca.crt"))?;
        symlink(&next, self.folder.join("..next"))?;
        fs::rename(self.folder.join("..next"), self.folder.join("..data"))?;
        if self.turns == 1 {
            for name in ["token", "namespace", "ca.crt"] {
                symlink(Path::new("..data").join(name), self.folder.join(name))?;
            }
            return Ok(());
        }
        fs::remove_dir_all(self.folder.join(format!("..turn_{}", self.turns - 1)))?;
        Ok(())
    }
}

impl ControlPlane {
    /// A token of a service account that is good for as long as the Secret `secret`, which is made, is there.
    ///
    /// # Errors
    /// When the account does not exist.
    pub fn token_bound_to(&self, namespace: &str, account: &str, secret: &str) -> Result<String> {
        let kubectl = self.kubectl();
        kubectl.run(&format!("create secret generic -n {namespace} {secret}"))?;
        let token = kubectl.run(&format!(
            "create token {account} -n {namespace} --bound-object-kind=Secret --bound-object-name={secret}"
        ))?;
        Ok(token.trim().to_owned())
    }

    /// The folder of a pod's ServiceAccount, with this token.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn mounted(&self, namespace: &str, name: &str, token: &str) -> Result<Mounted> {
        let mut mounted = Mounted {
            folder: self.directory().join(name),
            authority: self.certificates().authority.clone(),
            namespace: namespace.into(),
            turns: 0,
        };
        mounted.turn_to(token)?;
        Ok(mounted)
    }

    /// kubectl as a service account, by a token as a pod would have (TokenRequest), so with that account's rights alone. The
    /// account has to exist.
    ///
    /// # Errors
    /// When it does not.
    pub fn kubectl_as(&self, namespace: &str, account: &str) -> Result<Kubectl> {
        let token = self.token(namespace, account, None)?;
        self.with_token(&format!("{namespace}-{account}"), &token)
    }

    /// The same by the token of a pod on `node`.
    ///
    /// # Errors
    /// When the account does not exist.
    pub fn kubectl_on(&self, namespace: &str, account: &str, node: &str) -> Result<Kubectl> {
        let token = self.token(namespace, account, Some(node))?;
        self.with_token(&format!("{namespace}-{account}-{node}"), &token)
    }

    fn with_token(&self, name: &str, token: &str) -> Result<Kubectl> {
        let kubeconfig = write(
            self.directory(),
            name,
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

    /// A token of a service account; with a node it is bound to a pod there, which is made, and says which node that is.
    pub(super) fn token(&self, namespace: &str, account: &str, node: Option<&str>) -> Result<String> {
        let mut line = format!("create token {account} -n {namespace} --duration={LIFE}");
        if let Some(node) = node {
            let name = format!("{account}-{node}");
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "nodeName": node,
                    "serviceAccountName": account,
                    "containers": [{"name": "agent", "image": "weir"}],
                },
            });
            self.kubectl().apply(&format!("{pod}\n"))?;
            line += &format!(" --bound-object-kind=Pod --bound-object-name={name}");
        }
        Ok(self.kubectl().run(&line)?.trim().to_owned())
    }
}
