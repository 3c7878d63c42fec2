//! What strangers may send, as functions of bytes that a fuzzer calls: each panics when a promise is broken.
//!
//! The promises: no input panics; what is refused is refused by a `Status` with a code of the client's fault; what is taken can be read
//! back and written again. `run` fuzzes a target; `corpus/` holds inputs that reached far, and those that once broke something, and a test
//! replays them.

mod cluster;
mod expressions;
mod wire;
mod writes;

/// Something to fuzz.
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "paths",
        run: wire::paths,
    },
    Target {
        name: "selectors",
        run: wire::selectors,
    },
    Target {
        name: "certificates",
        run: wire::certificates,
    },
    Target {
        name: "tokens",
        run: wire::tokens,
    },
    Target {
        name: "cel",
        run: expressions::cel,
    },
    Target {
        name: "spdy",
        run: wire::spdy,
    },
    Target {
        name: "json",
        run: writes::json,
    },
    Target {
        name: "yaml",
        run: writes::yaml,
    },
    Target {
        name: "protobuf",
        run: writes::protobuf,
    },
    Target {
        name: "patches",
        run: writes::patches,
    },
];

/// A target by its name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
