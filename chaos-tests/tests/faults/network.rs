//! The switch: what two machines measure of each other.

use chaos::tunswitch::{Network, Quality, REORDER_HOLD};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 7;

/// Does something on a machine of the network, in a thread that moves there.
fn on<T: Send + 'static>(
    network: &Network,
    machine: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = format!("/run/netns/{}", network.namespace(machine));
    std::thread::spawn(move || {
        let namespace = std::fs::File::open(&path).expect("a namespace");
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        work()
    })
}

fn two_machines() -> (Network, Ipv4Addr, Ipv4Addr) {
    let mut network = Network::create(7).expect("a network; this needs root");
    let a = network.add("a", 11).expect("a machine");
    let b = network.add("b", 12).expect("a machine");
    (network, a, b)
}

/// Answers every packet to `b` until one says so; returns what came, in order.
fn echo(network: &Network, address: Ipv4Addr) -> JoinHandle<Vec<u32>> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = on(network, "b", move || {
        let socket = UdpSocket::bind((address, PORT)).expect("an address");
        ready.send(()).expect("the test waits");
        let mut came = Vec::new();
        loop {
            let mut packet = [0; 4];
            let (_, from) = socket.recv_from(&mut packet).expect("a packet");
            let number = u32::from_be_bytes(packet);
            if number == u32::MAX {
                return came;
            }
            came.push(number);
            socket.send_to(&packet, from).expect("an answer goes out");
        }
    });
    is_ready.recv().expect("it listens");
    thread
}

/// Sends numbered packets from `a` and returns how long each took to come back, in order of sending.
fn ask(network: &Network, to: Ipv4Addr, packets: u32) -> Vec<Option<Duration>> {
    let asked = on(network, "a", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let wait = Duration::from_millis(100);
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        let mut took = Vec::new();
        for number in 0..packets {
            let sent = Instant::now();
            let to: SocketAddr = (to, PORT).into();
            socket.send_to(&number.to_be_bytes(), to).expect("a packet");
            let mut answer = [0; 4];
            took.push(loop {
                match socket.recv_from(&mut answer) {
                    Ok(_) if u32::from_be_bytes(answer) == number => break Some(sent.elapsed()),
                    Ok(_) => {}
                    Err(_) => break None,
                }
            });
        }
        took
    });
    asked.join().expect("the asking thread lives")
}

/// Sends packets from `a` without waiting for answers, then ends the echo; what came, in order.
fn pour(network: &Network, to: Ipv4Addr, packets: u32, echo: JoinHandle<Vec<u32>>) -> Vec<u32> {
    let poured = on(network, "a", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        for number in 0..packets {
            socket
                .send_to(&number.to_be_bytes(), (to, PORT))
                .expect("a packet");
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    poured.join().expect("the pouring thread lives");
    std::thread::sleep(REORDER_HOLD * 5);
    network.heal();
    let ended = on(network, "a", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let packet = u32::MAX.to_be_bytes();
        socket.send_to(&packet, (to, PORT)).expect("a packet");
    });
    ended.join().expect("the ending thread lives");
    echo.join().expect("the echo lives")
}

#[test]
fn a_delay_is_seen_in_the_round_trip_and_only_in_its_direction() {
    let (network, _, b) = two_machines();
    let echo = echo(&network, b);
    let plain = ask(&network, b, 20);
    let worst = plain.iter().flatten().max().expect("answers");
    assert!(plain.iter().all(Option::is_some) && *worst < Duration::from_millis(15));
    let delay = |millis| Quality {
        delay: Duration::from_millis(millis),
        ..Quality::default()
    };
    network.set("a", "b", delay(20)).expect("a link");
    network.set("b", "a", delay(30)).expect("a link");
    let late = ask(&network, b, 10);
    for took in &late {
        let took = took.expect("an answer");
        assert!(
            took >= Duration::from_millis(50) && took < Duration::from_millis(90),
            "{took:?}"
        );
    }
    assert_eq!(network.counts_of("a", "b").expect("a link").delayed, 10);
    pour(&network, b, 0, echo);
}

#[test]
fn packets_are_lost_at_the_rate_asked_for_and_a_cut_passes_none() {
    let (network, _, b) = two_machines();
    let echo_of_loss = echo(&network, b);
    let lossy = Quality {
        loss: 0.25,
        ..Quality::default()
    };
    network.set("a", "b", lossy).expect("a link");
    let came = pour(&network, b, 1000, echo_of_loss);
    assert!((680..820).contains(&came.len()), "{} of 1000", came.len());
    let lost = network.counts_of("a", "b").expect("a link").lost;
    assert_eq!(lost as usize, 1000 - came.len());

    let echo_of_cut = echo(&network, b);
    network.set("b", "a", Quality::cut()).expect("a link");
    assert_eq!(ask(&network, b, 5).iter().flatten().count(), 0);
    let came = pour(&network, b, 0, echo_of_cut);
    assert_eq!(came, [0, 1, 2, 3, 4], "one way stays open");
}

#[test]
fn packets_are_doubled_and_overtaken() {
    let (network, _, b) = two_machines();
    let doubling = Quality {
        duplication: 0.2,
        ..Quality::default()
    };
    let echo_of_doubles = echo(&network, b);
    network.set("a", "b", doubling).expect("a link");
    let came = pour(&network, b, 500, echo_of_doubles);
    assert!((550..660).contains(&came.len()), "{}", came.len());
    assert!(came.is_sorted());

    let reordering = Quality {
        reordering: 0.2,
        ..Quality::default()
    };
    let echo_of_reordered = echo(&network, b);
    network.set("a", "b", reordering).expect("a link");
    let came = pour(&network, b, 500, echo_of_reordered);
    assert_eq!(came.len(), 500);
    let overtaken = came.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 20, "{overtaken}");
}

#[test]
fn the_harness_reaches_machines_and_streams_pass_at_speed() {
    const BYTES: usize = 64 << 20;
    let (network, a, _) = two_machines();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = on(&network, "a", move || {
        let listener = TcpListener::bind((a, PORT)).expect("an address");
        ready.send(()).expect("the test waits");
        let (mut stream, from) = listener.accept().expect("a client");
        let mut buffer = vec![0; 1 << 20];
        let mut came = 0;
        while came < BYTES {
            came += stream.read(&mut buffer).expect("bytes");
        }
        stream.write_all(b"done").expect("an answer");
        from
    });
    is_ready.recv().expect("it listens");
    let began = Instant::now();
    let mut stream = TcpStream::connect((a, PORT)).expect("the machine is reached");
    stream.write_all(&vec![7; BYTES]).expect("bytes go out");
    stream.read_exact(&mut [0; 4]).expect("an answer");
    let rate = BYTES as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s");
    assert!(rate > 20.0, "{rate:.0} MB/s");
    let from = server.join().expect("the server lives");
    assert_eq!(from.ip(), network.host());
}
