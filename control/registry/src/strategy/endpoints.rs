//! Endpoints: the addresses behind a service, as they were told before endpoint slices. Rules: Kubernetes' core/v1 defaults
//! and validation.

use super::Strategy;
use super::check::one_of;
use super::edit::{Members, default_text, maps_in, read_list, read_maps, read_number, read_text};
use crate::Faults;
use objects::{Object, names};
use serde_json::Value;
use std::net::IpAddr;

/// The endpoints' strategy.
pub struct Endpoints;

impl Strategy for Endpoints {
    fn default_fields(&self, object: &mut Object) {
        for subset in maps_in(&mut object.body, "subsets") {
            for port in maps_in(subset, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        for (index, subset) in read_maps(&object.body, "subsets") {
            let field = format!("subsets[{index}]");
            let lists = ["addresses", "notReadyAddresses"];
            if lists.iter().all(|list| read_list(subset, list).is_empty()) {
                faults.required(&field, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in lists {
                for (index, address) in read_maps(subset, list) {
                    check_address(address, &format!("{field}.{list}[{index}]"), faults);
                }
            }
            let several = read_list(subset, "ports").len() > 1;
            for (index, port) in read_maps(subset, "ports") {
                check_port(port, several, &format!("{field}.ports[{index}]"), faults);
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }
}

fn check_address(address: &Members, field: &str, faults: &mut Faults) {
    let ip = read_text(address, "ip");
    let field = format!("{field}.ip");
    match ip.parse::<IpAddr>() {
        Err(_) => {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid_text(field, ip, detail);
        }
        Ok(ip) if ip.is_unspecified() || ip.is_loopback() => {
            let detail = "may not be in the loopback range or unspecified (127.0.0.0/8, ::1/128, 0.0.0.0, ::)";
            faults.invalid_text(field, &ip.to_string(), detail);
        }
        Ok(_) => {}
    }
}

fn check_port(port: &Members, several: bool, field: &str, faults: &mut Faults) {
    match read_text(port, "name") {
        "" if several => faults.required(format!("{field}.name"), ""),
        "" => {}
        name => faults.invalid_texts(format!("{field}.name"), name, &names::dns1123_label(name)),
    }
    let number = read_number(port, "port").unwrap_or_default();
    for detail in names::port_number(number) {
        faults.invalid(format!("{field}.port"), &Value::from(number), &detail);
    }
    one_of(port, "protocol", field, &["SCTP", "TCP", "UDP"], faults);
}
