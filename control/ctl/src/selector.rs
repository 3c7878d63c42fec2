//! The label selector by which an object chooses its pods.

use serde_json::Value;

/// The selector's text: of a workload's `spec.selector.matchLabels`, or of a Service's `spec.selector`.
pub fn of_object(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let labels = selector["matchLabels"]
        .as_object()
        .or_else(|| selector.as_object())?;
    let pairs: Option<Vec<String>> = labels
        .iter()
        .map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
        .collect();
    pairs
        .filter(|pairs| !pairs.is_empty())
        .map(|pairs| pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn workloads_and_services_select() {
        let workload =
            json!({"spec": {"selector": {"matchLabels": {"app": "web", "tier": "front"}}}});
        assert_eq!(of_object(&workload).as_deref(), Some("app=web,tier=front"));
        assert_eq!(
            of_object(&json!({"spec": {"selector": {"app": "web"}}})).as_deref(),
            Some("app=web")
        );
        assert_eq!(of_object(&json!({"data": {}})), None);
    }
}
