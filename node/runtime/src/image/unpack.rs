//! Unpacks a layer's archive into a folder that overlayfs takes as a lower folder.
//! No entry leaves the folder: every parent is opened by `openat2` with the folder as root, and the last component is
//! never followed. Whiteouts become overlayfs's own. Rules: OCI image spec, layer.md; kernel, overlayfs.rst.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use sha2::{Digest, Sha256};

/// A bomb of more bytes than this is refused.
const LAYER_BYTES_MAX: u64 = 64 << 30;

/// What was unpacked.
pub struct Unpacked {
    /// `sha256:…` of the uncompressed archive.
    pub diff_id: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Unpacks `archive` (plain, gzip or zstd) into `folder`, which must be empty.
pub fn unpack(archive: impl Read, folder: &Path) -> io::Result<Unpacked> {
    let root = File::open(folder)?.into();
    let mut hashed = Hashed {
        inner: decompress(archive)?.take(LAYER_BYTES_MAX),
        hash: Sha256::new(),
    };
    let mut layer = Layer {
        root,
        bytes: 0,
        folder_times: vec![],
    };
    {
        let mut tar = tar::Archive::new(&mut hashed);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
            layer.add(&path, &mut entry).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
    }
    layer.set_folder_times()?;
    // The digest covers the padding after the last entry.
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(Unpacked {
        diff_id: format!("sha256:{}", hex::encode(hashed.hash.finalize())),
        bytes: layer.bytes,
    })
}

/// Sees by the first bytes how an archive is compressed.
pub fn decompress<'a>(archive: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut archive = archive;
    let mut magic = vec![];
    archive.by_ref().take(4).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let zstd = magic == [0x28, 0xb5, 0x2f, 0xfd];
    let whole = io::Cursor::new(magic).chain(archive);
    Ok(if gzip {
        Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(whole)))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::new(whole)?)
    } else {
        Box::new(io::BufReader::new(whole))
    })
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

struct Layer {
    root: OwnedFd,
    bytes: u64,
    /// Set at the end: adding to a folder changes its time.
    folder_times: Vec<(PathBuf, u64)>,
}

/// Where an entry goes: its parent, opened, and its last component.
struct Place {
    parent: OwnedFd,
    name: OsString,
}

impl Layer {
    fn add<R: Read>(&mut self, path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let path = normalise(path)?;
        let Some(place) = self.place(&path)? else {
            return self.set_root(entry);
        };
        if let Some(hidden) = place.name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&place, hidden);
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                self.add_folder(&place, entry)?;
                self.folder_times
                    .push((path, entry.header().mtime().unwrap_or(0)));
                Ok(())
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.add_file(&place, entry)
            }
            tar::EntryType::Link => self.add_hard_link(&place, entry),
            tar::EntryType::Symlink => {
                clear(&place)?;
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| invalid("a symbolic link without a target"))?;
                fs::symlinkat(OsStr::from_bytes(&target), &place.parent, &place.name)?;
                finish(&place, entry)
            }
            tar::EntryType::Char => self.add_node(&place, entry, FileType::CharacterDevice),
            tar::EntryType::Block => self.add_node(&place, entry, FileType::BlockDevice),
            tar::EntryType::Fifo => self.add_node(&place, entry, FileType::Fifo),
            tar::EntryType::XGlobalHeader => Ok(()),
            other => Err(invalid(&format!("entries of type {other:?} are not known"))),
        }
    }

    /// Opens the parent, making what lacks. None for the root itself.
    fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let opened = match self.open(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                self.open(parent)?
            }
            other => other?,
        };
        Ok(Some(Place {
            parent: opened,
            name: name.to_os_string(),
        }))
    }

    fn open(&self, folder: &Path) -> io::Result<OwnedFd> {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(fs::openat2(
            &self.root,
            folder,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?)
    }

    fn make_parents(&self, folder: &Path) -> io::Result<()> {
        let mut done = PathBuf::new();
        for component in folder.components() {
            let parent = self.open(&done)?;
            done.push(component);
            match fs::mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_root<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        let (uid, gid) = owner(entry)?;
        fs::fchown(&self.root, Some(uid), Some(gid))?;
        fs::fchmod(&self.root, mode(entry)?)?;
        Ok(())
    }

    fn add_folder<R: Read>(
        &mut self,
        place: &Place,
        entry: &mut tar::Entry<'_, R>,
    ) -> io::Result<()> {
        match kind(place)? {
            Some(FileType::Directory) => {}
            Some(_) => clear(place)?,
            None => {}
        }
        match fs::mkdirat(&place.parent, &place.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        finish(place, entry)
    }

    fn add_file<R: Read>(
        &mut self,
        place: &Place,
        entry: &mut tar::Entry<'_, R>,
    ) -> io::Result<()> {
        clear(place)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(
            &place.parent,
            &place.name,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        self.bytes += io::copy(entry, &mut file)?;
        finish(place, entry)
    }

    fn add_hard_link<R: Read>(
        &mut self,
        place: &Place,
        entry: &tar::Entry<'_, R>,
    ) -> io::Result<()> {
        let target = entry
            .link_name_bytes()
            .ok_or_else(|| invalid("a hard link without a target"))?;
        let target = normalise(Path::new(OsStr::from_bytes(&target)))?;
        let source = self
            .place(&target)?
            .ok_or_else(|| invalid("a hard link to the root"))?;
        clear(place)?;
        fs::linkat(
            &source.parent,
            &source.name,
            &place.parent,
            &place.name,
            AtFlags::empty(),
        )?;
        Ok(())
    }

    fn add_node<R: Read>(
        &mut self,
        place: &Place,
        entry: &mut tar::Entry<'_, R>,
        kind: FileType,
    ) -> io::Result<()> {
        clear(place)?;
        let major = entry.header().device_major()?.unwrap_or(0);
        let minor = entry.header().device_minor()?.unwrap_or(0);
        fs::mknodat(
            &place.parent,
            &place.name,
            kind,
            mode(entry)?,
            fs::makedev(major, minor),
        )?;
        finish(place, entry)
    }

    fn set_folder_times(&self) -> io::Result<()> {
        for (path, seconds) in self.folder_times.iter().rev() {
            // A later entry may have replaced the folder.
            if let Ok(folder) = self.open(path) {
                fs::futimens(&folder, &times(*seconds))?;
            }
        }
        Ok(())
    }
}

/// Strips `/` and `.`, refuses `..`.
fn normalise(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid("the path leaves the layer"));
            }
        }
    }
    Ok(clean)
}

fn whiteout(place: &Place, hidden: &[u8]) -> io::Result<()> {
    if hidden == b".wh..opq" {
        fs::fsetxattr(
            &place.parent,
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )?;
        return Ok(());
    }
    // Other names that begin with .wh..wh. are AUFS's own.
    if hidden.starts_with(b".wh.") {
        return Ok(());
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(invalid("a whiteout without a name"));
    }
    // What this layer itself holds under the name stays: whiteouts hide lower layers only.
    match fs::mknodat(
        &place.parent,
        OsStr::from_bytes(hidden),
        FileType::CharacterDevice,
        Mode::empty(),
        fs::makedev(0, 0),
    ) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn kind(place: &Place) -> io::Result<Option<FileType>> {
    match fs::statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes what an entry replaces.
fn clear(place: &Place) -> io::Result<()> {
    match kind(place)? {
        None => Ok(()),
        Some(FileType::Directory) => std::fs::remove_dir_all(descriptor_path(place)),
        Some(_) => Ok(fs::unlinkat(&place.parent, &place.name, AtFlags::empty())?),
    }
}

/// A path of the place that cannot be redirected: its parent is named by descriptor.
fn descriptor_path(place: &Place) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}",
        place.parent.as_fd().as_raw_fd()
    ))
    .join(&place.name)
}

/// Owner, extended attributes, mode and time. The mode comes after the owner, which clears setuid.
fn finish<R: Read>(place: &Place, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    fs::chownat(
        &place.parent,
        &place.name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    for (name, value) in extended_attributes(entry)? {
        match fs::lsetxattr(
            descriptor_path(place),
            name.as_str(),
            &value,
            XattrFlags::empty(),
        ) {
            // The file system or the kernel may lack the attribute's kind; the file is usable without.
            Ok(())
            | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM | rustix::io::Errno::INVAL) =>
                {}
            Err(error) => return Err(error.into()),
        }
    }
    if !entry.header().entry_type().is_symlink() {
        fs::chmodat(&place.parent, &place.name, mode(entry)?, AtFlags::empty())?;
    }
    let modified = times(entry.header().mtime().unwrap_or(0));
    fs::utimensat(
        &place.parent,
        &place.name,
        &modified,
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(())
}

fn extended_attributes<R: Read>(
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = vec![];
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            // A layer must not speak overlayfs's own language: whiteouts are the way.
            if !name.starts_with("trusted.overlay.") {
                found.push((name.to_string(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(found)
}

fn owner<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<(Uid, Gid)> {
    let narrow = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| invalid("an owner is out of range"))
    };
    Ok((
        Uid::from_raw(narrow(entry.header().uid()?)?),
        Gid::from_raw(narrow(entry.header().gid()?)?),
    ))
}

fn mode<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(entry.header().mode()? & 0o7777))
}

fn times(seconds: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
