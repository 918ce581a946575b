//! Putting the devices of a filesystem together (spec 10 §11.2, spec 60 §2.3 and §2.5).
//!
//! Every device brings its own superblock. The one written last counts; each of the others is compared with it. A device that
//! merely missed some writes is welcome. One that was removed, or changed on its own while the rest changed too (*split brain*), is left out. One
//! of another filesystem is a mistake of the user's.
//!
//! Then it is asked whether the devices that are left suffice, by member states and by the combinations of devices that hold copies.

use std::fmt;

use uuid::Uuid;

use crate::data_type::DataType;
use crate::superblock::Superblock;
use crate::superblock::members::{MemberState, Members};
use crate::superblock::sections::replicas::ReplicasEntry;
use crate::units::{DevIndex, SbSeq};

/// How one device's superblock relates to the one that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the filesystem. `stale`: it missed writes and is brought up to date by the next one.
    Member {
        /// It is older than the one that counts.
        stale: bool,
    },
    /// It is not used.
    LeftOut(LeftOut),
    /// The filesystem cannot be assembled with it.
    Stranger(Stranger),
}

/// Why a device is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// Its slot has no device any more.
    Removed(DevIndex),
    /// It was written with the same number at another time.
    SplitBrainTime(DevIndex),
    /// It was written on after the others last saw it.
    SplitBrainSeq {
        /// Its slot.
        dev: DevIndex,
        /// Its own superblock's number.
        own: SbSeq,
        /// The last number the others know it was written with.
        known: SbSeq,
    },
    /// Another device given has the same slot.
    SameSlot(DevIndex),
}

/// Why a device cannot be part of the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stranger {
    /// It belongs to the filesystem with this internal UUID.
    OtherFilesystem(Uuid),
    /// It has another block size, in sectors.
    BlockSize {
        /// Its own.
        own: u16,
        /// That of the filesystem.
        expected: u16,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftOut::Removed(dev) => write!(f, "it was removed from the filesystem (slot {dev})"),
            LeftOut::SplitBrainTime(dev) => write!(
                f,
                "device {dev} and the newest one were written apart from each other (split brain: same number, other time)"
            ),
            LeftOut::SplitBrainSeq { dev, own, known } => write!(
                f,
                "device {dev} was changed without the others (split brain: its superblock is number {own}, \
                 they last saw {known})"
            ),
            LeftOut::SameSlot(dev) => write!(f, "another device given is device {dev} too"),
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stranger::OtherFilesystem(uuid) => write!(f, "it belongs to another filesystem ({uuid})"),
            Stranger::BlockSize { own, expected } => {
                write!(f, "its block size is {own} sectors, that of the filesystem is {expected}")
            }
        }
    }
}

/// Which superblock counts, and what becomes of every device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembly {
    /// Index, into the superblocks given, of the one that counts.
    pub newest: usize,
    /// For each superblock given.
    pub verdicts: Vec<Verdict>,
}

/// Compares the superblocks of the devices given; `None` if none is given. `ignore_split_brain` uses devices that were changed apart
/// nevertheless (option `no_splitbrain_check`).
pub fn assemble<'a>(
    superblocks: impl IntoIterator<Item = &'a Superblock>,
    ignore_split_brain: bool,
) -> Option<Assembly> {
    let all: Vec<&Superblock> = superblocks.into_iter().collect();
    // The first of several equally new ones counts.
    let newest = (0..all.len()).rev().max_by_key(|&i| (all[i].seq, all[i].write_time))?;
    let mut verdicts: Vec<Verdict> =
        all.iter().map(|sb| compare(all[newest], sb, ignore_split_brain)).collect();
    let mut taken = vec![all[newest].dev_idx];
    for (i, sb) in all.iter().enumerate().filter(|&(i, _)| i != newest) {
        if !matches!(verdicts[i], Verdict::Member { .. }) {
            continue;
        }
        if taken.contains(&sb.dev_idx) {
            verdicts[i] = Verdict::LeftOut(LeftOut::SameSlot(sb.dev_idx));
        } else {
            taken.push(sb.dev_idx);
        }
    }
    Some(Assembly { newest, verdicts })
}

/// The tests of spec 60 §2.3, in its order.
fn compare(newest: &Superblock, sb: &Superblock, ignore_split_brain: bool) -> Verdict {
    if sb.uuid != newest.uuid {
        return Verdict::Stranger(Stranger::OtherFilesystem(sb.uuid));
    }
    let members = newest.members().ok();
    let Some(member) = members.as_ref().and_then(|m| m.get(sb.dev_idx)) else {
        return Verdict::LeftOut(LeftOut::Removed(sb.dev_idx));
    };
    if sb.block_sectors != newest.block_sectors {
        let (own, expected) = (sb.block_sectors, newest.block_sectors);
        return Verdict::Stranger(Stranger::BlockSize { own, expected });
    }
    let tells_apart = sb.version.has_member_seq() && newest.version.has_member_seq();
    if tells_apart && !ignore_split_brain {
        if sb.seq == newest.seq && sb.write_time != newest.write_time {
            return Verdict::LeftOut(LeftOut::SplitBrainTime(sb.dev_idx));
        }
        if member.seq != SbSeq(0) && member.seq < sb.seq {
            let (dev, own, known) = (sb.dev_idx, sb.seq, member.seq);
            return Verdict::LeftOut(LeftOut::SplitBrainSeq { dev, own, known });
        }
    }
    Verdict::Member { stale: sb.seq < newest.seq }
}

/// How incomplete a filesystem may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degraded {
    /// Not at all.
    No,
    /// As long as no data is lost.
    Yes,
    /// Even if some data cannot be read.
    Very,
}

/// Why the devices that are there do not suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insufficient {
    /// These members are missing, and being degraded was not allowed.
    Missing(Vec<DevIndex>),
    /// Fewer copies than there should be, and being degraded was not allowed.
    Degraded(ReplicasEntry),
    /// Everything of this combination is unreadable.
    Lost(ReplicasEntry),
}

impl fmt::Display for Insufficient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Insufficient::Missing(devs) => {
                let list: Vec<String> = devs.iter().map(|d| d.to_string()).collect();
                let (s, are) = if list.len() == 1 { ("", "is") } else { ("s", "are") };
                write!(
                    f,
                    "device{s} {} {are} missing: give every device, or allow reading without",
                    list.join(", ")
                )
            }
            Insufficient::Degraded(entry) => {
                write!(
                    f,
                    "copies are on missing devices ({entry}): give every device, or allow reading without"
                )
            }
            Insufficient::Lost(entry) => {
                write!(f, "too many devices are missing to read everything ({entry})")
            }
        }
    }
}

/// Whether the filesystem may be used with only some of its devices online (spec 60 §2.5). `replicas` are the combinations that
/// hold data: of the superblock, and of the accounting b-tree if the superblock has no entries for user data.
///
/// # Errors
/// Why not; the worst reason first.
pub fn check_online<'a>(
    members: &Members,
    is_online: impl Fn(DevIndex) -> bool,
    replicas: impl IntoIterator<Item = &'a ReplicasEntry>,
    allowed: Degraded,
) -> Result<(), Insufficient> {
    let mut degraded = None;
    for entry in replicas.into_iter().filter(|e| e.data_type != DataType::CACHED) {
        match health(members, &is_online, entry) {
            Degraded::Very if allowed < Degraded::Very => return Err(Insufficient::Lost(entry.clone())),
            Degraded::Yes if allowed < Degraded::Yes => degraded = degraded.or(Some(entry)),
            _ => {}
        }
    }
    let needed = |state| matches!(state, MemberState::ReadWrite | MemberState::ReadOnly);
    let missing = members.live().filter(|(dev, m)| needed(m.flags.state()) && !is_online(*dev));
    let missing: Vec<DevIndex> = missing.map(|(dev, _)| dev).collect();
    match degraded {
        _ if !missing.is_empty() && allowed == Degraded::No => Err(Insufficient::Missing(missing)),
        Some(entry) => Err(Insufficient::Degraded(entry.clone())),
        None => Ok(()),
    }
}

/// How much of a combination is there. Devices that no longer exist or have failed were given up already and are not missed.
fn health(members: &Members, is_online: &impl Fn(DevIndex) -> bool, entry: &ReplicasEntry) -> Degraded {
    let (total, needed) = (entry.devs.len(), usize::from(entry.nr_required));
    let given_up = |dev| members.get(dev).is_none_or(|m| m.flags.state() == MemberState::Failed);
    let online = entry.devs.iter().filter(|&&d| is_online(d)).count();
    let not_missed = entry.devs.iter().filter(|&&d| !is_online(d) && given_up(d)).count();
    match online {
        n if n + not_missed == total => Degraded::No,
        n if n < needed => Degraded::Very,
        _ => Degraded::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::members::Member;
    use crate::superblock::tests::minimal;
    use crate::units::UnixSeconds;

    /// Two devices of one filesystem, both at write 10.
    fn pair() -> [Superblock; 2] {
        [0, 1].map(|i| {
            let mut sb = minimal();
            let own = sb.members().unwrap().list.remove(0);
            let mut members = Members::new(vec![own.clone(), Member { uuid: Uuid::from_u128(9), ..own }]);
            members.list.iter_mut().for_each(|m| m.seq = SbSeq(10));
            sb.put_members(&members);
            (sb.dev_idx, sb.seq, sb.write_time) = (DevIndex(i), SbSeq(10), UnixSeconds(100));
            sb
        })
    }

    fn set_member_seq(sb: &mut Superblock, dev: usize, seq: u64) {
        let mut members = sb.members().unwrap();
        members.list[dev].seq = SbSeq(seq);
        sb.put_members(&members);
    }

    fn verdict(pair: &[Superblock; 2]) -> (usize, Verdict) {
        let assembly = assemble(pair, false).unwrap();
        let other = 1 - assembly.newest;
        (assembly.newest, assembly.verdicts[other].clone())
    }

    #[test]
    fn equal_and_stale_devices_are_members() {
        let mut devs = pair();
        assert_eq!(verdict(&devs), (0, Verdict::Member { stale: false }));
        devs[1].seq = SbSeq(12);
        set_member_seq(&mut devs[1], 1, 12);
        assert_eq!(verdict(&devs), (1, Verdict::Member { stale: true }));
        assert_eq!(assemble(&[], false), None);
    }

    #[test]
    fn devices_written_apart_are_left_out() {
        let mut devs = pair();
        devs[1].write_time = UnixSeconds(99);
        assert_eq!(verdict(&devs), (0, Verdict::LeftOut(LeftOut::SplitBrainTime(DevIndex(1)))));
        assert_eq!(assemble(&devs, true).unwrap().verdicts[1], Verdict::Member { stale: false });
        let mut devs = pair();
        devs[0].seq = SbSeq(15);
        devs[1].seq = SbSeq(12);
        let left_out = LeftOut::SplitBrainSeq { dev: DevIndex(1), own: SbSeq(12), known: SbSeq(10) };
        assert_eq!(verdict(&devs), (0, Verdict::LeftOut(left_out)));
        devs[1].version = crate::version::Version::new(1, 3);
        devs[1].version_min = devs[1].version;
        assert_eq!(verdict(&devs), (0, Verdict::Member { stale: true }));
    }

    #[test]
    fn removed_and_foreign_devices() {
        let mut devs = pair();
        let mut members = devs[0].members().unwrap();
        members.list[1].uuid = Uuid::nil();
        devs[0].put_members(&members);
        assert_eq!(verdict(&devs), (0, Verdict::LeftOut(LeftOut::Removed(DevIndex(1)))));
        let mut devs = pair();
        devs[1].uuid = Uuid::from_u128(5);
        assert_eq!(verdict(&devs), (0, Verdict::Stranger(Stranger::OtherFilesystem(Uuid::from_u128(5)))));
        let mut devs = pair();
        devs[1].block_sectors = 1;
        assert!(matches!(verdict(&devs).1, Verdict::Stranger(Stranger::BlockSize { own: 1, expected: 8 })));
        let mut devs = pair();
        devs[1].dev_idx = DevIndex(0);
        assert_eq!(verdict(&devs), (0, Verdict::LeftOut(LeftOut::SameSlot(DevIndex(0)))));
    }

    #[test]
    fn missing_devices_are_tolerated_as_far_as_allowed() {
        let members = pair()[0].members().unwrap();
        let entry = |nr_required, devs: &[u8]| ReplicasEntry {
            data_type: DataType::USER,
            nr_required,
            devs: devs.iter().map(|&d| DevIndex(d)).collect(),
        };
        let check = |entry: &ReplicasEntry, allowed| check_online(&members, |d| d.0 == 0, [entry], allowed);
        let (mirrored, single) = (entry(1, &[0, 1]), entry(1, &[1]));
        assert_eq!(check(&mirrored, Degraded::No), Err(Insufficient::Missing(vec![DevIndex(1)])));
        assert_eq!(check(&mirrored, Degraded::Yes), Ok(()));
        assert_eq!(check(&single, Degraded::Yes), Err(Insufficient::Lost(single.clone())));
        assert_eq!(check(&single, Degraded::Very), Ok(()));
        let cached = ReplicasEntry { data_type: DataType::CACHED, ..single.clone() };
        assert_eq!(check(&cached, Degraded::Yes), Ok(()));
        let mut failed = members.clone();
        failed.list[1].flags.set_state(MemberState::Failed);
        assert_eq!(check_online(&failed, |d| d.0 == 0, [&mirrored], Degraded::No), Ok(()));
        let text = check(&mirrored, Degraded::No).unwrap_err().to_string();
        assert!(text.starts_with("device 1 is missing"), "{text}");
    }
}
