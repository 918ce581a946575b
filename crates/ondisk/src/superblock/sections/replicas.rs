//! Which combinations of devices hold copies of something (spec 10 §9.4).
//!
//! An entry says: there may be objects of this type whose copies are all on exactly these devices, and `nr_required` of them are
//! needed to read one. At start this decides whether enough devices are present. An entry must be on disk before the first
//! pointer or journal entry that needs it; superfluous ones are harmless.
//!
//! The older section has no `nr_required` (it is 1). A writer uses it whenever it can express every entry. Since
//! VERSION_INCOMPAT 1.36 only superblock, journal and b-tree combinations are listed (spec 80 §5.16).

use crate::bytes::{PutLe, Reader};
use crate::data_type::DataType;
use crate::error::{DecodeError, Result};
use crate::superblock::sections::{SectionBody, SectionType, Sections};
use crate::units::DevIndex;

const WHAT: &str = "superblock section replicas";

/// One combination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicasEntry {
    /// What is stored so.
    pub data_type: DataType,
    /// How many of the devices are needed to read it.
    pub nr_required: u8,
    /// The devices, ascending; [`ReplicasEntry::INVALID_DEV`] stands for one that is gone.
    pub devs: Vec<DevIndex>,
}

impl ReplicasEntry {
    /// Placeholder for a device that no longer exists.
    pub const INVALID_DEV: DevIndex = DevIndex(255);

    /// Checks one entry; `is_member` says whether a device exists.
    ///
    /// # Errors
    /// Naming the rule of spec 10 §9.4 it breaks.
    pub fn validate(&self, is_member: impl Fn(DevIndex) -> bool) -> Result<()> {
        let fail = |why: String| Err(DecodeError::invalid(WHAT, format!("entry {self}: {why}")));
        if self.devs.is_empty() || self.devs.len() > usize::from(u8::MAX) {
            return fail("must have 1 to 255 devices".into());
        }
        if self.nr_required > 1 && usize::from(self.nr_required) >= self.devs.len() {
            return fail("needs all of its devices or more".into());
        }
        match self.devs.iter().find(|&&d| d != Self::INVALID_DEV && !is_member(d)) {
            Some(dev) => fail(format!("device {dev} is not a member")),
            None => Ok(()),
        }
    }
}

/// `user: 1/2 [0 1]`: type, required and total number, devices.
impl std::fmt::Display for ReplicasEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}/{} [", self.data_type, self.nr_required, self.devs.len())?;
        for (i, dev) in self.devs.iter().enumerate() {
            write!(f, "{}{dev}", if i > 0 { " " } else { "" })?;
        }
        f.write_str("]")
    }
}

/// Section `replicas_v0`: every `nr_required` is 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicasV0(pub Vec<ReplicasEntry>);

/// Section `replicas`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replicas(pub Vec<ReplicasEntry>);

/// Reads entries up to the end or a terminating data type 0.
fn decode_entries(payload: &[u8], with_required: bool) -> Result<Vec<ReplicasEntry>> {
    let mut r = Reader::new(WHAT, payload);
    let mut entries = Vec::new();
    while r.remaining() > 0 {
        let data_type = DataType(r.u8()?);
        if data_type == DataType::FREE {
            break;
        }
        let nr_devs = usize::from(r.u8()?);
        if nr_devs == 0 {
            return Err(r.invalid(format!("an entry for {data_type} without devices")));
        }
        let nr_required = if with_required { r.u8()? } else { 1 };
        let devs = r.bytes(nr_devs)?.iter().map(|&d| DevIndex(d)).collect();
        entries.push(ReplicasEntry { data_type, nr_required, devs });
    }
    Ok(entries)
}

fn encode_entries(entries: &[ReplicasEntry], with_required: bool, out: &mut Vec<u8>) {
    for entry in entries {
        out.put_u8(entry.data_type.0);
        out.put_u8(entry.devs.len() as u8);
        if with_required {
            out.put_u8(entry.nr_required);
        }
        out.extend(entry.devs.iter().map(|d| d.0));
    }
}

impl SectionBody for ReplicasV0 {
    const TYPE: SectionType = SectionType::REPLICAS_V0;

    fn decode(payload: &[u8]) -> Result<Self> {
        decode_entries(payload, false).map(ReplicasV0)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_entries(&self.0, false, out);
    }
}

impl SectionBody for Replicas {
    const TYPE: SectionType = SectionType::REPLICAS;

    fn decode(payload: &[u8]) -> Result<Self> {
        decode_entries(payload, true).map(Replicas)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_entries(&self.0, true, out);
    }
}

impl Replicas {
    /// The entries of whichever section is present; empty if none is.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn load(sections: &Sections) -> Result<Replicas> {
        if let Some(replicas) = sections.get::<Replicas>()? {
            return Ok(replicas);
        }
        Ok(Replicas(sections.get::<ReplicasV0>()?.unwrap_or_default().0))
    }

    /// Stores the entries in the older section if it can express them, else in the newer one, and removes the other.
    pub fn store(self, sections: &mut Sections) {
        if self.0.iter().all(|e| e.nr_required == 1) {
            sections.remove(SectionType::REPLICAS);
            sections.put(&ReplicasV0(self.0));
        } else {
            sections.remove(SectionType::REPLICAS_V0);
            sections.put(&self);
        }
    }

    /// Checks every entry, and that none occurs twice.
    ///
    /// # Errors
    /// Naming the entry at fault.
    pub fn validate(&self, is_member: impl Fn(DevIndex) -> bool) -> Result<()> {
        self.0.iter().try_for_each(|e| e.validate(&is_member))?;
        let mut sorted: Vec<&ReplicasEntry> = self.0.iter().collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(DecodeError::invalid(WHAT, format!("entry {} occurs twice", pair[0]))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(data_type: DataType, nr_required: u8, devs: &[u8]) -> ReplicasEntry {
        ReplicasEntry { data_type, nr_required, devs: devs.iter().map(|&d| DevIndex(d)).collect() }
    }

    #[test]
    fn bytes_of_a_fresh_image() {
        // spec 10 §9.4: btree on [0], journal on [0].
        let mut sections = Sections::default();
        let fresh = vec![entry(DataType::BTREE, 1, &[0]), entry(DataType::JOURNAL, 1, &[0])];
        Replicas(fresh.clone()).store(&mut sections);
        let payload = sections.raw(SectionType::REPLICAS_V0).unwrap().payload();
        assert_eq!(payload, [3, 1, 0, 2, 1, 0, 0, 0]);
        assert_eq!(Replicas::load(&sections).unwrap().0, fresh);
    }

    #[test]
    fn the_section_follows_the_entries() {
        let mut sections = Sections::default();
        let coded = Replicas(vec![entry(DataType::PARITY, 2, &[0, 1, 2])]);
        Replicas(vec![entry(DataType::USER, 1, &[0])]).store(&mut sections);
        coded.clone().store(&mut sections);
        assert!(!sections.has(SectionType::REPLICAS_V0));
        assert_eq!(Replicas::load(&sections).unwrap(), coded);
        assert_eq!(coded.0[0].to_string(), "parity: 2/3 [0 1 2]");
    }

    #[test]
    fn rules() {
        let check =
            |entries: Vec<ReplicasEntry>| Replicas(entries).validate(|d| d.0 < 2).map_err(|e| e.to_string());
        assert_eq!(
            check(vec![entry(DataType::USER, 1, &[0, 1]), entry(DataType::USER, 0, &[1, 255])]),
            Ok(())
        );
        for (bad, why) in [
            (vec![entry(DataType::USER, 1, &[])], "1 to 255 devices"),
            (vec![entry(DataType::PARITY, 2, &[0, 1])], "needs all"),
            (vec![entry(DataType::USER, 1, &[2])], "not a member"),
            (vec![entry(DataType::USER, 1, &[0]), entry(DataType::USER, 1, &[0])], "twice"),
        ] {
            assert!(check(bad).unwrap_err().contains(why), "{why}");
        }
        assert!(ReplicasV0::decode(&[4, 9, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(ReplicasV0::decode(&[4, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
