//! Labels of devices (spec 10 §9.6).
//!
//! A label is a path such as `ssd.fast.one`. Each component is an entry that names its parent, so labels form a tree. A
//! device carries one leaf and belongs to it and to everything above; a *target* option may name any entry.
//!
//! Targets and members refer to entries by position, so deleting one leaves a hole, which the next new entry fills.

use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::{DecodeError, Result};
use crate::superblock::sections::{SectionBody, SectionType};

const WHAT: &str = "superblock section disk_groups";
/// Bytes of a label component.
pub const LABEL_BYTES: usize = 32;
const ENTRY_BYTES: usize = LABEL_BYTES + 16;
/// Deepest path that is followed: a chain of parents that is longer is a loop.
const DEPTH_MAX: usize = 64;
/// Largest number of entries the parent field (18 bits) can address.
const ENTRIES_MAX: usize = (1 << 18) - 1;
/// Data types a new entry allows: all of them.
const DATA_ALLOWED_ALL: u64 = 31;

/// One component of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskGroup {
    /// The component, padded with zeros.
    pub label: [u8; LABEL_BYTES],
    flags: [u64; 2],
}

impl DiskGroup {
    /// A component below `parent` (an index), or at the top; longer names are cut to [`LABEL_BYTES`].
    fn new(label: &str, parent: Option<usize>) -> DiskGroup {
        let mut bytes = [0; LABEL_BYTES];
        let n = label.len().min(LABEL_BYTES);
        bytes[..n].copy_from_slice(&label.as_bytes()[..n]);
        let flags = with_bits(0, 1, 6, DATA_ALLOWED_ALL);
        let parent = parent.map_or(0, |p| p as u64 + 1);
        DiskGroup { label: bytes, flags: [with_bits(flags, 6, 24, parent), 0] }
    }

    /// The component as text, up to the first zero byte.
    pub fn name(&self) -> String {
        let end = self.label.iter().position(|&b| b == 0).unwrap_or(LABEL_BYTES);
        String::from_utf8_lossy(&self.label[..end]).into_owned()
    }

    /// The entry is a hole.
    pub fn is_deleted(&self) -> bool {
        bits(self.flags[0], 0, 1) != 0
    }

    /// Data types allowed, one bit each.
    pub fn data_allowed(&self) -> u8 {
        bits(self.flags[0], 1, 6) as u8
    }

    /// Index of the component above; `None` at the top.
    pub fn parent(&self) -> Option<usize> {
        (bits(self.flags[0], 6, 24) as usize).checked_sub(1)
    }
}

/// The section: entries by index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskGroups(pub Vec<DiskGroup>);

impl DiskGroups {
    /// A live entry.
    pub fn get(&self, index: usize) -> Option<&DiskGroup> {
        self.0.get(index).filter(|g| !g.is_deleted())
    }

    /// The entry and everything above it, nearest first; bounded even if the parents form a loop.
    pub fn ancestry(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let next = move |&i: &usize| self.get(i).and_then(DiskGroup::parent);
        std::iter::successors(self.get(index).map(|_| index), next).take(DEPTH_MAX)
    }

    /// The whole label of an entry, `a.b.c`; `None` for a hole or past the end.
    pub fn path(&self, index: usize) -> Option<String> {
        self.get(index)?;
        let mut names: Vec<String> = self.ancestry(index).filter_map(|i| Some(self.get(i)?.name())).collect();
        names.reverse();
        Some(names.join("."))
    }

    /// The entry with that whole label.
    pub fn find(&self, path: &str) -> Option<usize> {
        let mut parent = None;
        for component in path.split('.') {
            parent = Some(self.child(parent, component)?);
        }
        parent
    }

    fn child(&self, parent: Option<usize>, component: &str) -> Option<usize> {
        (0..self.0.len())
            .find(|&i| self.get(i).is_some_and(|g| g.parent() == parent && g.name() == component))
    }

    /// The entry with that whole label, made if it does not exist; so are the ones above it.
    ///
    /// # Errors
    /// If a component is empty or longer than [`LABEL_BYTES`], or there are too many entries.
    pub fn find_or_add(&mut self, path: &str) -> Result<usize> {
        let bad = |c: &&str| c.is_empty() || c.len() > LABEL_BYTES || c.contains('\0');
        if let Some(component) = path.split('.').find(bad) {
            return Err(DecodeError::invalid(
                WHAT,
                format!("'{component}' in label '{path}' must have 1 to {LABEL_BYTES} bytes"),
            ));
        }
        let mut parent = None;
        for component in path.split('.') {
            let index = match self.child(parent, component) {
                Some(index) => index,
                None => self.add(DiskGroup::new(component, parent))?,
            };
            parent = Some(index);
        }
        parent.ok_or_else(|| DecodeError::invalid(WHAT, "an empty label"))
    }

    fn add(&mut self, group: DiskGroup) -> Result<usize> {
        if let Some(hole) = self.0.iter().position(DiskGroup::is_deleted) {
            self.0[hole] = group;
            return Ok(hole);
        }
        if self.0.len() >= ENTRIES_MAX {
            return Err(DecodeError::invalid(WHAT, "too many labels"));
        }
        self.0.push(group);
        Ok(self.0.len() - 1)
    }

    /// Checks that live entries have names, and that no two are the same child of the same parent.
    ///
    /// # Errors
    /// Naming the entry.
    pub fn validate(&self) -> Result<()> {
        let mut seen = std::collections::HashSet::new();
        for (i, group) in self.0.iter().enumerate().filter(|(_, g)| !g.is_deleted()) {
            if group.label[0] == 0 {
                return Err(DecodeError::invalid(WHAT, format!("entry {i} has no name")));
            }
            if !seen.insert((group.parent(), group.name())) {
                return Err(DecodeError::invalid(WHAT, format!("label '{}' occurs twice", group.name())));
            }
        }
        Ok(())
    }
}

impl SectionBody for DiskGroups {
    const TYPE: SectionType = SectionType::DISK_GROUPS;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let mut groups = Vec::with_capacity(payload.len() / ENTRY_BYTES);
        while r.remaining() >= ENTRY_BYTES {
            groups.push(DiskGroup { label: r.array()?, flags: [r.u64()?, r.u64()?] });
        }
        Ok(DiskGroups(groups))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for group in &self.0 {
            out.extend_from_slice(&group.label);
            out.put_u64(group.flags[0]);
            out.put_u64(group.flags[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_specification() {
        let mut groups = DiskGroups::default();
        assert_eq!(groups.find_or_add("ssd.one"), Ok(1));
        assert_eq!(groups.find_or_add("hdd.two"), Ok(3));
        assert_eq!(groups.find("ssd"), Some(0));
        assert_eq!(groups.find_or_add("hdd"), Ok(2));
        assert_eq!(groups.path(3).as_deref(), Some("hdd.two"));
        assert!(groups.ancestry(3).eq([3, 2]));
        assert_eq!(groups.find("one"), None);
        assert!(groups.validate().is_ok());
        for bad in ["", "a..b", &"x".repeat(33)] {
            assert!(groups.find_or_add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn holes_are_reused_and_loops_end() {
        let mut groups = DiskGroups::default();
        groups.find_or_add("a.b").unwrap();
        groups.0[0].flags[0] |= 1;
        assert_eq!(groups.path(0), None);
        assert_eq!(groups.find_or_add("c"), Ok(0));
        groups.0[0] = DiskGroup::new("c", Some(1));
        groups.0[1] = DiskGroup::new("b", Some(0));
        assert_eq!(groups.ancestry(0).count(), DEPTH_MAX);
        groups.0[1] = DiskGroup::new("c", Some(1));
        assert!(groups.validate().unwrap_err().to_string().contains("twice"));
        groups.0[1] = DiskGroup::new("", None);
        assert!(groups.validate().unwrap_err().to_string().contains("no name"));
    }
}
