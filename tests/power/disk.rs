//! What is on a disk, what a process believes is on it, and what a power cut can leave of the difference. Pure.
//!
//! ```text
//!   operations ──▶ Disk { current: what is read, pending: since the last sync, durable: what no cut can take }
//!                    └──▶ cut(mode, random) ──▶ Image: a tree of files as the next start may find it
//! ```
//!
//! The model is as harsh as POSIX allows, which is harsher than any one file system:
//!
//! - A sync of a file makes its bytes and its length durable, and nothing else: its *name* becomes durable with a sync of the
//!   directory that holds it, and not before.
//! - Until then every page of 4 KiB may be any of the versions that it had since the last sync, independent of every other
//!   page, and its length any of the lengths. Bytes beyond a lost page are zeros. In mode *sectors* this holds for every 512 bytes;
//!   one sector is written whole or not at all.
//! - Names: in mode *pages* and *sectors* each directory holds the changes up to some point of time; in mode *metadata* any
//!   subset of them, so that a later change may be there without an earlier one. One rename is there or it is not.
//!
//! Deliberately absent: bytes that change by themselves, syncs that are confirmed and not done, renames between
//! directories, hard links.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use crate::random::Random;

/// A file or directory, for as long as the disk is used.
pub(crate) type Inode = u64;

/// The directory at the top.
pub(crate) const ROOT: Inode = 1;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// What changes a disk.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// A new file or directory under a name.
    Create { directory: Inode, name: String, inode: Inode, is_directory: bool },
    /// Bytes in a file.
    Write { file: Inode, offset: u64, bytes: Arc<[u8]> },
    /// Another length of a file.
    Resize { file: Inode, length: u64 },
    /// Another name in the same directory, in the place of whatever had it.
    Rename { directory: Inode, from: String, to: String },
    /// A name is gone.
    Remove { directory: Inode, name: String },
    /// A sync of a file or of a directory.
    Sync { inode: Inode },
    /// A sync of a file that failed and lost what it was to write: Linux takes that for written, and no later sync writes it. The
    /// disk has the old bytes, and the new length.
    FailedSync { file: Inode },
}

/// What a cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Nothing.
    Drop,
    /// Everything.
    Keep,
    /// Any pages.
    Pages,
    /// Any sectors.
    Sectors,
    /// Any pages, any lengths, any names.
    Metadata,
}

impl Mode {
    pub(crate) const ALL: [Self; 5] = [Self::Drop, Self::Keep, Self::Pages, Self::Sectors, Self::Metadata];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Keep => "keep",
            Self::Pages => "pages",
            Self::Sectors => "sectors",
            Self::Metadata => "metadata",
        }
    }

    /// Whether chance decides.
    pub(crate) fn is_random(self) -> bool {
        !matches!(self, Self::Drop | Self::Keep)
    }
}

/// Everything there is.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Resize { length: usize },
}

type Names = BTreeMap<String, Inode>;

#[derive(Clone, Debug, Default)]
struct Directory {
    durable: Names,
    current: Names,
    pending: Vec<NameChange>,
}

/// One atomic change of names: what appears, and what disappears.
#[derive(Clone, Debug)]
struct NameChange {
    put: Option<(String, Inode)>,
    gone: Option<String>,
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, inode)) = &self.put {
            names.insert(name.clone(), *inode);
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize { length } => content.resize(*length, 0),
        }
    }
}

impl Disk {
    /// With nothing on it.
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]), next: ROOT + 1 }
    }

    /// Another content, all of it durable. Inodes are not used twice, so that nobody takes an old file for a new one.
    pub(crate) fn load(&mut self, image: &Image) {
        self.nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        for (path, content) in &image.files {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            let directory = self.find(above).expect("directories come before what is in them");
            let inode = self.new_inode();
            let create = Operation::Create { directory, name: name.to_owned(), inode, is_directory: content.is_none() };
            self.apply(&create);
            if let Some(bytes) = content {
                self.apply(&Operation::Write { file: inode, offset: 0, bytes: bytes.as_slice().into() });
                self.apply(&Operation::Sync { inode });
            }
            self.apply(&Operation::Sync { inode: directory });
        }
    }

    /// A number that no file has had.
    pub(crate) fn new_inode(&mut self) -> Inode {
        self.next += 1;
        self.next - 1
    }

    /// The inode of a path from the top; empty is the top.
    fn find(&self, path: &str) -> Option<Inode> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |inode, name| self.names(inode)?.get(name).copied())
    }

    /// The names in a directory; `None` if it is none.
    pub(crate) fn names(&self, inode: Inode) -> Option<&Names> {
        match self.nodes.get(&inode)? {
            Node::Directory(directory) => Some(&directory.current),
            Node::File(_) => None,
        }
    }

    /// The last name of a file or directory.
    pub(crate) fn name(&self, inode: Inode) -> Option<String> {
        let directories = self.nodes.values().filter_map(|node| match node {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        });
        let mut names = directories.flat_map(|directory| &directory.current);
        names.find(|(_, found)| **found == inode).map(|(name, _)| name.clone())
    }

    /// What is in a file; `None` if it is none.
    pub(crate) fn content(&self, inode: Inode) -> Option<&[u8]> {
        match self.nodes.get(&inode)? {
            Node::File(file) => Some(&file.current),
            Node::Directory(_) => None,
        }
    }

    /// Does what a process asked for; it was checked before.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { directory, name, inode, is_directory } => {
                let node =
                    if *is_directory { Node::Directory(Directory::default()) } else { Node::File(File::default()) };
                self.nodes.insert(*inode, node);
                self.next = self.next.max(inode + 1);
                self.rename(*directory, NameChange { put: Some((name.clone(), *inode)), gone: None });
            }
            Operation::Write { file, offset, bytes } => {
                self.change(*file, Change::Write { offset: *offset as usize, bytes: Arc::clone(bytes) });
            }
            Operation::Resize { file, length } => self.change(*file, Change::Resize { length: *length as usize }),
            Operation::Rename { directory, from, to } => {
                let inode = self.names(*directory).and_then(|names| names.get(from)).copied();
                let put = inode.map(|inode| (to.clone(), inode));
                self.rename(*directory, NameChange { put, gone: Some(from.clone()) });
            }
            Operation::Remove { directory, name } => {
                self.rename(*directory, NameChange { put: None, gone: Some(name.clone()) });
            }
            Operation::Sync { inode } => match self.nodes.get_mut(inode) {
                Some(Node::File(file)) => file.sync(),
                Some(Node::Directory(directory)) => directory.sync(),
                None => {}
            },
            Operation::FailedSync { file } => {
                if let Some(Node::File(file)) = self.nodes.get_mut(file) {
                    let length = file.current.len();
                    file.current.clone_from(&file.durable);
                    file.current.resize(length, 0);
                    file.pending = vec![Change::Resize { length }];
                }
            }
        }
    }

    fn change(&mut self, inode: Inode, change: Change) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            change.apply(&mut file.current);
            file.pending.push(change);
        }
    }

    fn rename(&mut self, inode: Inode, change: NameChange) {
        if let Some(Node::Directory(directory)) = self.nodes.get_mut(&inode) {
            change.apply(&mut directory.current);
            directory.pending.push(change);
        }
    }

    /// What the next start finds if the power fails now.
    pub(crate) fn cut(&self, mode: Mode, random: &mut Random) -> Image {
        let mut image = Image::default();
        self.cut_directory(ROOT, "", mode, random, &mut image);
        image
    }

    fn cut_directory(&self, inode: Inode, path: &str, mode: Mode, random: &mut Random, image: &mut Image) {
        let Some(Node::Directory(directory)) = self.nodes.get(&inode) else { return };
        for (name, inode) in directory.cut(mode, random) {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            match self.nodes.get(&inode) {
                Some(Node::File(file)) => {
                    image.files.insert(path, Some(file.cut(mode, random)));
                }
                Some(Node::Directory(_)) => {
                    image.files.insert(path.clone(), None);
                    self.cut_directory(inode, &path, mode, random, image);
                }
                None => {}
            }
        }
    }
}

impl Directory {
    fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.current);
    }

    fn cut(&self, mode: Mode, random: &mut Random) -> Names {
        let mut names = self.durable.clone();
        let until = random.within(0..=self.pending.len() as u64) as usize;
        for (index, change) in self.pending.iter().enumerate() {
            let survives = match mode {
                Mode::Drop => false,
                Mode::Keep => true,
                Mode::Pages | Mode::Sectors => index < until,
                Mode::Metadata => random.percent(50),
            };
            if survives {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl File {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn cut(&self, mode: Mode, random: &mut Random) -> Vec<u8> {
        match mode {
            Mode::Drop => self.durable.clone(),
            // Not `current`: after a failed sync a process sees what will never be written.
            Mode::Keep => {
                let mut all = self.durable.clone();
                self.pending.iter().for_each(|change| change.apply(&mut all));
                all
            }
            Mode::Pages | Mode::Metadata => self.mix(PAGE, random),
            Mode::Sectors => self.mix(SECTOR, random),
        }
    }

    /// Each piece in any of its versions, the length in any of its.
    fn mix(&self, piece: usize, random: &mut Random) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let mut running = self.durable.clone();
        let mut versions: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut lengths = vec![running.len()];
        let at = |content: &[u8], index: usize| {
            let mut bytes = vec![0; piece];
            let begin = (index * piece).min(content.len());
            let end = (begin + piece).min(content.len());
            bytes[..end - begin].copy_from_slice(&content[begin..end]);
            bytes
        };
        for change in &self.pending {
            let touched = match change {
                Change::Write { bytes, .. } if bytes.is_empty() => 0..0,
                Change::Write { offset, bytes } => offset / piece..(offset + bytes.len() - 1) / piece + 1,
                Change::Resize { length } if *length < running.len() => length / piece..running.len().div_ceil(piece),
                Change::Resize { .. } => 0..0,
            };
            for index in touched.clone() {
                versions.entry(index).or_insert_with(|| vec![at(&running, index)]);
            }
            change.apply(&mut running);
            for index in touched {
                let version = at(&running, index);
                versions.entry(index).or_default().push(version);
            }
            lengths.push(running.len());
        }
        let length = if random.percent(60) { running.len() } else { pick(&lengths, random) };
        let mut result = running;
        for (index, versions) in versions {
            let version = &versions[random.within(0..=versions.len() as u64 - 1) as usize];
            let begin = index * piece;
            if result.len() < begin + piece {
                result.resize(begin + piece, 0);
            }
            result[begin..begin + piece].copy_from_slice(version);
        }
        result.resize(length, 0);
        result
    }
}

fn pick(values: &[usize], random: &mut Random) -> usize {
    values[random.within(0..=values.len() as u64 - 1) as usize]
}

/// A tree of files, by path from the top; a directory has no content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    files: BTreeMap<String, Option<Vec<u8>>>,
}

impl Image {
    /// Equal images have equal ones.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes it into a directory that does not exist yet.
    pub(crate) fn write(&self, top: &Path) {
        std::fs::create_dir_all(top).unwrap();
        for (path, content) in &self.files {
            match content {
                Some(bytes) => std::fs::write(top.join(path), bytes).unwrap(),
                None => std::fs::create_dir(top.join(path)).unwrap(),
            }
        }
    }
}
