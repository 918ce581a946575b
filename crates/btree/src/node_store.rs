//! Nodes on devices.
//!
//! A pointer names one place per replica. [`NodeStore`] reads from the first whose device is present, as much as the pointer
//! says is written, and lets `frazil-ondisk` verify and merge it. If the device fails, the bytes are not the node that is meant, or a
//! checksum does not match, it takes the next replica (spec 60 §9.1).
//!
//! What it delivers is always verified: a node that has a checksum mismatch on every replica is an error, also where the reference would
//! use the bytes anyway. Lesser damage (a key that breaks a rule, bsets that end too early) is tolerated when no replica is
//! without: the bad keys are missing, the problems are reported.
//!
//! Which replica is tried first differs from node to node, so that reading a tree uses all devices.

use std::ops::Range;

use frazil_device::{Advice, DeviceSet};
use frazil_ondisk::node::{DecodedNode, NodeProblem, NodePtr, ReadContext, ReadNode};
use frazil_ondisk::units::{Sectors, Seq};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{crypto, version::Version};

use crate::error::{Error, NodePlace, ProblemKind, ReplicaFailure, Result, Span, Unreadable};
use crate::source::{LoadedNode, NodeSource};

/// What is the same for all nodes of a volume.
#[derive(Clone, Debug)]
pub struct NodeFormat {
    /// Magic of its nodes ([`frazil_ondisk::node::node_magic`]).
    pub magic: u64,
    /// Block size.
    pub block: Sectors,
    /// Size of a node's area.
    pub node: Sectors,
    /// The master key of an encrypted volume.
    pub key: Option<crypto::Key>,
    /// The superblock's version.
    pub version: Version,
    /// The superblock's oldest version.
    pub version_min: Version,
}

/// Reads the nodes of a volume from its devices. See the [module](self).
pub struct NodeStore {
    devices: DeviceSet,
    format: NodeFormat,
    /// Sorted by start.
    blacklist: Vec<Range<Seq>>,
}

/// A replica that is the node, maybe with problems.
type Read = (DecodedNode, Vec<NodeProblem>);

impl NodeStore {
    /// A store over these devices. Updates that nodes got from journal entries in the `blacklist` (in any order) never
    /// happened (spec 60 §4.3).
    pub fn new(devices: DeviceSet, format: NodeFormat, mut blacklist: Vec<Range<Seq>>) -> Self {
        blacklist.retain(|range| !range.is_empty());
        blacklist.sort_by_key(|range| range.start);
        Self { devices, format, blacklist }
    }

    fn is_blacklisted(&self, seq: Seq) -> bool {
        // Ranges of a sane superblock do not overlap; where they do, the nearest start is not the only candidate.
        let candidates = self.blacklist.partition_point(|range| range.start <= seq);
        self.blacklist[..candidates].iter().rev().any(|range| range.contains(&seq))
    }

    /// The replicas of a node in the order in which they are tried.
    fn replicas(&self, ptr: &NodePtr<'_>) -> Vec<ExtentPtr> {
        let mut replicas: Vec<ExtentPtr> = ptr.ptrs().collect();
        if !replicas.is_empty() {
            let first = ptr.expect.seq.map_or(0, |seq| seq.0 as usize % replicas.len());
            replicas.rotate_left(first);
        }
        replicas
    }

    /// Bytes of a node to be read.
    fn written_bytes(&self, ptr: &NodePtr<'_>) -> u64 {
        let written = ptr.expect.sectors_written.unwrap_or(self.format.node);
        bytes(written.min(self.format.node))
    }

    /// Reads one replica.
    fn read_replica(&self, at: ExtentPtr, ptr: &NodePtr<'_>) -> std::result::Result<Read, ReplicaFailure> {
        if at.is_invalid() {
            return Err(ReplicaFailure::Removed);
        }
        let dev = at.dev;
        let device = self.devices.get(dev.0).ok_or(ReplicaFailure::Missing(dev))?;
        let place = || NodePlace { dev, name: device.name().clone(), sector: at.offset };
        let bytes = |sectors: Sectors| {
            sectors.to_bytes().expect("pointers and node sizes are far below 2^55 sectors")
        };

        let written = ptr.expect.sectors_written.unwrap_or(self.format.node).min(self.format.node);
        let mut raw = vec![0; bytes(written) as usize];
        device.read_at(bytes(at.offset), &mut raw).map_err(|error| ReplicaFailure::Io { dev, error })?;

        let blacklisted = |seq| self.is_blacklisted(seq);
        let context = ReadContext {
            magic: self.format.magic,
            block: self.format.block,
            key: self.format.key.as_ref(),
            version: self.format.version,
            version_min: self.format.version_min,
            blacklisted: &blacklisted,
        };
        let node = ReadNode::read(&mut raw, &ptr.expect, &context)
            .map_err(|reason| ReplicaFailure::Damaged { place: place(), reason })?;
        if let Some(problem) = node.problems.iter().find(|p| is_unverified(p)) {
            return Err(ReplicaFailure::Unverified { place: place(), problem: problem.clone() });
        }
        Ok(node.merge(&raw))
    }
}

fn bytes(sectors: Sectors) -> u64 {
    sectors.to_bytes().expect("pointers and node sizes are far below 2^55 sectors")
}

/// Whether bytes were used that no checksum vouches for although one should.
fn is_unverified(problem: &NodeProblem) -> bool {
    matches!(problem, NodeProblem::Checksum { .. } | NodeProblem::ChecksumType { .. })
}

fn damage((_, problems): &Read) -> usize {
    problems.iter().filter(|p| p.is_damage()).count()
}

impl NodeSource for NodeStore {
    fn read(&self, span: Span, ptr: &NodePtr<'_>) -> Result<LoadedNode> {
        let mut failures = Vec::new();
        let mut best: Option<Read> = None;
        for at in self.replicas(ptr) {
            match self.read_replica(at, ptr) {
                Ok(read) if best.as_ref().is_none_or(|best| damage(&read) < damage(best)) => {
                    let whole = damage(&read) == 0;
                    best = Some(read);
                    if whole {
                        break;
                    }
                }
                Ok(_) => {}
                Err(failure) => failures.push(failure),
            }
        }
        let Some((node, problems)) = best else {
            return Err(Error::Unreadable(Box::new(Unreadable { span, failures })));
        };
        // A missing device is a fact about the volume, known to all; it is no news about this node.
        let news = |failure: &ReplicaFailure| {
            !matches!(failure, ReplicaFailure::Removed | ReplicaFailure::Missing(_))
        };
        let failures = failures.into_iter().filter(news).map(ProblemKind::Replica);
        Ok(LoadedNode {
            min: node.header.min_key,
            max: node.header.max_key,
            counter: node.header.counter,
            written: node.sectors,
            keys: node.keys,
            problems: failures.chain(problems.into_iter().map(ProblemKind::Node)).collect(),
        })
    }

    fn will_read(&self, ptr: &NodePtr<'_>) {
        let present = |at: &ExtentPtr| Some((self.devices.get(at.dev.0)?, at.offset));
        if let Some((device, sector)) = self.replicas(ptr).iter().find_map(present) {
            device.advise(bytes(sector), self.written_bytes(ptr), Advice::WillNeed);
        }
    }
}
