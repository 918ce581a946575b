//! Every rule a superblock must keep (spec 10 §7 and §11.1), and what is supplied when an old program left it out.
//!
//! Rules that need one section only are in that section's decoder; rules between sections are here.

use crate::error::{DecodeError, Result};
use crate::superblock::Superblock;
use crate::superblock::features::Features;
use crate::superblock::flags::Flags;
use crate::superblock::options::{self, Target};
use crate::superblock::sections::{DiskGroups, Downgrade, Replicas, Section};
use crate::superblock::time::TimeBase;
use crate::units::{DevIndex, Sectors};
use crate::version::Version;

const WHAT: &str = "superblock";
/// The oldest number a version field may hold (spec 10 §7).
const VERSION_LOWEST: Version = Version(9);
/// Slots at format 1.13; newer programs have up to 255.
const DEVICES_MAX_1_13: u8 = 64;

impl Superblock {
    /// Checks the version fields: the rule for accepting a copy, not for being able to read the filesystem ([`super::access`]).
    ///
    /// # Errors
    /// If a version is of a newer major version, older than any, or `version_min` is above `version`.
    pub fn check_version(&self) -> Result<()> {
        for (field, v) in [("version", self.version), ("version_min", self.version_min)] {
            if v.major() > Version::WRITE.major() {
                return Err(DecodeError::unsupported(
                    WHAT,
                    format!("{field} is {}.{}, a newer format than 1.x", v.major(), v.minor()),
                ));
            }
            if v < VERSION_LOWEST {
                return Err(DecodeError::invalid(WHAT, format!("{field} is {}.{}", v.major(), v.minor())));
            }
        }
        if self.version_min > self.version {
            return Err(DecodeError::invalid(
                WHAT,
                format!("version_min {} is above version {}", self.version_min, self.version),
            ));
        }
        Ok(())
    }

    /// Supplies, in memory, what older programs left out (spec 10 §11.1, spec 80 §2 and §3).
    pub fn fill_defaults(&mut self) {
        let version = self.version;
        let flags = &mut self.flags;
        default_if_zero(flags, Flags::journal_flush_delay_ms, Flags::set_journal_flush_delay_ms, 1000);
        default_if_zero(flags, Flags::journal_reclaim_delay_ms, Flags::set_journal_reclaim_delay_ms, 1000);
        default_if_zero(flags, Flags::version_upgrade_complete, Flags::set_version_upgrade_complete, version);
        if version.lacks_allocator_and_promote_options() {
            default_if_zero(
                flags,
                Flags::allocator_stuck_timeout_s,
                Flags::set_allocator_stuck_timeout_s,
                30,
            );
            flags.set_promote_whole_extents(true);
        }
        if self.features.contains(Features::INCOMPAT_VERSION_FIELD) {
            flags.set_version_incompat_allowed(flags.version_incompat_allowed().min(version));
            let allowed = flags.version_incompat_allowed().max(flags.version_incompat());
            flags.set_version_incompat_allowed(allowed);
        }
    }

    /// Checks every rule, in the order of spec 10 §11.1. Call [`Superblock::fill_defaults`] first.
    ///
    /// # Errors
    /// The first rule that is broken; another copy would not help.
    pub fn validate(&self) -> Result<()> {
        self.check_version()?;
        self.check_identity()?;
        self.check_options()?;
        self.layout.validate()?;
        self.check_members()?;
        self.check_sections()
    }

    fn check_identity(&self) -> Result<()> {
        let invalid = |why: String| Err(DecodeError::invalid(WHAT, why));
        if self.uuid.is_nil() || self.user_uuid.is_nil() {
            return invalid("a UUID is zero".into());
        }
        if self.nr_devices == 0 {
            return invalid("no devices".into());
        }
        if self.version <= Version::WRITE && self.nr_devices > DEVICES_MAX_1_13 {
            return invalid(format!("{} devices, at most {DEVICES_MAX_1_13}", self.nr_devices));
        }
        if self.dev_idx.0 >= self.nr_devices {
            return invalid(format!("device {} of {}", self.dev_idx, self.nr_devices));
        }
        let precision = self.time_base().precision_ns;
        if precision == 0 || precision > TimeBase::PRECISION_MAX {
            return invalid(format!(
                "time_precision {precision} ns, must be 1 to {}",
                TimeBase::PRECISION_MAX
            ));
        }
        Ok(())
    }

    /// Devices, their labels, and this device's journal.
    fn check_members(&self) -> Result<()> {
        let members = self.members()?;
        let groups = self.sections.get::<DiskGroups>()?.unwrap_or_default();
        groups.validate()?;
        let (block, node) = (Sectors(u64::from(self.block_sectors)), self.btree_node_size());
        for (index, member) in members.live() {
            member.validate(index, self.version, block, node)?;
            if let Some(group) = member.flags.group().filter(|&g| groups.get(g).is_none()) {
                return Err(DecodeError::invalid(
                    "superblock member",
                    format!("device {index} has label {group}, which does not exist"),
                ));
            }
        }
        match members.get(self.dev_idx) {
            Some(own) => self.journal_buckets()?.validate(own),
            // A removed device's own copy: the newest superblock decides that it is left out.
            None => Ok(()),
        }
    }

    /// Every section by itself, and those that speak of members or versions.
    fn check_sections(&self) -> Result<()> {
        let members = self.members()?;
        for raw in self.sections.iter() {
            match raw.decode()? {
                Section::ReplicasV0(list) => Replicas(list.0).validate(|dev| members.get(dev).is_some())?,
                Section::Replicas(list) => list.validate(|dev| members.get(dev).is_some())?,
                Section::Downgrade(list) => Downgrade::validate(&list, self.version)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The name of a target option's value: `none`, the label, or `device N`.
    ///
    /// # Errors
    /// If the section with the labels is damaged.
    pub fn target_name(&self, target: Target) -> Result<String> {
        Ok(match target {
            Target::None => "none".to_owned(),
            Target::Device(dev) => format!("device {dev}"),
            Target::Group(group) => {
                let groups = self.sections.get::<DiskGroups>()?.unwrap_or_default();
                groups.path(group.into()).unwrap_or_else(|| format!("(missing label {group})"))
            }
        })
    }

    /// The target a user named: `none`, a label, or `device N`.
    ///
    /// # Errors
    /// If there is no such label or device.
    pub fn parse_target(&self, text: &str) -> Result<Target> {
        let unknown = || DecodeError::invalid("target", format!("there is no label or device '{text}'"));
        if text == "none" {
            return Ok(Target::None);
        }
        if let Some(index) = text.strip_prefix("device ") {
            let dev = DevIndex(index.parse().map_err(|_| unknown())?);
            return self.members()?.get(dev).map(|_| Target::Device(dev)).ok_or_else(unknown);
        }
        let groups = self.sections.get::<DiskGroups>()?.unwrap_or_default();
        let index = groups.find(text).and_then(|i| u16::try_from(i).ok()).ok_or_else(unknown)?;
        let target = Target::Group(index);
        let raw = target.to_raw().ok_or_else(unknown)?;
        options::FOREGROUND_TARGET.check(raw.into()).map(|()| target)
    }
}

fn default_if_zero<T: Default + PartialEq>(
    flags: &mut Flags,
    get: impl Fn(&Flags) -> T,
    set: impl Fn(&mut Flags, T),
    value: T,
) {
    if get(flags) == T::default() {
        set(flags, value);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::superblock::layout::Layout;
    use crate::superblock::members::Member;
    use crate::superblock::sections::downgrade::DowngradeEntry;
    use crate::superblock::sections::{JournalV2, SectionType};
    use crate::superblock::tests::minimal;
    use crate::units::BucketIndex;

    fn broken(change: impl Fn(&mut Superblock)) -> String {
        let mut sb = minimal();
        change(&mut sb);
        sb.fill_defaults();
        sb.validate().unwrap_err().to_string()
    }

    fn with_member(change: impl Fn(&mut Member)) -> String {
        broken(|sb| {
            let mut members = sb.members().unwrap();
            change(&mut members.list[0]);
            sb.put_members(&members);
        })
    }

    #[test]
    fn a_minimal_superblock_is_valid() {
        let mut sb = minimal();
        sb.fill_defaults();
        assert_eq!(sb.validate(), Ok(()));
        assert_eq!(sb.flags.version_upgrade_complete(), Version::WRITE);
    }

    #[test]
    fn every_broken_rule_is_named() {
        assert!(broken(|sb| sb.version = Version::new(2, 0)).contains("newer format"));
        assert!(broken(|sb| sb.version_min = Version(8)).contains("version_min is 0.8"));
        assert!(broken(|sb| sb.version_min = Version::new(1, 14)).contains("above version"));
        assert!(broken(|sb| sb.user_uuid = Uuid::nil()).contains("UUID is zero"));
        assert!(broken(|sb| sb.nr_devices = 0).contains("no devices"));
        assert!(broken(|sb| sb.nr_devices = 65).contains("65 devices"));
        assert!(broken(|sb| sb.dev_idx = DevIndex(1)).contains("device 1 of 1"));
        assert!(broken(|sb| sb.time_precision_ns = 0).contains("time_precision 0"));
        assert!(broken(|sb| sb.block_sectors = 9).contains("block_size is 4608"));
        assert!(broken(|sb| sb.flags.set_metadata_replicas(4)).contains("metadata_replicas is 4"));
        assert!(broken(|sb| sb.layout.layout_type = 1).contains("layout"));
        assert!(broken(|sb| sb.nr_devices = 2).contains("1 member records for 2"));
        assert!(with_member(|m| m.nbuckets = 10).contains("at least 64"));
        assert!(with_member(|m| assert!(m.flags.set_group(Some(3)))).contains("label 3"));
        let outside = JournalV2::from_buckets([BucketIndex(512)]);
        assert!(broken(|sb| sb.put_journal_buckets(&outside)).contains("past the end"));
        let entry =
            DowngradeEntry { version: Version(9), recovery_passes: Default::default(), errors: vec![] };
        assert!(broken(|sb| sb.sections.put(&Downgrade(vec![entry.clone()]))).contains("downgrade"));
    }

    #[test]
    fn old_superblocks_get_their_defaults() {
        let mut sb = minimal();
        sb.version = Version::new(1, 7);
        sb.flags.set_journal_flush_delay_ms(0);
        sb.flags.set_allocator_stuck_timeout_s(0);
        sb.flags.set_promote_whole_extents(false);
        sb.fill_defaults();
        assert_eq!(sb.flags.journal_flush_delay_ms(), 1000);
        assert_eq!(sb.flags.allocator_stuck_timeout_s(), 30);
        assert!(sb.flags.promote_whole_extents());
    }

    #[test]
    fn incompatible_versions_are_ordered() {
        let mut sb = minimal();
        sb.version = Version::new(1, 30);
        sb.features = sb.features.union(Features::INCOMPAT_VERSION_FIELD);
        sb.flags.set_version_incompat_allowed(Version::new(1, 39));
        sb.fill_defaults();
        assert_eq!(sb.flags.version_incompat_allowed(), Version::new(1, 30));
        sb.flags.set_version_incompat(Version::new(1, 31));
        sb.fill_defaults();
        assert_eq!(sb.flags.version_incompat_allowed(), Version::new(1, 31));
    }

    #[test]
    fn members_v2_may_stand_alone_and_v1_too() {
        for ty in [SectionType::MEMBERS_V1, SectionType::MEMBERS_V2] {
            let mut sb = minimal();
            sb.sections.remove(ty);
            assert_eq!(sb.validate(), Ok(()));
            assert_eq!(sb.members().unwrap().list[0].nbuckets, 512);
        }
        let mut neither = minimal();
        neither.sections.remove(SectionType::MEMBERS_V1);
        neither.sections.remove(SectionType::MEMBERS_V2);
        assert!(neither.validate().is_err());
    }

    #[test]
    fn targets_have_names() {
        let mut sb = minimal();
        let mut groups = DiskGroups::default();
        groups.find_or_add("ssd.one").unwrap();
        sb.sections.put(&groups);
        for text in ["none", "ssd", "ssd.one", "device 0"] {
            let target = sb.parse_target(text).unwrap();
            assert_eq!(sb.target_name(target).unwrap(), text);
        }
        assert_eq!(sb.parse_target("ssd").unwrap().to_raw(), Some(257));
        assert!(sb.parse_target("device 1").is_err() && sb.parse_target("hdd").is_err());
    }

    #[test]
    fn layouts_are_checked() {
        assert!(Layout::new(11, &[Sectors(8), Sectors(9)]).is_err());
    }
}
