//! EndpointSlices: addresses behind a service. Rules: Kubernetes' discovery/v1 defaults and validation.

use super::Strategy;
use super::edit::{default, default_text, maps_in, read_list, read_maps, read_number, read_text};
use crate::Faults;
use objects::{Object, names};
use serde_json::Value;
use std::net::IpAddr;

/// The endpoint slices' strategy.
pub struct EndpointSlices;

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1000;

impl Strategy for EndpointSlices {
    fn default_fields(&self, object: &mut Object) {
        for port in maps_in(&mut object.body, "ports") {
            default(port, "name", "");
            default_text(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let kind = read_text(&object.body, "addressType");
        match kind {
            "" => faults.required("addressType", ""),
            kind if ADDRESS_TYPES.contains(&kind) => {}
            kind => faults.unsupported("addressType", kind, &ADDRESS_TYPES),
        }
        let count = read_list(&object.body, "endpoints").len();
        if count > ENDPOINTS_MAX {
            let detail = format!("must have at most {ENDPOINTS_MAX} items");
            faults.invalid("endpoints", &Value::from(count), &detail);
        }
        for (index, endpoint) in read_maps(&object.body, "endpoints") {
            check_addresses(endpoint, kind, &format!("endpoints[{index}]"), faults);
        }
        for (index, port) in read_maps(&object.body, "ports") {
            let number = read_number(port, "port").unwrap_or_default();
            for detail in port
                .get("port")
                .map(|_| names::port_number(number))
                .unwrap_or_default()
            {
                faults.invalid(
                    format!("ports[{index}].port"),
                    &Value::from(number),
                    &detail,
                );
            }
        }
    }

    fn validate_update(&self, object: &Object, old: &Object, faults: &mut Faults) {
        let kind = read_text(&object.body, "addressType");
        if kind != read_text(&old.body, "addressType") {
            faults.invalid_text("addressType", kind, "field is immutable");
        }
    }
}

fn check_addresses(endpoint: &super::edit::Members, kind: &str, field: &str, faults: &mut Faults) {
    let addresses = read_list(endpoint, "addresses");
    if addresses.is_empty() {
        faults.required(
            format!("{field}.addresses"),
            "must contain at least 1 address",
        );
    }
    for (index, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        let fits = match (kind, text.parse::<IpAddr>()) {
            ("IPv4", Ok(address)) => address.is_ipv4(),
            ("IPv6", Ok(address)) => address.is_ipv6(),
            ("FQDN", _) => names::dns1123_subdomain(text).is_empty(),
            ("IPv4" | "IPv6", Err(_)) => false,
            _ => true,
        };
        if !fits {
            let detail = format!("must be a valid {kind} address");
            faults.invalid_text(format!("{field}.addresses[{index}]"), text, &detail);
        }
    }
}
