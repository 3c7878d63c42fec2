//! Who a container runs as: the pod's wish, else the image's `USER`, looked up in the image's own passwd and group files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};
use crate::types::Security;

/// A passwd file is not longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Reads a file of a root file system without ever leaving it by a link. None if it is not there.
pub(crate) fn read_in_root(root: &Path, path: &str) -> Option<String> {
    let folder = File::open(root).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat2(&folder, path, flags, Mode::empty(), resolve).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Decides on the user. `passwd` and `group` are the image's files, empty where it has none.
pub(crate) fn resolve(
    security: &Security,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<User> {
    let (name, image_group) = match image_user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (image_user, None),
    };
    let (uid, primary, login) = match security.run_as_user {
        Some(uid) => {
            let entry = passwd_entries(passwd).find(|entry| entry.uid == uid);
            (
                uid,
                entry.as_ref().map(|entry| entry.gid),
                entry.map(|entry| entry.name),
            )
        }
        None => image_uid(name, passwd)?,
    };
    let gid = match (security.run_as_group, image_group) {
        (Some(gid), _) => gid,
        (None, Some(wanted)) if security.run_as_user.is_none() => image_gid(wanted, group)?,
        (None, _) => primary.unwrap_or(0),
    };
    if security.run_as_non_root && uid == 0 {
        let message = match (security.run_as_user, name.is_empty()) {
            (None, true) => {
                "container has runAsNonRoot and image will run as root; set runAsUser or give the image a USER"
            }
            _ => "container's runAsUser breaks non-root policy: it is 0; set another user",
        };
        return Err(Error::Config(message.into()));
    }
    let mut groups = vec![gid];
    if let Some(login) = login {
        groups.extend(member_of(&login, group));
    }
    groups.extend(&security.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups })
}

struct Login {
    name: String,
    uid: u32,
    gid: u32,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Login> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_string();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Login { name, uid, gid })
    })
}

fn image_uid(name: &str, passwd: &str) -> Result<(u32, Option<u32>, Option<String>)> {
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let found =
        passwd_entries(passwd).find(|entry| entry.name == name || number == Some(entry.uid));
    match (found, number) {
        (Some(entry), _) => Ok((entry.uid, Some(entry.gid), Some(entry.name))),
        (None, Some(uid)) => Ok((uid, None, None)),
        (None, None) => Err(Error::Config(format!(
            "unable to find user {name}: no matching entries in passwd file; set runAsUser"
        ))),
    }
}

fn image_gid(name: &str, group: &str) -> Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let entry = group
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    entry
        .and_then(|line| line.split(':').nth(2)?.parse().ok())
        .ok_or_else(|| {
            Error::Config(format!(
                "unable to find group {name}: no matching entries in group file; set runAsGroup"
            ))
        })
}

fn member_of(login: &str, group: &str) -> Vec<u32> {
    let lines = group.lines().filter(|line| {
        line.split(':')
            .nth(3)
            .is_some_and(|members| members.split(',').any(|member| member == login))
    });
    lines
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\n";

    fn check(security: Security, image_user: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let result = resolve(&security, image_user, PASSWD, GROUP);
        match (result, expected) {
            (Ok(user), Ok((uid, gid, groups))) => assert_eq!(
                (user.uid, user.gid, user.groups.as_slice()),
                (uid, gid, groups),
                "{image_user}"
            ),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, expected) => panic!("{image_user}: {result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn users_of_images_and_pods() {
        check(Security::default(), "", Ok((0, 0, &[0])));
        check(Security::default(), "web", Ok((101, 102, &[102, 200])));
        check(Security::default(), "101", Ok((101, 102, &[102, 200])));
        check(Security::default(), "5000", Ok((5000, 0, &[0])));
        check(Security::default(), "web:logs", Ok((101, 200, &[200])));
        check(Security::default(), "7:8", Ok((7, 8, &[8])));
        check(
            Security::default(),
            "nobody",
            Err("unable to find user nobody"),
        );
        check(
            Security::default(),
            "web:none",
            Err("unable to find group none"),
        );
        let user = |uid| Security {
            run_as_user: Some(uid),
            ..Default::default()
        };
        check(user(101), "root", Ok((101, 102, &[102, 200])));
        check(user(3000), "web:logs", Ok((3000, 0, &[0])));
        check(
            Security {
                run_as_group: Some(9),
                supplemental_groups: vec![3, 9],
                ..user(1)
            },
            "",
            Ok((1, 9, &[3, 9])),
        );
        let non_root = Security {
            run_as_non_root: true,
            ..Default::default()
        };
        check(non_root.clone(), "", Err("image will run as root"));
        check(non_root.clone(), "web", Ok((101, 102, &[102, 200])));
        check(
            Security {
                run_as_user: Some(0),
                ..non_root
            },
            "web",
            Err("breaks non-root policy"),
        );
    }
}
