//! Random changes of the content of files.

use std::ops::Range;
use std::sync::Arc;

use frazil_posix::write::{Allocate, NewNode};
use frazil_posix::{Error, FileType, NodeId};

use crate::life::History;
use crate::machine::Disks;
use crate::model::{Body, Node};
use crate::observe;
use crate::ops::{ROOT, Run};

/// Files are kept shorter than that, so that many fit and all are soon compared.
const FILE_BYTES_MAX: u64 = 400 << 10;

impl Run<'_> {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (first, random) = (self.rng.u8(..), self.rng.u8(0..3) > 0);
        let mut bytes = vec![first; len];
        if random {
            self.rng.fill(&mut bytes);
        }
        bytes
    }

    /// A place in a file: anywhere, or at the border of a block.
    fn place(&mut self, upto: u64) -> u64 {
        let at = self.rng.u64(0..=upto);
        if self.rng.bool() { at / self.block * self.block } else { at }
    }

    pub(crate) fn change_content(&mut self, id: NodeId) {
        self.loose = Some(id);
        let size = self.model.get(id).content().bytes.len() as u64;
        match self.rng.u8(0..20) {
            0..9 => self.write(id, size),
            9..12 => self.truncate(id),
            12..17 => self.allocate(id, size),
            _ => self.clone_range(id, size),
        }
        self.look(&[id]);
    }

    /// Does an operation on content; true if it succeeded. What only a part of it did before the space ran out is taken over.
    fn did(&mut self, got: frazil_posix::Result<()>, expected: Result<(), &'static str>, id: NodeId) -> bool {
        let partly = matches!(got, Err(Error::NoSpace | Error::Io(_)));
        let done = self.agree(got, expected).is_some();
        if partly {
            self.take_over(id);
        }
        done
    }

    fn take_over(&mut self, id: NodeId) {
        match observe::node(self.fs, id) {
            Ok(node) => drop(self.model.nodes.insert(id, Arc::new(node))),
            Err(_) => self.blind = true,
        }
    }

    fn write(&mut self, id: NodeId, size: u64) {
        let now = self.now();
        let at = self.place((size + 20_000).min(FILE_BYTES_MAX));
        let len = match self.rng.u8(0..8) {
            0..3 => self.rng.usize(1..600),
            3..6 => self.rng.usize(1..20_000),
            6 => self.rng.usize(1..16) * self.block as usize,
            _ => self.rng.usize(1..200_000),
        };
        let data = self.bytes(len);
        self.doing = format!("write {id} {len} bytes at {at}");
        let expected = self.model.writable(id);
        let got = self.front().and_then(|front| front.write(id, at, &data, ROOT));
        let partly = matches!(got, Err(Error::NoSpace | Error::Io(_)));
        let done = self.agree(got, expected);
        if partly || done.as_ref().is_some_and(|(n, ())| *n < len && (self.faults || self.may_be_full())) {
            return self.take_over(id);
        }
        let Some((written, ())) = done else { return };
        assert_eq!(written, len, "{}", self.doing);
        self.model_write(id, at, &data, now);
    }

    fn model_write(&mut self, id: NodeId, at: u64, data: &[u8], now: frazil_posix::Timestamp) {
        let mut bytes = self.model.get(id).content().bytes.to_vec();
        let end = at as usize + data.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[at as usize..end].copy_from_slice(data);
        self.model.set_content(id, bytes, now);
        self.compare(&[id]);
    }

    fn truncate(&mut self, id: NodeId) {
        let (now, size) = (self.now(), self.place(FILE_BYTES_MAX));
        let size = if self.rng.bool() { size / 16 } else { size };
        self.doing = format!("truncate {id} to {size}");
        let expected = self.model.writable(id);
        let got = self.front().and_then(|front| front.truncate(id, size, ROOT));
        if self.did(got, expected, id) {
            let mut bytes = self.model.get(id).content().bytes.to_vec();
            bytes.resize(size as usize, 0);
            self.model.set_content(id, bytes, now);
            self.compare(&[id]);
        }
    }

    fn allocate(&mut self, id: NodeId, size: u64) {
        let now = self.now();
        let start = self.place(size + 8192);
        let end = start + 1 + self.place(60_000);
        let keep_size = self.rng.bool();
        let how = match self.rng.u8(0..7) {
            0 => Allocate::Reserve { keep_size },
            1 => Allocate::Zero { keep_size },
            2 | 3 => Allocate::Punch,
            4 => Allocate::Collapse,
            5 => Allocate::Insert,
            _ => Allocate::Unshare,
        };
        let shifts = matches!(how, Allocate::Collapse | Allocate::Insert);
        let range = match shifts && self.rng.u8(0..8) > 0 {
            true => start / self.block * self.block..end.next_multiple_of(self.block),
            false => start..end,
        };
        self.doing = format!("allocate {id} of {size} bytes {range:?} {how:?}");
        let whole = range.start.is_multiple_of(self.block) && range.end.is_multiple_of(self.block);
        let expected = self.model.writable(id).and(match how {
            Allocate::Collapse if !whole || range.end >= size => Err("Invalid"),
            Allocate::Insert if !whole || range.start >= size => Err("Invalid"),
            _ => Ok(()),
        });
        let got = self.front().and_then(|front| front.allocate(id, range.clone(), how, ROOT));
        if !self.did(got, expected, id) {
            return;
        }
        let mut bytes = self.model.get(id).content().bytes.to_vec();
        let within = |range: &Range<u64>| range.start.min(size) as usize..range.end.min(size) as usize;
        match how {
            Allocate::Punch | Allocate::Zero { .. } => bytes[within(&range)].fill(0),
            Allocate::Collapse => drop(bytes.drain(within(&range))),
            Allocate::Insert => {
                let hole = vec![0; (range.end - range.start) as usize];
                let at = range.start as usize;
                bytes.splice(at..at, hole);
            }
            Allocate::Reserve { .. } | Allocate::Unshare => {}
        }
        let grows = match how {
            Allocate::Reserve { keep_size } | Allocate::Zero { keep_size } => !keep_size,
            Allocate::Unshare => true,
            _ => false,
        };
        if grows {
            bytes.resize(bytes.len().max(range.end as usize), 0);
        }
        self.model.set_content(id, bytes, now);
        self.compare(&[id]);
    }

    fn clone_range(&mut self, from: NodeId, size: u64) {
        let (now, block) = (self.now(), self.block);
        let Some(to) = (if self.rng.u8(0..4) == 0 { Some(from) } else { self.file() }) else { return };
        let start = self.rng.u64(0..=size) / block * block;
        let end = match self.rng.bool() {
            true => size,
            false => (start + self.rng.u64(0..100_000)).next_multiple_of(block),
        };
        let target = self.rng.u64(0..FILE_BYTES_MAX) / block * block;
        self.loose = Some(to);
        self.doing = format!("clone {from} of {size} bytes {start}..{end} to {to} at {target}");
        let target_size = self.model.get(to).content().bytes.len() as u64;
        let overlap = from == to && start < target + end.saturating_sub(start) && target < end;
        let source = self.model.writable(from);
        let expected = source.and(self.model.writable(to)).and(match () {
            () if end > size || overlap => Err("Invalid"),
            // A part of a block would take what follows it in the target away.
            () if !(end - start).is_multiple_of(block) && target + (end - start) < target_size => {
                Err("Invalid")
            }
            () => Ok(()),
        });
        let got = self.front().and_then(|front| front.clone_range(from, start..end, to, target, ROOT));
        if matches!(got, Err(Error::NoSpace | Error::Io(_))) {
            self.take_over(to);
        }
        let Some((cloned, ())) = self.agree(got, expected) else { return };
        assert_eq!(cloned, end - start, "{}", self.doing);
        if cloned > 0 {
            let data = self.model.get(from).content().bytes[start as usize..end as usize].to_vec();
            self.model_write(to, target, &data, now);
        }
    }

    /// Fills the volume up with one file; which, of which generation, and how long it got.
    pub(crate) fn fill_up(&mut self, name: &[u8]) -> (NodeId, u32, usize) {
        self.doing = "fill up".into();
        let made =
            self.front().and_then(|front| front.create(NodeId::ROOT, name, NewNode::File, 0o644, ROOT));
        let made = made.unwrap_or_else(|e| panic!("{}: {e}", self.doing));
        let (id, generation) = (made.node, made.generation);
        let node = self.model.new_node(NodeId::ROOT, id, FileType::Regular, 0o644, (0, 0), self.now());
        self.model.create(NodeId::ROOT, name, id, node, self.now());
        self.loose = Some(id);
        let mut at = 0;
        for _ in 0..2000 {
            let mut data = vec![0; 128 << 10];
            self.rng.fill(&mut data);
            self.doing = format!("fill up {id} at {at}");
            let got = self.front().and_then(|front| front.write(id, at as u64, &data, ROOT));
            let whole = matches!(got, Ok(n) if n == data.len());
            if !whole {
                assert!(self.may_be_full(), "{}: {got:?}", self.doing);
                break;
            }
            at += data.len();
        }
        self.take_over(id);
        self.changed = vec![id, NodeId::ROOT];
        (id, generation, self.model.get(id).content().bytes.len())
    }

    /// Removes what filled the volume, all its names. False if a snapshot, somebody who uses it, or a file with a clone of it keeps its data.
    pub(crate) fn remove(
        &mut self,
        (id, generation): (NodeId, u32),
        disks: &Disks,
        history: &mut History,
    ) -> bool {
        self.time.pass(1000);
        self.loose = None;
        // Somebody removed it already, and its number is that of another.
        let is_another = self.fs.getattr(id).is_ok_and(|attr| attr.generation != generation);
        let names = |(dir, node): (&NodeId, &Arc<Node>)| {
            let entries = node.is_dir().then(|| node.entries().iter().filter(|(_, child)| **child == id));
            entries.into_iter().flatten().map(|(name, _)| (*dir, name.clone())).collect::<Vec<_>>()
        };
        let names: Vec<_> = self.model.nodes.iter().flat_map(names).filter(|_| !is_another).collect();
        for (dir, name) in names {
            self.doing = format!("remove what filled up, {dir}/{}", name.escape_ascii());
            let begun = disks.time.now();
            self.changed.clear();
            let got = self.front().and_then(|front| front.unlink(dir, &name, ROOT));
            got.unwrap_or_else(|e| panic!("{}: {e}", self.doing));
            self.model.unlink(dir, &name, self.now());
            self.forget_if_nameless(id);
            self.compare(&[dir]);
            history.push(begun, self);
        }
        let is_large = |node: &Node| match &node.body {
            Body::File(content) => content.bytes.len() as u64 > 4 * FILE_BYTES_MAX,
            _ => false,
        };
        let kept = self
            .model
            .nodes
            .iter()
            .any(|(other, node)| other.inum == id.inum && !is_another || is_large(node));
        !kept
    }
}
