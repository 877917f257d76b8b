//! The file system on which servers run: it keeps everything in memory and in a log, and can fail or stop at any operation.
//!
//! ```text
//!   server ──▶ kernel ──▶ Mount (fuser) ──▶ gate: cut here? fail here? ──▶ Disk::apply ──▶ log ◀── notes of the clients
//! ```
//!
//! The log holds operations and the clients' notes in one order: what a note tells of had happened before every operation that
//! stands behind it, since both are written under one lock. Nothing is cached by the kernel (direct I/O, no
//! time to live), so every call of the server is an operation here before it returns.
//!
//! A cut stops the file system: the operation that meets it, and all that follow, wait until [`Mount::let_die`]; by then the
//! server was killed, and the answer reaches nobody.
//!
//! **Invariants.** An operation that is refused changes nothing. What is read is `Disk`'s *current*. Locks (`flock`) are the
//! kernel's. Deliberately absent: permissions, times, links, mapped files for writing.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use tenfold_checker::history::{Record, TEST};

use crate::disk::{Disk, Image, Inode, Operation};
use crate::story::Note;

/// The kernel asks every time.
const NO_TIME: Duration = Duration::ZERO;

/// How large a disk claims to be, in blocks of 4 KiB.
const BLOCKS: u64 = 1 << 20;

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Operation(Operation),
    Note(Note),
}

/// How a disk breaks. Writes and syncs are counted from when it is set, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The n-th write or sync, and all after it, fail.
    Dead { nth: u64 },
    /// The n-th write or sync fails; all others work.
    Once { nth: u64 },
    /// The n-th write writes only half, and is the last for which there is room.
    Short { nth: u64 },
    /// From the n-th write on there is no room, for so many writes; then there is again.
    Full { nth: u64, writes: u64 },
    /// The n-th sync fails and what it was to write is lost; the next one says that all is well.
    LostSync { nth: u64 },
}

/// What has become of a fault.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    writes: u64,
    syncs: u64,
}

struct State {
    disk: Disk,
    log: Vec<Entry>,
    /// Operations in the log.
    operations: u64,
    cut_at: Option<u64>,
    power: Power,
    parked: Vec<Box<dyn FnOnce() + Send>>,
    fault: Option<Fault>,
    /// Whether the system may answer reads from its memory, and go on to after the disk has lost what is there.
    cached: bool,
    counted: Counted,
    /// Where in the log the fault was first felt, and by what.
    failed_at: Option<(usize, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// The cut is here; whoever comes waits.
    Off,
    /// Nobody who could hear it is alive; whoever comes is turned away.
    Dying,
}

/// What happens to an operation.
enum Fate {
    Done,
    Fails(Errno),
    /// Only so many bytes.
    Short(usize),
    SyncFails,
}

struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mount {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    point: PathBuf,
}

/// Appends what clients do and see to the log.
#[derive(Clone)]
pub(crate) struct Notes(Arc<Shared>);

impl Notes {
    pub(crate) fn write(&self, note: Note) {
        self.write_all([note]);
    }

    /// Several that stay together, whatever others write meanwhile.
    pub(crate) fn write_all(&self, notes: impl IntoIterator<Item = Note>) {
        self.0.lock().log.extend(notes.into_iter().map(Entry::Note));
    }
}

impl Mount {
    /// Mounts an empty disk on a directory.
    pub(crate) fn new(point: &Path) -> io::Result<Self> {
        let state = State {
            disk: Disk::new(),
            log: Vec::new(),
            operations: 0,
            cut_at: None,
            power: Power::On,
            parked: Vec::new(),
            fault: None,
            cached: false,
            counted: Counted::default(),
            failed_at: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), moved: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tenfold-power".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Server { shared: Arc::clone(&shared) }, point, &config)?;
        Ok(Self { shared, session: Some(session), point: point.to_owned() })
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    pub(crate) fn notes(&self) -> Notes {
        Notes(Arc::clone(&self.shared))
    }

    /// Begins anew with another disk and an empty log. Nobody may have a file open.
    pub(crate) fn load(&self, image: &Image) {
        let mut state = self.shared.lock();
        state.disk.load(image);
        state.log.clear();
        state.operations = 0;
        state.cut_at = None;
        state.power = Power::On;
        state.fault = None;
        state.cached = false;
        state.failed_at = None;
    }

    /// From now on the system answers reads from its memory where it can. Not for trials in which the power may be off: what waits for
    /// it would wait in the kernel.
    pub(crate) fn keep_cached(&self) {
        self.shared.lock().cached = true;
    }

    /// The disk as it is.
    pub(crate) fn disk(&self) -> Disk {
        self.shared.lock().disk.clone()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.shared.lock().log.clone()
    }

    /// The power fails instead of the `more`-th operation from now, from 1.
    pub(crate) fn cut_after(&self, more: u64) {
        let mut state = self.shared.lock();
        state.cut_at = Some(state.operations + more);
    }

    /// The power fails now, whatever was planned.
    pub(crate) fn cut_now(&self) {
        self.shared.lock().power = Power::Off;
    }

    /// Waits until the power has failed; false if it took too long.
    pub(crate) fn wait_for_cut(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        let (state, _) =
            self.shared.moved.wait_timeout_while(state, patience, |state| state.power == Power::On).unwrap();
        state.power == Power::Off
    }

    /// Lets those who wait end; they must have been killed before.
    pub(crate) fn let_die(&self) {
        let parked = {
            let mut state = self.shared.lock();
            state.power = Power::Dying;
            std::mem::take(&mut state.parked)
        };
        for answer in parked {
            answer();
        }
    }

    /// The power is back, with what the cut left; the log goes on.
    pub(crate) fn restore(&self, image: &Image) {
        let mut state = self.shared.lock();
        state.disk.load(image);
        state.cut_at = None;
        state.power = Power::On;
    }

    /// From now on the disk breaks like this.
    pub(crate) fn break_down(&self, fault: Option<Fault>) {
        let mut state = self.shared.lock();
        state.fault = fault;
        state.counted = Counted::default();
        state.failed_at = None;
    }

    /// Where in the log the fault was first felt, and by what.
    pub(crate) fn failed_at(&self) -> Option<(usize, String)> {
        self.shared.lock().failed_at.clone()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.let_die();
        if let Some(session) = self.session.take() {
            // What cannot be unmounted is in use by a process that a failing test has left; the kernel ends both.
            let _ = session.umount_and_join();
        }
    }
}

/// The kernel's side.
struct Server {
    shared: Arc<Shared>,
}

/// A state in which an operation may be carried out, and the answer that it then gets.
impl Server {
    /// Carries out an operation now, or has it wait or turned away if the power is off. `act` answers by itself.
    fn with<R: Send + 'static>(&self, reply: R, turned_away: fn(R), act: impl FnOnce(&mut State, R)) {
        let mut state = self.shared.lock();
        match state.power {
            Power::On => act(&mut state, reply),
            Power::Off => state.parked.push(Box::new(move || turned_away(reply))),
            Power::Dying => turned_away(reply),
        }
    }

    /// The same for what changes the disk: this is where the power fails.
    fn change<R: Send + 'static>(&self, reply: R, turned_away: fn(R), act: impl FnOnce(&mut State, R)) {
        {
            let mut state = self.shared.lock();
            if state.power == Power::On && state.cut_at.is_some_and(|at| state.operations + 1 >= at) {
                state.power = Power::Off;
                self.shared.moved.notify_all();
            }
        }
        self.with(reply, turned_away, act);
    }
}

impl State {
    fn record(&mut self, operation: Operation) {
        self.disk.apply(&operation);
        self.log.push(Entry::Operation(operation));
        self.operations += 1;
    }

    /// What the fault makes of the next write of so many bytes.
    fn fate_of_write(&mut self, inode: Inode, bytes: usize) -> Fate {
        self.counted.writes += 1;
        let Counted { writes, syncs } = self.counted;
        let fate = match self.fault {
            Some(Fault::Dead { nth }) if writes + syncs >= nth => Fate::Fails(Errno::EIO),
            Some(Fault::Once { nth }) if writes + syncs == nth => Fate::Fails(Errno::EIO),
            Some(Fault::Short { nth }) if writes == nth && bytes > 1 => Fate::Short(bytes / 2),
            Some(Fault::Short { nth }) if writes >= nth => Fate::Fails(Errno::ENOSPC),
            Some(Fault::Full { nth, writes: span }) if (nth..nth + span).contains(&writes) => {
                Fate::Fails(Errno::ENOSPC)
            }
            Some(_) | None => Fate::Done,
        };
        self.felt("write", inode, &fate);
        fate
    }

    fn fate_of_sync(&mut self, inode: Inode) -> Fate {
        self.counted.syncs += 1;
        let Counted { writes, syncs } = self.counted;
        let fate = match self.fault {
            Some(Fault::Dead { nth }) if writes + syncs >= nth => Fate::Fails(Errno::EIO),
            Some(Fault::Once { nth }) if writes + syncs == nth => Fate::Fails(Errno::EIO),
            Some(Fault::LostSync { nth }) if syncs == nth => Fate::SyncFails,
            Some(_) | None => Fate::Done,
        };
        self.felt("sync", inode, &fate);
        fate
    }

    fn felt(&mut self, what: &str, inode: Inode, fate: &Fate) {
        if !matches!(fate, Fate::Done) && self.failed_at.is_none() {
            let Counted { writes, syncs } = self.counted;
            let name = self.disk.name(inode).unwrap_or_default();
            self.failed_at = Some((self.log.len(), format!("{what} {name}, after {writes} writes and {syncs} syncs")));
            self.log.push(Entry::Note(Note::Told { who: TEST, record: Record::DiskFailed }));
        }
    }

    fn open_flags(&self) -> FopenFlags {
        if self.cached { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO }
    }

    fn attributes(&self, inode: Inode) -> Option<FileAttr> {
        let (kind, perm, size) = match self.disk.content(inode) {
            Some(content) => (FileType::RegularFile, 0o644, content.len() as u64),
            None => (FileType::Directory, 0o755, self.disk.names(inode)?.len() as u64),
        };
        let time = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn lookup(&self, directory: INodeNo, name: &OsStr) -> Option<Inode> {
        self.disk.names(directory.0)?.get(name.to_str()?).copied()
    }

    fn create(&mut self, directory: INodeNo, name: &OsStr, is_directory: bool) -> Result<FileAttr, Errno> {
        let name = name.to_str().ok_or(Errno::EINVAL)?.to_owned();
        if self.disk.names(directory.0).ok_or(Errno::ENOTDIR)?.contains_key(&name) {
            return Err(Errno::EEXIST);
        }
        let inode = self.disk.new_inode();
        self.record(Operation::Create { directory: directory.0, name, inode, is_directory });
        self.attributes(inode).ok_or(Errno::EIO)
    }

    fn remove(&mut self, directory: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let inode = self.lookup(directory, name).ok_or(Errno::ENOENT)?;
        if self.disk.names(inode).is_some_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.record(Operation::Remove { directory: directory.0, name: name.to_str().unwrap().to_owned() });
        Ok(())
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.with(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.lookup(parent, name).and_then(|inode| state.attributes(inode)) {
                Some(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
                None => reply.error(Errno::ENOENT),
            },
        );
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.with(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.attributes(inode.0) {
                Some(attributes) => reply.attr(&NO_TIME, &attributes),
                None => reply.error(Errno::ENOENT),
            },
        );
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let act = |state: &mut State, reply: ReplyAttr| {
            if let Some(length) = size {
                if let Fate::Fails(error) = state.fate_of_write(inode.0, 0) {
                    return reply.error(error);
                }
                state.record(Operation::Resize { file: inode.0, length });
            }
            match state.attributes(inode.0) {
                Some(attributes) => reply.attr(&NO_TIME, &attributes),
                None => reply.error(Errno::ENOENT),
            }
        };
        let turned_away = |reply: ReplyAttr| reply.error(Errno::EIO);
        if size.is_some() { self.change(reply, turned_away, act) } else { self.with(reply, turned_away, act) }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        self.change(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.create(parent, name, true) {
                Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |reply| reply.error(Errno::EIO), |state, reply| empty(state.remove(parent, name), reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |reply| reply.error(Errno::EIO), |state, reply| empty(state.remove(parent, name), reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.change(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| {
                if parent != new_parent {
                    return reply.error(Errno::EXDEV);
                }
                if state.lookup(parent, name).is_none() {
                    return reply.error(Errno::ENOENT);
                }
                let (from, to) = (name.to_str().unwrap().to_owned(), new_name.to_str().unwrap().to_owned());
                state.record(Operation::Rename { directory: parent.0, from, to });
                reply.ok();
            },
        );
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.with(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| {
                reply.opened(FileHandle(0), state.open_flags());
            },
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.change(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.create(parent, name, false) {
                Ok(attributes) => {
                    reply.created(&NO_TIME, &attributes, Generation(0), FileHandle(0), state.open_flags());
                }
                Err(error) => reply.error(error),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.with(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.disk.content(inode.0) {
                Some(content) => {
                    let begin = (offset as usize).min(content.len());
                    let end = (begin + size as usize).min(content.len());
                    reply.data(&content[begin..end]);
                }
                None => reply.error(Errno::EISDIR),
            },
        );
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.change(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| {
                let written = match state.fate_of_write(inode.0, data.len()) {
                    Fate::Done => data.len(),
                    Fate::Short(bytes) => bytes,
                    Fate::Fails(error) => return reply.error(error),
                    Fate::SyncFails => return reply.error(Errno::EIO),
                };
                state.record(Operation::Write { file: inode.0, offset, bytes: data[..written].into() });
                reply.written(written as u32);
            },
        );
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.change(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, reply| match state.fate_of_sync(inode.0) {
                Fate::Done | Fate::Short(_) => {
                    state.record(Operation::Sync { inode: inode.0 });
                    reply.ok();
                }
                Fate::Fails(error) => reply.error(error),
                Fate::SyncFails => {
                    state.record(Operation::FailedSync { file: inode.0 });
                    reply.error(Errno::EIO);
                }
            },
        );
    }

    fn fsyncdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(request, inode, handle, datasync, reply);
    }

    // A close writes nothing here, and must never wait: it is how a killed process ends.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.with(
            reply,
            |reply| reply.error(Errno::EIO),
            |state, mut reply| {
                let Some(names) = state.disk.names(inode.0) else { return reply.error(Errno::ENOTDIR) };
                let dots = [".", ".."].map(|name| (name, inode.0));
                let all = dots.into_iter().chain(names.iter().map(|(name, inode)| (name.as_str(), *inode)));
                for (index, (name, inode)) in all.enumerate().skip(offset as usize) {
                    let kind =
                        if state.disk.names(inode).is_some() { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(inode), index as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            },
        );
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }
}
