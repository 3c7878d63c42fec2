//! libFuzzer's entry; `TRIREME_FUZZ` names the target.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<&fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("TRIREME_FUZZ").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("TRIREME_FUZZ must name a target: not {name:?}"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
