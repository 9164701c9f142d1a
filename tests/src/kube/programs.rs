//! Where the programs of a control plane are: in the folder `KUBEBUILDER_ASSETS` names, else where `cargo xtask kube` builds
//! those that are not.

use anyhow::{Context, Result};
use std::{
    env,
    path::{Path, PathBuf},
};

/// The program called `name`: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-proxy` or `kubectl`.
///
/// # Errors
/// When it is in neither place; says how to get it.
pub fn program(name: &str) -> Result<PathBuf> {
    let given = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let own = env::current_exe().unwrap_or_default();
    // Up from `target/debug/deps` to `target`.
    let built = own
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("control-plane"));
    find(name, given.into_iter().chain(built)).with_context(|| {
        format!(
            "there is no {name}: `cargo xtask kube` builds the programs of a Kubernetes control plane, or KUBEBUILDER_ASSETS names a folder \
             that has them"
        )
    })
}

fn find(name: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_folder_that_has_it_counts() {
        let scratch = env::temp_dir().join(format!("weir-programs-{}", std::process::id()));
        let (first, second) = (scratch.join("first"), scratch.join("second"));
        fs::create_dir_all(first.join("etcd")).unwrap();
        fs::create_dir_all(&second).unwrap();
        fs::write(second.join("etcd"), "").unwrap();
        let folders = || [scratch.join("none"), first.clone(), second.clone()];
        // A folder of that name is no program.
        assert_eq!(find("etcd", folders()), Some(second.join("etcd")));
        assert_eq!(find("kubectl", folders()), None);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
