//! Eips beside those that are followed: one that is about to be written, and all there are at this moment.

use super::{
    kinds::{self, eip_resource},
    records::Record,
};
use crate::source::objects::Object;
use kube::{Api, Client, api::ListParams, core::DynamicObject};
use serde_json::Value;
use std::collections::BTreeMap;
use weir_core::{controller::EipStatus, model::Eip};

/// An Eip as it is, or is to be, written.
#[derive(Clone, Debug)]
pub struct WrittenEip {
    /// `metadata.name`.
    pub name: String,
    /// What it says.
    pub eip: Eip,
    /// What is written into it.
    pub status: EipStatus,
}

/// Reads one of the API server's questions; `None` if it is none, or cannot be read.
#[must_use]
pub fn written_eip(object: &Value) -> Option<WrittenEip> {
    read(serde_json::from_value(object.clone()).ok()?)
}

/// All there are now, of those that can be read.
///
/// # Errors
///
/// As of the API server.
pub async fn eips(client: &Client) -> Result<BTreeMap<String, Eip>, kube::Error> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &eip_resource());
    let list = api.list(&ListParams::default()).await?;
    let eips = list.items.into_iter().filter_map(read);
    Ok(eips.map(|written| (written.name, written.eip)).collect())
}

fn read(object: DynamicObject) -> Option<WrittenEip> {
    let entry = kinds::eip(object);
    match (entry.object, entry.record) {
        (Some(Object::Eip(eip)), Some(Record::Eip(record))) => Some(WrittenEip {
            name: entry.identity.name,
            eip,
            status: record.status,
        }),
        _ => None,
    }
}
