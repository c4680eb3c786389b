//! JSON documents to be changed.

use serde_json::{Value, json};

/// Returns the object with one field changed, or taken out by the value `"removed"`.
pub(super) fn changed(mut object: Value, field: &str, value: Value) -> String {
    object[field] = value;
    object.as_object_mut().unwrap().retain(|_, value| *value != json!("removed"));
    object.to_string()
}
