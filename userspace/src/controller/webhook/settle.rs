//! Fields of BGP objects that were stored with the names of `v1alpha1`, as happens while nobody converts.

use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
};
use serde_json::{Value, json};
use tracing::{info, warn};
use weir_crds::{GROUP, convert::settle};

/// Gives them the names of `v1alpha2`, in all objects of a kind.
///
/// # Errors
///
/// When they cannot be listed, or the API server does not answer.
pub(super) async fn settle_all(client: &Client, kind: &str) -> Result<(), kube::Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha2", kind));
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    for mut object in api.list(&ListParams::default()).await? {
        object.types.get_or_insert_with(|| TypeMeta {
            api_version: resource.api_version.clone(),
            kind: kind.into(),
        });
        let Ok(before) = serde_json::to_value(&object) else {
            continue;
        };
        let settled = settle(before.clone());
        if settled == before {
            continue;
        }
        let name = object.metadata.name.unwrap_or_default();
        let patch = json!({
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "spec": merge(&before["spec"], &settled["spec"]),
        });
        info!("giving the fields of {kind} {name} the names of v1alpha2");
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {}
            // Somebody else has written it; or it says something else that is refused. It is tried again in time.
            Err(kube::Error::Api(status)) => warn!("{kind} {name} is not changed: {}", status.message),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `after` as a merge patch of `before`, in which only whole fields come and go.
fn merge(before: &Value, after: &Value) -> Value {
    let mut patch = after.clone();
    for key in before.as_object().into_iter().flat_map(|before| before.keys()) {
        if after.get(key).is_none() {
            patch[key] = Value::Null;
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_move_are_named_where_they_were() {
        let before = json!({"as": 1, "port": 17900});
        let after = json!({"as": 1, "listenPort": 17900});
        assert_eq!(
            merge(&before, &after),
            json!({"as": 1, "listenPort": 17900, "port": null})
        );
    }
}
