//! Counters of network interfaces, from the kernel's `net/dev`.

use std::fs;

use crate::types::Interface;

/// The interfaces of a process's network namespace, but the loopback; none of a process that is gone. Blocks on a small file.
pub fn interfaces(pid: i32) -> Vec<Interface> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// Two lines of headings, then `NAME: ` and 16 numbers: received bytes, packets, errors, drops, four more, and the same sent.
fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    let interfaces = text.lines().skip(2).filter_map(line);
    interfaces
        .filter(|interface| interface.name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_kernel_is_read() {
        let text = "Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1286      13    1    2    0     0          0         0     936       9    3    4    0     0       0          0
";
        let eth0 = Interface {
            name: "eth0".into(),
            rx_bytes: 1286,
            rx_packets: 13,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 936,
            tx_packets: 9,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(parse(text), [eth0]);
        assert!(parse("").is_empty());
    }
}
