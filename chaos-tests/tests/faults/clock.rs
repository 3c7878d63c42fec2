//! The clock of an unmodified program, moved and hurried.

use chaos::faketime::{self, Clock};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn run(clock: &Clock, program: &[&str]) -> String {
    let command = clock.command();
    let (first, args) = command.split_first().expect("a program");
    let output = Command::new(first)
        .args(args)
        .args(program)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn seconds(text: &str) -> i64 {
    text.parse().expect("a number")
}

#[test]
fn the_wall_clock_jumps_and_the_rate_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut clock = Clock::new(folder.path(), "m1").expect("libfaketime is installed");
    let now = || {
        let date = Command::new("date").arg("+%s").output().expect("date runs");
        seconds(String::from_utf8_lossy(&date.stdout).trim())
    };
    let apart = |clock: &Clock| seconds(&run(clock, &["date", "+%s"])) - now();
    assert!(apart(&clock).abs() <= 1);
    clock.jump(-60).expect("it jumps");
    assert!((-61..=-59).contains(&apart(&clock)));

    // A program that runs sees the next jump: three dates, a second and a half apart.
    clock.reset().expect("it is right again");
    let script = "date +%s; sleep 1.5; date +%s; sleep 1.5; date +%s; true";
    let command = clock.command();
    let shell = Command::new(&command[0])
        .args(&command[1..])
        .args(["sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let pid = shell.id();
    std::thread::sleep(Duration::from_millis(700));
    clock.jump(40).expect("it jumps");
    let output = shell.wait_with_output().expect("it ends");
    // The shell does not tidy up after the library.
    faketime::forget(pid);
    let dates: Vec<i64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(seconds)
        .collect();
    assert!(dates[1] - dates[0] >= 40, "{dates:?}");

    clock.set_rate(4.0).expect("a rate");
    let began = Instant::now();
    run(&clock, &["sleep", "2"]);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(clock.has_rate());
    assert!(!faketime::is_faked(std::process::id()));
}
