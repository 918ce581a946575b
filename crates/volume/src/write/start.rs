//! From devices to a running journal: opening a volume for writing, up to where its b-trees begin.
//!
//! Finding the devices, the key and the state the volume was left in is the same as for reading ([`mod@crate::open`]). What is different:
//!
//! 1. **May it be written?** [`check_access`], [`check_state`], [`Left::check_roots`] and [`own_buckets`] are the whole list of reasons why not. Nothing has been
//!    written when one of them holds. (A volume that was never started is started before, which makes it an empty one that was shut down
//!    cleanly.)
//! 2. **Say so.** The superblock is marked "not clean" on every device before anything else is written (spec 60 §4.7), which also shows whether
//!    somebody else writes to them.
//! 3. **After a crash** the journal says what is to be replayed, and some of its numbers must never come again. They are made unusable
//!    *before* the journal starts: first a marker entry far ahead, which every program that recovers the volume finds, then the blacklist in
//!    the superblock (spec 20 §6). A crash between the two, or after them, recovers to the same state.
//! 4. **The journal starts** behind all that; after a crash it keeps the old entries until [`Replay`] has passed them.
//!
//! Until the b-tree engine replays, this is all that has been written: one journal block per copy of the marker, and superblocks.

use std::sync::Arc;

use frazil_btree::{Btrees, NodeFormat, NodeStore, Overlay};
use frazil_device::{Device, DeviceSet};
use frazil_journal::Journal;
use frazil_journal::engine::{
    self, Clock, Format, Member as JournalMember, NoSpace, Position, Start, SystemClock, recovery_start,
    write_marker,
};
use frazil_journal::read::{self, Early, RingFound};
use frazil_ondisk::BtreeId;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::data_type::DataType;
use frazil_ondisk::jset::jset_magic;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::access::Access;
use frazil_ondisk::superblock::features::CompatFeatures;
use frazil_ondisk::superblock::members::{MemberState, Members};
use frazil_ondisk::superblock::recovery_pass::{PassSet, RecoveryPass};
use frazil_ondisk::superblock::sections::{Ext, Replicas};
use frazil_ondisk::units::{DevIndex, Sectors, Seq};

use super::host::VolumeHost;
use super::own_buckets;
use super::replay::Replay;
use super::superblock::SuperblockStore;
use super::time::{SystemWallClock, WallClock};
use crate::build;
use crate::error::{Notice, OpenError};
use crate::lifecycle::OnError;
use crate::open::{
    Assembled, OpenOptions, Passphrase, Recovery, Ring, assemble, blacklist, node_format, read_clean,
    read_journal, rings, unlock,
};

/// How many key versions an encrypted volume skips after a crash: more than can have been handed out since the last entry
/// (spec 10 §15.4).
const KEY_VERSIONS_SKIPPED: u64 = 65536;

/// Passes that every start runs anyway (spec 60 §5.1), or that later work does: requested or not, they are no reason not to write.
const ALWAYS_RUN: &[RecoveryPass] = &[
    RecoveryPass::ALLOC_READ,
    RecoveryPass::STRIPES_READ,
    RecoveryPass::SNAPSHOTS_READ,
    RecoveryPass::SET_MAY_GO_RW,
    RecoveryPass::JOURNAL_REPLAY,
];

/// Where a writer gets its times from.
pub struct WriteOptions {
    /// For delays.
    pub clock: Arc<dyn Clock>,
    /// For what is stamped with the time of day.
    pub wall: Arc<dyn WallClock>,
    /// What to do when a thin device has no room for what is written (`write::patience`).
    pub no_space: NoSpace,
    /// What to do when what is stored turns out to be wrong; as the superblock says if it is not given.
    pub on_error: Option<OnError>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            clock: Arc::new(SystemClock::default()),
            wall: Arc::new(SystemWallClock),
            no_space: engine::Options::default().no_space,
            on_error: None,
        }
    }
}

/// A volume that may be written, up to where its b-trees begin.
pub struct Foundation {
    /// The devices that are present.
    pub devices: DeviceSet,
    /// The master key, if the volume is encrypted.
    pub key: Option<Key>,
    /// The superblock: not clean any more.
    pub superblock: Arc<SuperblockStore>,
    /// What the journal asks the volume.
    pub host: Arc<VolumeHost>,
    /// The journal. Nobody drives it yet.
    pub journal: Arc<Journal>,
    /// The b-trees without what the journal holds; empty of it until `replay` has run.
    pub btrees: Arc<Btrees>,
    /// What a crash left to be done.
    pub replay: Replay,
    /// How the volume was left.
    pub recovery: Recovery,
    /// What the user should know.
    pub notices: Vec<Notice>,
    /// What to do when a thin device has no room.
    pub no_space: NoSpace,
    /// What to do when what is stored turns out to be wrong.
    pub on_error: OnError,
}

impl Foundation {
    /// How nodes are written.
    pub fn node_format(&self) -> NodeFormat {
        node_format(&self.superblock.view().superblock, self.key.as_ref())
    }

    /// The checksum type of journal entries and nodes.
    ///
    /// # Errors
    /// If the option's value has no meaning.
    pub fn metadata_csum_type(&self) -> frazil_ondisk::error::Result<ChecksumType> {
        metadata_csum_type(&self.superblock.view().superblock)
    }
}

/// Opens the volume that consists of these devices for writing, see the [module](self).
///
/// # Errors
/// Every reason a volume cannot be opened or written, in one line that says what to do. Up to [`OpenError::NeedsCheck`] nothing was
/// written.
pub fn open_rw(
    devices: Vec<Arc<dyn Device>>,
    mut options: OpenOptions<'_>,
    write: &WriteOptions,
) -> Result<Foundation, OpenError> {
    if let Some(device) = devices.iter().find(|d| d.is_read_only()) {
        return Err(OpenError::ReadOnlyDevice { device: device.name().clone() });
    }
    let mut notices = Vec::new();
    let passphrase = std::mem::replace(&mut options.passphrase, Passphrase::None);
    let mut assembled = assemble(devices, &options, &mut notices)?;
    check_access(&assembled)?;
    let key = unlock(&assembled.newest, passphrase)?;
    if !assembled.newest.flags.initialized() {
        let own = assembled.own_superblocks();
        build::start(&assembled.newest, own, key.clone())?;
        let devices = assembled.online.into_iter().map(|c| c.device).collect();
        assembled = assemble(devices, &options, &mut notices)?;
    }
    check_state(&assembled)?;
    let left = Left::find(&assembled, key.as_ref(), &mut notices)?;
    left.check_roots()?;
    own_buckets::check(&assembled, &left.btrees(&assembled, key.as_ref(), options.cache_bytes)?)?;

    let own = assembled.own_superblocks();
    let store = SuperblockStore::new(assembled.newest.clone(), own, options.degraded, write.wall.clone());
    let superblock = Arc::new(store.map_err(|why| assembled.refused(why))?);
    let host = Arc::new(VolumeHost::new(superblock.clone(), left.early(), write.wall.clone()));
    let format = journal_format(&assembled.newest, key.as_ref()).map_err(|why| assembled.refused(why))?;
    let (members, start) = left.begin(&assembled, &host, &format)?;

    let store = NodeStore::new(
        assembled.device_set(),
        node_format(&assembled.newest, key.as_ref()),
        superblock.blacklisted().map_err(|why| assembled.refused(why))?,
    );
    let btrees = Btrees::new(host.durable_roots(), Overlay::empty(), Box::new(store), options.cache_bytes);
    let journal_options = journal_options(&assembled.newest, write.no_space);
    let journal = Journal::start(members, format, journal_options, start, host.clone(), write.clock.clone());
    let recovery = left.recovery();
    let default = OnError::of_superblock(assembled.newest.flags.error_action());
    Ok(Foundation {
        no_space: write.no_space,
        on_error: write.on_error.unwrap_or(default),
        devices: assembled.device_set(),
        key,
        superblock,
        host,
        journal,
        btrees: Arc::new(btrees),
        replay: left.into_replay(start),
        recovery,
        notices,
    })
}

/// What the version and the features of the volume say about writing it.
fn check_access(assembled: &Assembled) -> Result<(), OpenError> {
    match assembled.newest.access().map_err(|why| assembled.refused(why))? {
        Access::ReadOnly(reasons) => match reasons.first() {
            Some(reason) => Err(OpenError::ReadOnly(*reason)),
            None => Ok(()),
        },
        Access::ReadWrite => Ok(()),
    }
}

/// Every other reason in the superblock not to write a volume that could be read.
fn check_state(assembled: &Assembled) -> Result<(), OpenError> {
    let superblock = &assembled.newest;
    let needs_check = |why: String| Err(OpenError::NeedsCheck(why));
    if superblock.flags.has_topology_errors() {
        return needs_check("the shape of a b-tree is known to be wrong".into());
    }
    let (complete, version) = (superblock.upgraded_to(), superblock.version);
    if complete < version {
        return needs_check(format!("its upgrade to {version} was not finished"));
    }
    if !superblock.compat.contains(CompatFeatures::EXTENTS_ABOVE_BTREE_UPDATES_DONE) {
        return needs_check("it has b-tree nodes in a format of old programs".into());
    }
    let ext = superblock.sections.get::<Ext>().map_err(|why| assembled.refused(why))?;
    let required = ext.map_or(PassSet::EMPTY, |ext| ext.recovery_passes_required);
    if let Some(pass) = required.iter().find(|pass| !ALWAYS_RUN.contains(pass)) {
        return needs_check(format!("pass {pass} was asked for"));
    }
    let unlisted = assembled.members.live().find(|(dev, m)| {
        online(assembled, *dev)
            && m.flags.state() == MemberState::ReadWrite
            && !m.flags.freespace_initialized()
    });
    if let Some((dev, _)) = unlisted {
        return needs_check(format!("the free space of device {dev} is not listed yet"));
    }
    let has_journal = |ring: &Ring| !ring.buckets.is_empty() && takes_journal(&assembled.members, ring.dev);
    if !rings(assembled)?.iter().any(has_journal) {
        return needs_check("no device that can be written has a journal".into());
    }
    Ok(())
}

fn online(assembled: &Assembled, dev: DevIndex) -> bool {
    assembled.online.iter().any(|c| c.superblock.dev_idx == dev)
}

fn takes_journal(members: &Members, dev: DevIndex) -> bool {
    members.get(dev).is_some_and(|m| {
        m.flags.state() == MemberState::ReadWrite
            && m.flags.allows(DataType::JOURNAL)
            && m.flags.durability() > 0
    })
}

/// How the volume was left, and what is known from that.
enum Left {
    Clean { early: Early, journal_seq: Seq },
    Crashed { early: Early, journal: Box<read::Journal> },
}

impl Left {
    /// A damaged journal is never salvaged here: writing would make the loss final.
    fn find(assembled: &Assembled, key: Option<&Key>, notices: &mut Vec<Notice>) -> Result<Left, OpenError> {
        if assembled.newest.flags.clean() {
            let (early, journal_seq) = read_clean(assembled)?;
            return Ok(Left::Clean { early, journal_seq });
        }
        let blacklist = blacklist(assembled)?;
        let journal = read_journal(assembled, key, &rings(assembled)?, false, &blacklist, notices)?;
        let mut early = journal.early.clone();
        if key.is_some() {
            early.key_version = early.key_version.saturating_add(KEY_VERSIONS_SKIPPED);
        }
        Ok(Left::Crashed { early, journal: Box::new(journal) })
    }

    fn early(&self) -> &Early {
        match self {
            Left::Clean { early, .. } | Left::Crashed { early, .. } => early,
        }
    }

    /// A lost root needs repair. And what says which buckets are free must have roots: the first node of these b-trees would need a bucket before it is
    /// known which are free. Only a crash within the first second of a volume's first start leaves them without.
    fn check_roots(&self) -> Result<(), OpenError> {
        let roots = &self.early().roots;
        if let Some((btree, _)) = roots.iter().find(|(_, root)| root.key.is_none()) {
            return Err(OpenError::NeedsCheck(format!("the root of b-tree {btree} is lost")));
        }
        let Left::Crashed { journal, .. } = self else { return Ok(()) };
        let only_in_journal = [BtreeId::ALLOC, BtreeId::FREESPACE]
            .into_iter()
            .find(|btree| !roots.contains_key(btree) && !journal.overlay.level(*btree, 0).is_empty());
        match only_in_journal {
            Some(btree) => Err(OpenError::NeedsCheck(format!("b-tree {btree} is only in the journal yet"))),
            None => Ok(()),
        }
    }

    /// The b-trees as the volume was left, what only the journal holds laid over them.
    fn btrees(
        &self,
        assembled: &Assembled,
        key: Option<&Key>,
        cache_bytes: usize,
    ) -> Result<Btrees, OpenError> {
        let mut blacklist = blacklist(assembled)?;
        let mut overlay = Overlay::empty();
        if let Left::Crashed { journal, early } = self {
            blacklist.push(journal.unreliable());
            blacklist.extend(early.blacklist.iter().cloned());
            overlay = Overlay::from(&journal.overlay);
        }
        let format = node_format(&assembled.newest, key);
        let store = NodeStore::new(assembled.device_set(), format, blacklist);
        let roots = self.early().roots.iter().map(|(btree, root)| (*btree, root.into())).collect();
        Ok(Btrees::new(roots, overlay, Box::new(store), cache_bytes))
    }

    fn recovery(&self) -> Recovery {
        match self {
            Left::Clean { journal_seq, .. } => Recovery::Clean { journal_seq: *journal_seq },
            Left::Crashed { journal, .. } => Recovery::replayed(journal),
        }
    }

    fn into_replay(self, start: Start) -> Replay {
        match self {
            Left::Clean { .. } => Replay::nothing(),
            Left::Crashed { journal, .. } => Replay::new(journal.overlay, start.first),
        }
    }

    /// Steps 2 and 3: what must be written before the journal starts. Returns what it starts with.
    fn begin(
        &self,
        assembled: &Assembled,
        host: &VolumeHost,
        format: &Format,
    ) -> Result<(Vec<JournalMember>, Start), OpenError> {
        let superblock = host.superblock();
        let ranges = blacklist(assembled)?;
        match self {
            Left::Clean { journal_seq, .. } => {
                let behind = ranges.last().map_or(Seq(0), |range| range.end);
                let first = Seq(journal_seq.0.saturating_add(1)).max(behind);
                superblock.begin_session(&[])?;
                Ok((journal_members(assembled, &[])?, Start { first, replay_from: first }))
            }
            Left::Crashed { journal, early } => {
                let recovery = recovery_start(journal, &ranges);
                let mut members = journal_members(assembled, &journal.rings)?;
                superblock.check_unchanged()?;
                let copies = usize::from(assembled.newest.flags.metadata_replicas());
                write_marker(&mut members, format, copies, host, &recovery)?;
                let mut ranges = early.blacklist.clone();
                ranges.push(recovery.blacklist.clone());
                superblock.begin_session(&ranges)?;
                Ok((members, recovery.start))
            }
        }
    }
}

/// The members as the journal sees them. After a crash `found` says where each ring stands. Those that the superblock lists as having
/// journal entries come first: a reader may look at no others (spec 20 §5.2), so that is where the marker belongs.
fn journal_members(assembled: &Assembled, found: &[RingFound]) -> Result<Vec<JournalMember>, OpenError> {
    let replicas = Replicas::load(&assembled.newest.sections).map_err(|why| assembled.refused(why))?;
    let listed =
        |dev: DevIndex| replicas.0.iter().any(|e| e.data_type == DataType::JOURNAL && e.devs.contains(&dev));
    let mut members = Vec::new();
    for ring in rings(assembled)? {
        let Some(member) = assembled.members.get(ring.dev) else { continue };
        let position = match found.iter().find(|f| f.dev == ring.dev) {
            Some(found) => Position::Found(found.clone()),
            None => Position::Clean {
                index: member.last_journal_bucket,
                offset: Sectors(member.last_journal_bucket_offset.into()),
            },
        };
        members.push(JournalMember {
            dev: ring.dev,
            device: ring.device,
            bucket: ring.bucket,
            buckets: ring.buckets,
            position,
            writable: member.flags.state() == MemberState::ReadWrite,
            durability: if member.flags.allows(DataType::JOURNAL) { member.flags.durability() } else { 0 },
            discard: member.flags.discard(),
        });
    }
    members.sort_by_key(|member| (!listed(member.dev), member.dev));
    Ok(members)
}

fn metadata_csum_type(superblock: &Superblock) -> frazil_ondisk::error::Result<ChecksumType> {
    Ok(superblock.metadata_checksum()?.metadata_type(superblock.encryption()))
}

fn journal_format(superblock: &Superblock, key: Option<&Key>) -> frazil_ondisk::error::Result<Format> {
    Ok(Format {
        magic: jset_magic(&superblock.uuid),
        version: superblock.version,
        csum_type: metadata_csum_type(superblock)?,
        key: key.cloned(),
        block_bytes: superblock.block_bytes() as usize,
        has_overwrites: false,
    })
}

fn journal_options(superblock: &Superblock, no_space: NoSpace) -> engine::Options {
    let millis = |ms: u32| std::time::Duration::from_millis(ms.into());
    engine::Options {
        replicas: superblock.flags.metadata_replicas().into(),
        flush_delay: millis(superblock.flags.journal_flush_delay_ms()),
        reclaim_delay: millis(superblock.flags.journal_reclaim_delay_ms()),
        no_space,
        ..engine::Options::default()
    }
}
