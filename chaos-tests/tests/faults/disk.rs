//! A member's disk: what a loss of power takes and leaves, that it fills, that files are damaged.

use chaos::testbed::{Damage, Disk, PowerLoss, SECTOR, damage};
use std::fs::File;
use std::io::Write;

fn disk() -> (tempfile::TempDir, Disk) {
    chaos::kernel::own_mounts().expect("this needs root");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::create(folder.path(), "m1").expect("a loop image; this needs root");
    (folder, disk)
}

#[test]
fn power_loss_takes_what_was_not_synced_and_leaves_what_was() {
    let (_folder, mut disk) = disk();
    let path = disk.data().join("log");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&[1; 10_000]).expect("bytes");
    file.sync_all().expect("a sync");
    file.write_all(&[2; 10_000]).expect("bytes");
    let canaries = disk.set_canaries().expect("files");
    file.write_all(&[3; 10_000]).expect("bytes");
    disk.cut_power().expect("the kernel does it");
    assert!(file.sync_all().is_err(), "no power, no sync");
    drop(file);
    let loss = disk.power_on(&canaries).expect("the disk comes back");
    let expected = PowerLoss {
        kept_synced: true,
        lost_unsynced: true,
    };
    assert_eq!(loss, expected);
    let bytes = std::fs::read(&path).expect("the file is there");
    assert_eq!(&bytes[..10_000], &[1; 10_000]);
    assert!(!bytes.contains(&3), "what was never synced came back");
}

/// A mount namespace that is made while the disk is mounted would hold a copy of it.
#[test]
fn power_comes_back_whatever_namespaces_are_made_meanwhile() {
    // The thread of the other program, which the disk's namespace is not made by.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        asked.recv().expect("the disk is mounted");
        chaos::kernel::own_mounts().expect("this needs root");
        tell.send(()).expect("somebody waits");
        asked.recv().expect("the disk is back");
    });
    let (_folder, mut disk) = disk();
    let canaries = disk.set_canaries().expect("files");
    ask.send(()).expect("the other is there");
    told.recv().expect("a namespace is made");
    disk.cut_power().expect("the kernel does it");
    let loss = disk.power_on(&canaries).expect("the disk comes back");
    assert!(loss.kept_synced);
    ask.send(()).expect("the other is there");
    other.join().expect("it ends");
}

#[test]
fn a_full_disk_refuses_and_has_room_again() {
    let (_folder, disk) = disk();
    let before = disk.available().expect("a figure");
    assert!(disk.fill(0).expect("it fills") < 64 << 10);
    let mut file = File::create(disk.data().join("more")).expect("a name still fits");
    let error = file.write_all(&vec![7; 1 << 20]).expect_err("it is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.drain().expect("it drains");
    assert!(disk.available().expect("a figure") > before / 2);
    file.write_all(&vec![7; 1 << 20]).expect("there is room");
}

#[test]
fn files_are_cut_zeroed_and_flipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let read = || std::fs::read(&path).expect("the file");
    std::fs::write(&path, [0xff; 2000]).expect("a file");
    damage(&path, Damage::Cut { bytes: 100 }).expect("damage");
    assert_eq!(read().len(), 1900);
    damage(&path, Damage::ZeroSector { at: SECTOR }).expect("damage");
    assert_eq!(read().iter().filter(|byte| **byte == 0).count(), 512);
    assert_eq!(
        (read()[511], read()[512], read()[1023], read()[1024]),
        (255, 0, 0, 255)
    );
    damage(&path, Damage::FlipBit { at: 3, bit: 4 }).expect("damage");
    assert_eq!(read()[3], 0xef);
    let beyond = Damage::Cut { bytes: 5000 };
    assert!(damage(&path, beyond).is_err(), "there is less");
}
