//! Opening a volume for reading: from a handful of devices, given in any order, to b-trees that answer.
//!
//! ```text
//!  devices ─superblocks─► candidates ─assemble─► members ─unlock─► key ─recover─► roots + overlay ─► Volume
//! ```
//!
//! 1. **Superblocks** ([`superblocks`]). On each device the copy that counts is found, validated, and compared with the
//!    others: strangers are refused, devices that were removed or written apart are left out with a notice.
//! 2. **Enough devices?** A missing member is accepted only when the caller allows degraded reading *and* every set of
//!    replicas still has enough of its members (spec 60 §2.5).
//! 3. **May it be read at all?** One rule set, `Superblock::access`.
//! 4. **Unlock** ([`mod@unlock`]): an encrypted volume needs its passphrase before anything else can be read.
//! 5. **Recover in memory** ([`recover`]): after a clean shutdown roots and clocks stand in the superblock; otherwise the
//!    journal is read and its keys become the overlay of the b-trees. A volume that was formatted but never started gets
//!    the keys its first start would write ([`initial`]), also as an overlay.
//!
//! Nothing is ever written here, and devices opened without write permission serve as well as others.

mod initial;
mod journal;
mod recover;
mod superblocks;
mod unlock;

use std::sync::Arc;

use frazil_btree::{Btrees, NodeFormat, NodeStore, SnapshotTable};
use frazil_device::{Device, DeviceSet};
use frazil_ondisk::crypto::Key;
use frazil_ondisk::node::node_magic;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::access::Access;
use frazil_ondisk::superblock::assembly::{self, Degraded};
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::superblock::sections::replicas::Replicas;
use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_ondisk::version::Version;

pub use journal::JournalView;
pub(crate) use journal::{Ring, blacklist, rings};
pub use recover::Recovery;
pub(crate) use recover::{read_clean, read_journal};
pub(crate) use superblocks::read_copy;
pub use superblocks::read_superblock;
pub use unlock::Passphrase;
pub(crate) use unlock::unlock;

use crate::data::{Reader, ReaderOptions};
use crate::error::{Notice, OpenError};
use crate::volume::Volume;
pub(crate) use superblocks::Candidate;

/// Node cache of a volume opened without asking for another size, in bytes.
pub const CACHE_BYTES_DEFAULT: usize = 96 << 20;

/// How to open.
pub struct OpenOptions<'p> {
    /// Which missing devices are tolerated.
    pub degraded: Degraded,
    /// Accept devices that were written apart from each other; the newest one wins.
    pub ignore_split_brain: bool,
    /// Use the journal as far as it can be used, where it is damaged (default: refuse).
    pub salvage_journal: bool,
    /// Bound of the node cache in bytes.
    pub cache_bytes: usize,
    /// Where the passphrase of an encrypted volume comes from.
    pub passphrase: Passphrase<'p>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            degraded: Degraded::No,
            ignore_split_brain: false,
            salvage_journal: false,
            cache_bytes: CACHE_BYTES_DEFAULT,
            passphrase: Passphrase::None,
        }
    }
}

/// Opens the volume that consists of these devices, for reading.
///
/// # Errors
/// Every reason a volume cannot be read, in one line that says what to do: [`OpenError`].
pub fn open(devices: Vec<Arc<dyn Device>>, options: OpenOptions<'_>) -> Result<Volume, OpenError> {
    let mut notices = Vec::new();
    let assembled = assemble(devices, &options, &mut notices)?;
    let superblock = &assembled.newest;
    if let Access::ReadOnly(reasons) = superblock.access().map_err(|why| assembled.refused(why))? {
        // The first reason is enough for a person; the superblock has them all.
        notices.extend(reasons.first().copied().map(Notice::ReadOnly));
    }
    let key = unlock(superblock, options.passphrase)?;
    let recovered = recover::recover(&assembled, key.as_ref(), options.salvage_journal, &mut notices)?;

    let devices = assembled.device_set();
    let Assembled { newest: superblock, members, .. } = assembled;
    let format = node_format(&superblock, key.as_ref());
    let store = NodeStore::new(devices.clone(), format, recovered.blacklist);
    let btrees = Btrees::new(recovered.roots, recovered.overlay, Box::new(store), options.cache_bytes);
    let btrees = Arc::new(btrees);
    let reader_options = ReaderOptions::of(&superblock, &members, key.clone());
    let data = Reader::new(devices.clone(), Arc::clone(&btrees), reader_options);
    let (snapshots, lost) = SnapshotTable::load(&btrees);
    notices.extend(lost.into_iter().map(|why| Notice::Snapshots(Arc::new(why))));
    let volume = Volume {
        superblock,
        members,
        devices,
        key,
        btrees,
        data,
        snapshots: Arc::new(snapshots),
        recovery: recovered.how,
        accounting_deltas: recovered.accounting_deltas,
        notices,
    };
    check_data_replicas(&volume, options.degraded)?;
    Ok(volume)
}

/// How the nodes of b-trees are read and written.
pub(crate) fn node_format(superblock: &Superblock, key: Option<&Key>) -> NodeFormat {
    NodeFormat {
        magic: node_magic(&superblock.uuid),
        block: Sectors(superblock.block_sectors.into()),
        node: superblock.btree_node_size(),
        key: key.cloned(),
        version: superblock.version,
        version_min: superblock.version_min,
    }
}

/// Whether enough devices are there for the data too. The superblock says so of all replicas up to 1.35, and of metadata only
/// since then: where data lies is then only known from accounting (spec 80 §5.16).
fn check_data_replicas(volume: &Volume, allowed: Degraded) -> Result<(), OpenError> {
    let complete = volume.members.live().all(|(dev, _)| volume.devices.get(dev.0).is_some());
    if complete || volume.superblock.version_incompat() < Version::NO_SB_USER_DATA_REPLICAS {
        return Ok(());
    }
    let replicas = volume.data_replicas()?;
    assembly::check_online(&volume.members, |dev| volume.devices.get(dev.0).is_some(), &replicas, allowed)
        .map_err(OpenError::Insufficient)
}

/// The devices that belong together.
pub(crate) struct Assembled {
    /// The superblock that counts, defaults filled in.
    pub(crate) newest: Superblock,
    pub(crate) members: Members,
    /// The devices present, each with its own superblock.
    pub(crate) online: Vec<Candidate>,
}

impl Assembled {
    /// The refusal of the whole volume, in the name of its first device.
    pub(crate) fn refused(&self, source: frazil_ondisk::DecodeError) -> OpenError {
        OpenError::Refused { device: self.online[0].device.name().clone(), source }
    }

    /// The devices present, by member index.
    pub(crate) fn device_set(&self) -> DeviceSet {
        self.online.iter().map(|c| (c.superblock.dev_idx.0, c.device.clone())).collect()
    }

    /// The devices present, each with its own superblock.
    pub(crate) fn own_superblocks(&self) -> Vec<(Arc<dyn Device>, Superblock)> {
        self.online.iter().map(|c| (Arc::clone(&c.device), c.superblock.clone())).collect()
    }

    fn is_online(&self, dev: DevIndex) -> bool {
        self.online.iter().any(|c| c.superblock.dev_idx == dev)
    }
}

/// Steps 1 and 2.
pub(crate) fn assemble(
    devices: Vec<Arc<dyn Device>>,
    options: &OpenOptions<'_>,
    notices: &mut Vec<Notice>,
) -> Result<Assembled, OpenError> {
    let candidates = devices.into_iter().map(Candidate::read).collect::<Result<Vec<_>, _>>()?;
    let (newest, online) = superblocks::belonging(candidates, options.ignore_split_brain, notices)?;
    let members = newest.members().map_err(|source| refuse(&online[0], source))?;
    let assembled = Assembled { newest, members, online };
    let Assembled { newest, members, online } = &assembled;
    for candidate in online {
        candidate.check_capacity(members)?;
    }
    let replicas = Replicas::load(&newest.sections).map_err(|source| refuse(&online[0], source))?;
    assembly::check_online(members, |dev| assembled.is_online(dev), &replicas.0, options.degraded)
        .map_err(OpenError::Insufficient)?;
    let missing = members.live().map(|(dev, _)| dev).filter(|&dev| !assembled.is_online(dev));
    notices.extend(missing.map(Notice::MissingDevice));
    Ok(assembled)
}

pub(crate) fn refuse(candidate: &Candidate, source: frazil_ondisk::DecodeError) -> OpenError {
    OpenError::Refused { device: candidate.device.name().clone(), source }
}
