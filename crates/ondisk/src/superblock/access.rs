//! What may be done with a filesystem of some version: read, written, or neither, and why (spec 80 §2 and §8, spec 60 §3.1).
//!
//! This program reads every version from 1.0 to 1.39 and writes exactly one, 1.13. A version number that is too new is no
//! reason to refuse: the format says by feature bits and by VERSION_INCOMPAT what a reader must know. But it *is* a
//! reason not to write, because the rules a newer program relies on are not known here.
//!
//! Every reason has one place, and one line of text that tells a user what to do.

use std::fmt;

use crate::error::{DecodeError, Result};
use crate::superblock::Superblock;
use crate::superblock::features::Features;
use crate::version::Version;

const WHAT: &str = "superblock";

/// Why a readable filesystem must not be written by this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnlyReason {
    /// Written by a newer program.
    NewerVersion(Version),
    /// Not upgraded to 1.13 yet.
    OlderVersion(Version),
    /// A feature of a newer program is in use.
    Features(Features),
    /// An incompatible feature of a newer program is in use.
    Incompatible(Version),
    /// Allocation information has been left out and must be rebuilt.
    NoAllocInfo,
    /// A compact image that must first be resized.
    SmallImage,
    /// There is no superblock at the usual place.
    NoDefaultSuperblock,
    /// A device is only half added.
    HalfAddedDevice(u8),
    /// More devices than format 1.13 can have.
    TooManyDevices(u8),
}

impl fmt::Display for ReadOnlyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = format_args!("this program writes only format {}", Short(Version::WRITE));
        match self {
            ReadOnlyReason::NewerVersion(v) => {
                write!(f, "its format {} is newer: {writes}", Short(*v))
            }
            ReadOnlyReason::OlderVersion(v) => write!(
                f,
                "its format {} is older: {writes}; mounting it once with Linux 6.12 upgrades it",
                Short(*v)
            ),
            ReadOnlyReason::Features(features) => write!(f, "it uses newer features ({features}): {writes}"),
            ReadOnlyReason::Incompatible(v) => {
                write!(f, "it uses features of format {}: {writes}", Short(*v))
            }
            ReadOnlyReason::NoAllocInfo => f.write_str("its allocation information was left out"),
            ReadOnlyReason::SmallImage => f.write_str("it is a compact image that was never resized"),
            ReadOnlyReason::NoDefaultSuperblock => f.write_str("it has no superblock at sector 8"),
            ReadOnlyReason::HalfAddedDevice(dev) => write!(f, "adding device {dev} was not finished"),
            ReadOnlyReason::TooManyDevices(n) => write!(f, "it has {n} devices: {writes}, with up to 64"),
        }
    }
}

/// A version as `1.13`.
struct Short(Version);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.major(), self.0.minor())
    }
}

/// What may be done with a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only, for these reasons (at least one).
    ReadOnly(Vec<ReadOnlyReason>),
}

impl Superblock {
    /// Decides what may be done with the filesystem. Call it on a valid superblock, the one that counts ([`super::assembly`]).
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] if it cannot even be read, with the reason.
    pub fn access(&self) -> Result<Access> {
        self.check_readable()?;
        let reasons = self.read_only_reasons()?;
        Ok(if reasons.is_empty() { Access::ReadWrite } else { Access::ReadOnly(reasons) })
    }

    fn check_readable(&self) -> Result<()> {
        let refuse = |why: String| Err(DecodeError::unsupported(WHAT, why));
        let reads = format_args!(
            "this program reads formats {} to {}",
            Short(Version::READ_MIN),
            Short(Version::READ_MAX)
        );
        if self.version < Version::READ_MIN {
            return refuse(format!("format {} is too old: {reads}", Short(self.version)));
        }
        let unknown = self.features.unknown();
        if !unknown.is_empty() {
            return refuse(format!("it uses features this program does not know ({unknown}): {reads}"));
        }
        if self.version_incompat() > Version::READ_MAX {
            let used = Short(self.version_incompat());
            return refuse(format!("it uses features of format {used}: {reads}"));
        }
        if self.flags.big_endian() {
            return refuse("it was made on a big-endian machine; only little-endian is supported".into());
        }
        if !self.features.contains(Features::NEW_EXTENT_OVERWRITE) {
            return refuse("feature new_extent_overwrite is missing: it predates format 1.0".into());
        }
        let needs_old_recovery = self.flags.initialized()
            && !self.flags.clean()
            && !self.features.contains(Features::EXTENTS_ABOVE_BTREE_UPDATES);
        if needs_old_recovery {
            return refuse(
                "it was not shut down cleanly by a program too old for its journal to be understood".into(),
            );
        }
        Ok(())
    }

    fn read_only_reasons(&self) -> Result<Vec<ReadOnlyReason>> {
        let mut reasons = Vec::new();
        match self.version {
            v if v > Version::WRITE => reasons.push(ReadOnlyReason::NewerVersion(v)),
            v if v < Version::WRITE => reasons.push(ReadOnlyReason::OlderVersion(v)),
            _ => {}
        }
        let named = [
            (Features::NO_ALLOC_INFO, ReadOnlyReason::NoAllocInfo),
            (Features::SMALL_IMAGE, ReadOnlyReason::SmallImage),
            (Features::NO_DEFAULT_SB, ReadOnlyReason::NoDefaultSuperblock),
        ];
        reasons.extend(named.iter().filter(|(bit, _)| self.features.contains(*bit)).map(|(_, why)| *why));
        let newer =
            named.iter().fold(self.features.difference(Features::KNOWN_1_13), |f, n| f.difference(n.0));
        if !newer.is_empty() {
            reasons.push(ReadOnlyReason::Features(newer));
        }
        if self.version_incompat() > Version::WRITE {
            reasons.push(ReadOnlyReason::Incompatible(self.version_incompat()));
        }
        if self.nr_devices > 64 {
            reasons.push(ReadOnlyReason::TooManyDevices(self.nr_devices));
        }
        let members = self.members()?;
        let half = members.live().find(|(_, m)| m.flags.initializing_stage() != 0);
        reasons.extend(half.map(|(dev, _)| ReadOnlyReason::HalfAddedDevice(dev.0)));
        Ok(reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::tests::minimal;

    fn access(change: impl Fn(&mut Superblock)) -> Result<Access> {
        let mut sb = minimal();
        change(&mut sb);
        sb.access()
    }

    fn reasons(change: impl Fn(&mut Superblock)) -> Vec<ReadOnlyReason> {
        match access(change).unwrap() {
            Access::ReadWrite => vec![],
            Access::ReadOnly(reasons) => reasons,
        }
    }

    fn incompat(sb: &mut Superblock, minor: u16) {
        sb.features = sb.features.union(Features::INCOMPAT_VERSION_FIELD);
        sb.flags.set_version_incompat(Version::new(1, minor));
    }

    #[test]
    fn exactly_one_version_is_written() {
        assert_eq!(access(|_| ()), Ok(Access::ReadWrite));
        let (old, new) = (Version::new(1, 12), Version::new(1, 14));
        assert_eq!(reasons(|sb| sb.version = new), [ReadOnlyReason::NewerVersion(new)]);
        assert_eq!(reasons(|sb| sb.version = old), [ReadOnlyReason::OlderVersion(old)]);
        assert_eq!(
            reasons(|sb| sb.version = Version::new(1, 99)),
            [ReadOnlyReason::NewerVersion(Version::new(1, 99))]
        );
    }

    #[test]
    fn incompatible_features_in_use_decide_about_reading() {
        assert!(access(|sb| incompat(sb, 39)).is_ok());
        assert!(access(|sb| incompat(sb, 40)).unwrap_err().to_string().contains("features of format 1.40"));
        assert!(reasons(|sb| incompat(sb, 36)).contains(&ReadOnlyReason::Incompatible(Version::new(1, 36))));
        // Without the feature bit the fields mean nothing.
        assert_eq!(access(|sb| sb.flags.set_version_incompat(Version::new(1, 40))), Ok(Access::ReadWrite));
    }

    #[test]
    fn features_decide() {
        let set =
            |bit: u32| move |sb: &mut Superblock| sb.features = sb.features.union(Features([1u64 << bit, 0]));
        assert!(access(set(24)).unwrap_err().to_string().contains("unknown bit 24"));
        assert!(access(|sb| sb.features.0[1] = 1).is_err());
        assert_eq!(reasons(set(20)), [ReadOnlyReason::Features(Features::CASEFOLDING)]);
        assert_eq!(reasons(set(21)), [ReadOnlyReason::NoAllocInfo]);
        assert_eq!(reasons(set(22)), [ReadOnlyReason::SmallImage]);
        assert_eq!(reasons(set(23)), [ReadOnlyReason::NoDefaultSuperblock]);
        assert!(access(|sb| sb.features.0[0] &= !(1 << 9)).is_err());
        let unclean_without_order = |sb: &mut Superblock| {
            sb.flags.set_initialized(true);
            sb.features.0[0] &= !(1 << 12);
        };
        assert!(access(unclean_without_order).is_err());
        assert!(
            access(|sb| {
                unclean_without_order(sb);
                sb.flags.set_clean(true)
            })
            .is_ok()
        );
    }

    #[test]
    fn other_reasons() {
        assert!(access(|sb| sb.flags.set_big_endian(true)).is_err());
        assert!(
            access(|sb| sb.version = Version::SNAPSHOT_TREES).unwrap_err().to_string().contains("too old")
        );
        let half_added = |sb: &mut Superblock| {
            let mut members = sb.members().unwrap();
            members.list[0].flags.0 |= 1 << 34;
            sb.put_members(&members);
        };
        assert_eq!(reasons(half_added), [ReadOnlyReason::HalfAddedDevice(0)]);
        let text = reasons(|sb| sb.version = Version::new(1, 39))[0].to_string();
        assert_eq!(text, "its format 1.39 is newer: this program writes only format 1.13");
    }
}
