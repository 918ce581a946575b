//! Everything in a superblock as names and values, for `show-super` and its JSON (spec 10 §18).
//!
//! The result is a tree of plain data. It says what a number *is* (bytes, a time, one of several names), not how to print
//! it: sizes with units, local time and alignment are for whoever prints. Names and their order are those listings use.

mod section;

use std::borrow::Cow;

use uuid::Uuid;

use crate::superblock::Superblock;
use crate::superblock::options::{self, Encoding, OptionSpec, Target};
use crate::superblock::sections::{Replicas, ReplicasV0, SectionType};
use crate::units::{DevIndex, UnixSeconds};
use crate::version::Version;

/// A value, or a group of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Yes or no; listings print 1 and 0.
    Switch(bool),
    /// A number without a unit.
    Number(u64),
    /// A size in bytes.
    Bytes(u64),
    /// A moment; 0 is never.
    Time(UnixSeconds),
    /// Text, such as a label or a version.
    Text(String),
    /// A UUID.
    Uuid(Uuid),
    /// One of several names.
    Choice {
        /// All of them.
        names: &'static [&'static str],
        /// Position of the one that is chosen; may be out of range on a damaged volume.
        current: usize,
    },
    /// Names, in order; listings put commas between them.
    Names(Vec<String>),
    /// Values without names.
    List(Vec<Fact>),
    /// Values with names.
    Group(Facts),
    /// Something that could not be decoded, and why.
    Damaged(String),
}

/// Named values, in the order in which listings print them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts(pub Vec<(Cow<'static, str>, Fact)>);

impl Facts {
    /// The value with that name.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, fact)| fact)
    }

    fn add(&mut self, name: impl Into<Cow<'static, str>>, fact: Fact) {
        self.0.push((name.into(), fact));
    }
}

/// An empty text reads as `(none)`.
fn text_or_none(text: String) -> Fact {
    Fact::Text(if text.is_empty() { "(none)".to_owned() } else { text })
}

fn version(v: Version) -> Fact {
    Fact::Text(if v == Version(0) { "none".to_owned() } else { v.to_string() })
}

/// Describes a superblock: identity, state, then the groups `Options`, `Layout` and `Sections`.
pub fn describe(sb: &Superblock) -> Facts {
    let mut facts = Facts::default();
    add_identity(sb, &mut facts);
    add_versions(sb, &mut facts);
    add_state(sb, &mut facts);
    facts.add("Options", Fact::Group(describe_options(sb)));
    facts.add("Layout", Fact::Group(describe_layout(sb)));
    let mut sections = Facts::default();
    for raw in sb.sections.iter() {
        sections.add(raw.ty.to_string(), Fact::Group(section::describe(sb, raw)));
    }
    facts.add("Sections in detail", Fact::Group(sections));
    facts
}

fn add_identity(sb: &Superblock, facts: &mut Facts) {
    facts.add("External UUID", Fact::Uuid(sb.user_uuid));
    facts.add("Internal UUID", Fact::Uuid(sb.uuid));
    facts.add("Magic number", Fact::Uuid(sb.magic));
    facts.add("Device index", Fact::Number(sb.dev_idx.0.into()));
    facts.add("Label", text_or_none(sb.label()));
}

fn add_versions(sb: &Superblock, facts: &mut Facts) {
    facts.add("Version", version(sb.version));
    if sb.version > Version::WRITE {
        facts.add("Incompatible features allowed", version(sb.flags.version_incompat_allowed()));
        facts.add("Incompatible features in use", version(sb.flags.version_incompat()));
    }
    facts.add("Version upgrade complete", version(sb.upgraded_to()));
    facts.add("Oldest version on disk", version(sb.version_min));
}

fn add_state(sb: &Superblock, facts: &mut Facts) {
    facts.add("Created", Fact::Time(UnixSeconds(sb.time_base_ns / 1_000_000_000)));
    facts.add("Sequence number", Fact::Number(sb.seq.0));
    facts.add("Time of last write", Fact::Time(sb.write_time));
    facts.add("Superblock size", Fact::Bytes(sb.size() as u64));
    facts.add("Superblock max size", Fact::Bytes(sb.layout.superblock_bytes_max() as u64));
    facts.add("Initialized", Fact::Switch(sb.flags.initialized()));
    facts.add("Clean", Fact::Switch(sb.flags.clean()));
    facts.add("Has errors", Fact::Switch(sb.flags.has_errors()));
    facts.add("Has topology errors", Fact::Switch(sb.flags.has_topology_errors()));
    facts.add("Encrypted", Fact::Switch(sb.flags.encryption_type() != 0));
    facts.add(
        "Checksum type",
        match sb.csum_type() {
            Ok(ty) => Fact::Text(ty.to_string()),
            Err(why) => Fact::Damaged(why.to_string()),
        },
    );
    facts.add("Checksum", Fact::Text(sb.csum.to_string()));
    let devices = sb.members().map(|m| m.live().count() as u64);
    facts.add("Devices", devices.map_or_else(|e| Fact::Damaged(e.to_string()), Fact::Number));
    let mut types: Vec<SectionType> = sb.sections.iter().map(|s| s.ty).collect();
    types.sort_unstable();
    facts.add("Sections", Fact::Names(types.iter().map(SectionType::to_string).collect()));
    facts.add("Features", names(&sb.features.to_string()));
    facts.add("Compat features", names(&sb.compat.to_string()));
}

/// The names in a comma-separated list.
fn names(list: &str) -> Fact {
    Fact::Names(list.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect())
}

/// The stored options that volumes of this version have.
fn describe_options(sb: &Superblock) -> Facts {
    let mut facts = Facts::default();
    for spec in options::ALL.iter().filter(|o| o.applies_to(sb.version)) {
        facts.add(spec.name, describe_option(sb, spec));
    }
    facts
}

fn describe_option(sb: &Superblock, spec: &OptionSpec) -> Fact {
    let value = sb.option(spec);
    match spec.encoding {
        Encoding::Switch => Fact::Switch(value != 0),
        Encoding::Number => Fact::Number(value),
        Encoding::Sectors | Encoding::SectorsPow2 | Encoding::SectorsLog2 => Fact::Bytes(value),
        Encoding::Choice(names) => {
            Fact::Choice { names, current: usize::try_from(value).unwrap_or(usize::MAX) }
        }
        Encoding::Compression => Fact::Text(spec.format(value)),
        Encoding::Target => match sb.target_name(Target::from_raw(value as u16)) {
            Ok(name) => Fact::Text(name),
            Err(why) => Fact::Damaged(why.to_string()),
        },
    }
}

fn describe_layout(sb: &Superblock) -> Facts {
    let layout = &sb.layout;
    let mut facts = Facts::default();
    facts.add("Type", Fact::Number(layout.layout_type.into()));
    facts.add("Superblock max size", Fact::Bytes(layout.copy_sectors().to_bytes().unwrap_or(u64::MAX)));
    facts.add("Nr superblocks", Fact::Number(layout.copies().len() as u64));
    facts.add("Offsets", Fact::List(layout.copies().map(|s| Fact::Number(s.0)).collect()));
    facts
}

/// Names of the kinds of data a device has, according to the replicas sections.
fn has_data(sb: &Superblock, dev: DevIndex) -> Vec<String> {
    let older = sb.sections.get::<ReplicasV0>().ok().flatten().map(|r| r.0);
    let newer = sb.sections.get::<Replicas>().ok().flatten().map(|r| r.0);
    let entries = older.into_iter().chain(newer).flatten();
    let mut types: Vec<_> = entries.filter(|e| e.devs.contains(&dev)).map(|e| e.data_type).collect();
    types.sort_unstable();
    types.dedup();
    types.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::tests::minimal;

    #[test]
    fn the_example_described() {
        let facts = describe(&minimal());
        assert_eq!(facts.get("Version"), Some(&Fact::Text("1.13: inode_has_child_snapshots".into())));
        assert_eq!(facts.get("Label"), Some(&Fact::Text("(none)".into())));
        assert_eq!(facts.get("Superblock size"), Some(&Fact::Bytes(976)));
        assert_eq!(facts.get("Created"), Some(&Fact::Time(UnixSeconds(1_700_000_000))));
        let Some(Fact::Group(options)) = facts.get("Options") else { panic!("no options") };
        assert_eq!(options.0.len(), 37);
        assert_eq!(options.get("block_size"), Some(&Fact::Bytes(4096)));
        assert!(matches!(options.get("str_hash"), Some(Fact::Choice { current: 2, .. })));
        let Some(Fact::Group(sections)) = facts.get("Sections in detail") else { panic!("no sections") };
        assert_eq!(sections.0.len(), 2);
    }
}
