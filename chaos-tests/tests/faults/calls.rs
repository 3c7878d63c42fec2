//! System calls of an unmodified program (`dd`), failed and delayed.

use chaos::injector::{Calls, Effect, Injector, launch};
use nix::errno::Errno;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Writes 20 blocks of 4 KiB to a file and syncs it, under the injector.
fn dd(injector: &Injector, file: &Path) -> (Output, Duration) {
    let command = injector.command().expect("the launcher is found");
    let (launcher, args) = command.split_first().expect("a program");
    let began = Instant::now();
    let output = Command::new(launcher)
        .args(args)
        .args([
            "dd",
            "if=/dev/zero",
            "bs=4096",
            "count=20",
            "conv=fdatasync",
        ])
        .arg(format!("of={}", file.display()))
        .output()
        .expect("dd runs");
    (output, began.elapsed())
}

#[test]
fn syncs_and_writes_fail_or_wait_on_the_members_disk_alone() {
    let launcher = env!("CARGO_BIN_EXE_chaos");
    assert_eq!(
        launch::program().expect("the launcher is beside"),
        Path::new(launcher)
    );
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let injector = Injector::new(folder.path(), "m1", &disk).expect("an injector");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let (output, _) = dd(&injector, &disk.join("file"));
    assert!(output.status.success(), "{}", said(&output));
    assert!(injector.asked() >= 21, "{}", injector.asked());
    assert_eq!(injector.touched(), 0);

    injector.set(Calls::Sync, Effect::Fail(Errno::EIO));
    let (output, _) = dd(&injector, &disk.join("file"));
    assert!(!output.status.success());
    assert!(
        said(&output).contains("Input/output error"),
        "{}",
        said(&output)
    );
    // dd tries fsync where fdatasync failed.
    assert_eq!(injector.touched(), 2);
    let (output, _) = dd(&injector, &folder.path().join("elsewhere"));
    assert!(output.status.success(), "another disk: {}", said(&output));

    injector.set(Calls::Write, Effect::Fail(Errno::ENOSPC));
    let (output, _) = dd(&injector, &disk.join("file"));
    assert!(said(&output).contains("No space left"), "{}", said(&output));

    injector.set(Calls::Sync, Effect::Delay(Duration::from_millis(300)));
    let (output, took) = dd(&injector, &disk.join("file"));
    assert!(output.status.success(), "{}", said(&output));
    assert!(took >= Duration::from_millis(300), "{took:?}");

    drop(injector);
    let injector = Injector::new(folder.path(), "m1", &disk)
        .expect("a member that comes again under its name finds the place free");
    let touched = injector.touched();
    let (output, _) = dd(&injector, &disk.join("file"));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(injector.touched(), touched);
}
