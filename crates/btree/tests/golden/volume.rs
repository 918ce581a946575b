//! Just enough of opening a volume to read the b-trees of golden images: superblocks, and the journal if they are unclean.
//! Doing it properly is the business of `frazil-volume`, which stands above this crate.

use std::ops::Range;
use std::sync::Arc;

use frazil_btree::{Btrees, NodeFormat, NodeStore, Overlay, Root};
use frazil_device::{Device, DeviceSet, MemDevice};
use frazil_journal::read::{self, Early, Options, Source};
use frazil_ondisk::crypto::{self, Crypt};
use frazil_ondisk::jset::{JsetFormat, jset_magic};
use frazil_ondisk::node::node_magic;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::options::Target;
use frazil_ondisk::superblock::sections::{Clean, JournalSeqBlacklist};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::list::ListContext;
use frazil_ondisk::version::Version;
use frazil_testing::golden::GoldenImage;

/// Less than the nodes of the larger images, so that eviction is exercised.
const CACHE_BYTES: usize = 1 << 20;
/// Where the first superblock of a device is.
const SUPERBLOCK_BYTE: usize = 8 * SECTOR_BYTES as usize;

/// What lies over the nodes of an unclean volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The keys to be replayed.
    Journal,
    /// Nothing; only the roots are the journal's.
    Nothing,
}

/// A golden image whose b-trees can be read.
pub(crate) struct Volume {
    pub(crate) trees: Btrees,
    pub(crate) facts: Facts,
}

/// What listings know of a volume beyond its keys.
pub(crate) struct Facts(Superblock);

impl ListContext for Facts {
    fn version(&self) -> Version {
        self.0.version
    }

    fn bucket_sectors(&self, dev: DevIndex) -> Option<u64> {
        Some(self.0.members().ok()?.get(dev)?.bucket_size().0)
    }

    fn target_name(&self, target: u16) -> Option<String> {
        self.0.target_name(Target::from_raw(target)).ok()
    }
}

struct Member {
    sb: Superblock,
    device: MemDevice,
    journal: Vec<BucketIndex>,
}

impl Member {
    fn new(bytes: Vec<u8>) -> Member {
        let sb = Superblock::decode(&bytes[SUPERBLOCK_BYTE..]).unwrap();
        let journal = sb.journal_buckets().unwrap().buckets().collect();
        Member { sb, device: MemDevice::from_bytes(&bytes).read_only(), journal }
    }

    fn source(&self) -> Source<'_> {
        Source {
            dev: self.sb.dev_idx,
            device: &self.device,
            bucket: self.sb.own_member().unwrap().bucket_size(),
            buckets: &self.journal,
        }
    }
}

/// Opens an image. Of superblocks that disagree the newest is believed.
pub(crate) fn open(image: &GoldenImage, over: Over) -> Volume {
    let members: Vec<Member> = image.bytes().into_iter().map(Member::new).collect();
    let sb = members.iter().map(|m| &m.sb).max_by_key(|sb| sb.seq).unwrap().clone();
    let key = sb.sections.get::<Crypt>().unwrap();
    let key = key.map(|crypt| crypt.unlock(image.passphrase_bytes(), &sb.uuid).unwrap());
    let mut blacklist = blacklist(&sb);

    let mut early = Early::default();
    let mut overlay = Overlay::empty();
    if !sb.flags.initialized() {
        // Formatted and never mounted: there is nothing yet.
    } else if sb.flags.clean() {
        early.apply(&sb.sections.get::<Clean>().unwrap().unwrap().entries);
    } else {
        let sources: Vec<Source<'_>> = members.iter().map(Member::source).collect();
        let found = read::read(&sources, &journal_options(&sb, key.as_ref(), &blacklist)).unwrap();
        blacklist.push(found.unreliable());
        blacklist.extend(found.early.blacklist.iter().cloned());
        if over == Over::Journal {
            overlay = Overlay::from(&found.overlay);
        }
        early = found.early;
    }

    let format = NodeFormat {
        magic: node_magic(&sb.uuid),
        block: Sectors(sb.block_sectors.into()),
        node: sb.btree_node_size(),
        key,
        version: sb.version,
        version_min: sb.version_min,
    };
    let devices: DeviceSet =
        members.into_iter().map(|m| (m.sb.dev_idx.0, Arc::new(m.device) as Arc<dyn Device>)).collect();
    let roots = early.roots.iter().map(|(btree, root)| (*btree, Root::from(root))).collect();
    let store = NodeStore::new(devices, format, blacklist);
    Volume { trees: Btrees::new(roots, overlay, Box::new(store), CACHE_BYTES), facts: Facts(sb) }
}

fn blacklist(sb: &Superblock) -> Vec<Range<Seq>> {
    let list = sb.sections.get::<JournalSeqBlacklist>().unwrap().unwrap_or_default();
    list.ranges().to_vec()
}

fn journal_options<'a>(
    sb: &Superblock,
    key: Option<&'a crypto::Key>,
    blacklist: &'a [Range<Seq>],
) -> Options<'a> {
    let format = JsetFormat { magic: jset_magic(&sb.uuid), block_bytes: sb.block_bytes() as usize, key };
    Options { format, version_min: sb.version_min, blacklist, salvage: false }
}
