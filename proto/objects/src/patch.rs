//! JSON patch (RFC 6902) and merge patch (RFC 7386), with the answers that Kubernetes gives when one cannot be applied.
//! Never checks the result: that is for the validation of the patched object.

use crate::{Cause, Reason, Status, StatusDetails};
use serde_json::Value;

/// As many operations as a JSON patch may have.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Why a patch was not applied; the value it was for is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch itself cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and does not fit the object: a failed test, a path that does not exist.
    #[error("{0}")]
    Inapplicable(String),
    /// More operations than [`JSON_PATCH_OPERATIONS_MAX`].
    #[error(
        "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {0}"
    )]
    TooManyOperations(usize),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(why) => Status::bad_request(why),
            PatchError::Inapplicable(why) => unprocessable(&why),
            PatchError::TooManyOperations(_) => {
                Status::failure(413, Reason::RequestEntityTooLarge, error.to_string())
            }
        }
    }
}

/// Applies a JSON patch: all of it, or nothing.
pub fn json_patch(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if let Value::Array(operations) = patch
        && operations.len() > JSON_PATCH_OPERATIONS_MAX
    {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let patch: json_patch::Patch = serde::Deserialize::deserialize(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut patched = document.clone();
    for operation in patch.0 {
        if !is_absence_confirmed(&patched, &operation) {
            let alone = json_patch::Patch(vec![operation]);
            json_patch::patch_unsafe(&mut patched, &alone)
                .map_err(|error| PatchError::Inapplicable(error.to_string()))?;
        }
    }
    *document = patched;
    Ok(())
}

/// Whether the operation tests for null where a map has no such member: to Kubernetes' library that is true, though RFC 6902 says
/// otherwise, and clients ask so whether a list is still absent before they add it (kube-rs its finalizers).
fn is_absence_confirmed(document: &Value, operation: &json_patch::PatchOperation) -> bool {
    let json_patch::PatchOperation::Test(test) = operation else {
        return false;
    };
    let path = test.path.as_str();
    let parent = path.rsplit_once('/').map(|(parent, _)| parent);
    let parent = parent.and_then(|parent| document.pointer(parent));
    test.value.is_null() && parent.is_some_and(Value::is_object) && document.pointer(path).is_none()
}

/// Applies a merge patch: null removes a member, a map merges, anything else replaces.
pub fn merge_patch(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(
            "a merge patch must be a JSON map".to_owned(),
        ));
    }
    json_patch::merge(document, patch);
    Ok(())
}

/// 422 as Kubernetes words a patch that could not be applied.
fn unprocessable(why: &str) -> Status {
    let message = "the server rejected our request due to an error in our request";
    let mut status = Status::failure(422, Reason::Invalid, message);
    status.details = Some(StatusDetails {
        causes: vec![Cause {
            reason: "UnexpectedServerResponse".to_owned(),
            message: why.to_owned(),
            field: String::new(),
        }],
        ..StatusDetails::default()
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_test_changes_nothing_and_answers_422() {
        let before = json!({"metadata": {"name": "a"}});
        let mut document = before.clone();
        let patch = json!([
            {"op": "add", "path": "/data", "value": {}},
            {"op": "test", "path": "/metadata/name", "value": "b"},
        ]);
        let error = json_patch(&mut document, &patch).expect_err("the test fails");
        assert_eq!(document, before);
        assert_eq!(Status::from(error).code, 422);
    }

    #[test]
    fn a_test_for_null_finds_what_is_absent() {
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/tidy"]},
        ]);
        let mut document = json!({"metadata": {"name": "a"}});
        json_patch(&mut document, &patch).expect("there are none yet");
        let patched = json!({"metadata": {"name": "a", "finalizers": ["example.com/tidy"]}});
        assert_eq!(document, patched);
        json_patch(&mut document, &patch).expect_err("now there are");
        assert_eq!(document, patched);
        let nowhere = json!([{"op": "test", "path": "/spec/a/b", "value": null}]);
        json_patch(&mut document, &nowhere).expect_err("there is nothing to look into");
    }

    #[test]
    fn unreadable_patches_answer_400() {
        let mut document = json!({});
        for patch in [
            json!({"op": "add"}),
            json!([{"op": "fly", "path": "/"}]),
            json!("x"),
        ] {
            let error = json_patch(&mut document, &patch).expect_err("malformed");
            assert_eq!(Status::from(error).code, 400);
        }
        let error = merge_patch(&mut document, &json!([])).expect_err("malformed");
        assert_eq!(Status::from(error).code, 400);
    }

    #[test]
    fn merge_removes_nulls() {
        let mut document = json!({"a": {"b": 1, "c": 2}});
        merge_patch(&mut document, &json!({"a": {"b": null, "d": 3}})).expect("applies");
        assert_eq!(document, json!({"a": {"c": 2, "d": 3}}));
    }
}
