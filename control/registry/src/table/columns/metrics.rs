//! Lines of what nodes and pods use. Headings: those that `kubectl top` prints.

use super::{Column, NAME, shown, text};
use objects::Quantity;
use serde_json::{Value, json};

/// The columns of usages.
pub const USAGES: &[Column] = &[
    NAME,
    shown("Cpu", "Processor time, in cores.", |usage, _| {
        json!(total(usage, "cpu").map_or_else(String::new, |cpu| format!("{}m", cpu.milli())))
    }),
    shown("Memory", "The working set, in bytes.", |usage, _| {
        json!(
            total(usage, "memory")
                .map_or_else(String::new, |memory| format!("{}Ki", memory.units() / 1024))
        )
    }),
    shown("Window", "Over which time it was measured.", |usage, _| {
        json!(text::at(usage, "/window"))
    }),
];

/// A node's usage, or that of a pod's containers together.
fn total(usage: &Value, resource: &str) -> Option<Quantity> {
    let read = |usage: &Value| Quantity::parse(usage["usage"][resource].as_str()?).ok();
    match usage["containers"].as_array() {
        Some(containers) => containers.iter().filter_map(read).reduce(Quantity::plus),
        None => read(usage),
    }
}
