//! What each section says, as names and values.

use super::{Fact, Facts, has_data, text_or_none};
use crate::btree_id::BtreeId;
use crate::data_type::DataType;
use crate::superblock::Superblock;
use crate::superblock::members::{Member, text};
use crate::superblock::recovery_pass::{PassSet, RecoveryPass};
use crate::superblock::sections::errors::ErrorCountV2;
use crate::superblock::sections::quota::{QuotaCounter, QuotaType};
use crate::superblock::sections::replicas::ReplicasEntry;
use crate::superblock::sections::{
    Clean, Counters, DiskGroups, Downgrade, Ext, JournalSeqBlacklist, JournalV2, Quota, RawSection,
    RecoveryPasses, Section,
};
use crate::units::{DevIndex, Sectors, UnixSeconds};

/// Describes a section: its size, then what is in it.
pub(super) fn describe(sb: &Superblock, raw: &RawSection) -> Facts {
    let mut facts = Facts::default();
    facts.add("Size", Fact::Bytes(raw.size() as u64));
    match raw.decode() {
        Ok(section) => describe_body(sb, section, &mut facts),
        Err(why) => facts.add("Damaged", Fact::Damaged(why.to_string())),
    }
    facts
}

fn describe_body(sb: &Superblock, section: Section, facts: &mut Facts) {
    match section {
        Section::MembersV1(v1) => add_members(sb, &v1.0, facts),
        Section::MembersV2(members) => add_members(sb, &members.list, facts),
        Section::Journal(old) => {
            facts.add("Buckets", Fact::List(old.0.iter().map(|b| Fact::Number(b.0)).collect()))
        }
        Section::JournalV2(ring) => add_journal(&ring, facts),
        Section::Crypt(crypt) => {
            facts.add("Passphrase needed", Fact::Switch(crypt.is_locked()));
            let cost = crypt.cost();
            for (name, log) in
                [("scrypt log2 N", cost.log_n), ("scrypt log2 r", cost.log_r), ("scrypt log2 p", cost.log_p)]
            {
                facts.add(name, Fact::Number(log.into()));
            }
        }
        Section::ReplicasV0(list) => add_replicas(&list.0, facts),
        Section::Replicas(list) => add_replicas(&list.0, facts),
        Section::Quota(quota) => add_quota(&quota, facts),
        Section::DiskGroups(groups) => add_groups(&groups, facts),
        Section::Clean(clean) => add_clean(&clean, facts),
        Section::JournalSeqBlacklist(list) => add_blacklist(&list, facts),
        Section::Counters(counters) => add_counters(&counters, facts),
        Section::Errors(list) => {
            let no_first =
                |e: &crate::superblock::sections::errors::ErrorCount| (e.id, e.count, e.last, None);
            add_errors(list.0.iter().map(no_first), facts);
        }
        Section::ErrorsV2(list) => {
            let with_first = |e: &ErrorCountV2| (e.id, e.count.into(), e.last, Some(e.first));
            add_errors(list.0.iter().map(with_first), facts);
        }
        Section::Ext(ext) => add_ext(&ext, facts),
        Section::Downgrade(list) => add_downgrade(&list, facts),
        Section::RecoveryPasses(passes) => add_recovery_passes(&passes, facts),
        Section::ExtentTypeU64s(types) => {
            let known = types.0.iter().enumerate().filter(|(_, n)| **n != 0);
            known.for_each(|(ty, &n)| facts.add(ty.to_string(), Fact::Number(n.into())));
        }
        Section::Unknown(_) => {}
    }
}

fn add_members(sb: &Superblock, list: &[Member], facts: &mut Facts) {
    for (i, member) in list.iter().enumerate().take(usize::from(sb.nr_devices)).filter(|(_, m)| m.is_live()) {
        facts.add(format!("Device {i}"), Fact::Group(describe_member(sb, DevIndex(i as u8), member)));
    }
}

fn describe_member(sb: &Superblock, index: DevIndex, m: &Member) -> Facts {
    let mut facts = Facts::default();
    let groups = sb.sections.get::<DiskGroups>().ok().flatten().unwrap_or_default();
    let label = m.flags.group().map(|g| groups.path(g).unwrap_or_else(|| format!("(missing label {g})")));
    facts.add("Label", text_or_none(label.unwrap_or_default()));
    facts.add("UUID", Fact::Uuid(m.uuid));
    facts.add("Size", bytes(m.size()));
    for (name, count) in [
        ("read errors", m.errors.read),
        ("write errors", m.errors.write),
        ("checksum errors", m.errors.checksum),
    ] {
        facts.add(name, Fact::Number(count));
    }
    for (name, iops) in
        ["seqread iops", "seqwrite iops", "randread iops", "randwrite iops"].into_iter().zip(m.iops)
    {
        facts.add(name, Fact::Number(iops.into()));
    }
    facts.add("Bucket size", bytes(m.bucket_size()));
    facts.add("First bucket", Fact::Number(m.first_bucket.into()));
    facts.add("Buckets", Fact::Number(m.nbuckets));
    facts.add("Last mount", Fact::Time(m.last_mount));
    facts.add("Last superblock write", Fact::Number(m.seq.0));
    facts.add("State", Fact::Text(m.flags.state().name().to_owned()));
    let allowed = (0..5).map(DataType).filter(|&t| m.flags.allows(t));
    facts.add("Data allowed", Fact::Names(allowed.map(|t| t.to_string()).collect()));
    facts.add("Has data", Fact::Names(has_data(sb, index)));
    let part = 1u64.checked_shl(m.btree_bitmap.shift.into()).map(Sectors);
    facts.add("Btree allocated bitmap blocksize", bytes(part.unwrap_or(Sectors(u64::MAX))));
    facts.add("Btree allocated bitmap", Fact::Text(format!("{:064b}", m.btree_bitmap.bits)));
    facts.add("Durability", Fact::Number(m.flags.durability().into()));
    facts.add("Discard", Fact::Switch(m.flags.discard()));
    facts.add("Freespace initialized", Fact::Switch(m.flags.freespace_initialized()));
    facts.add("Last journal bucket", Fact::Number(m.last_journal_bucket.into()));
    facts.add("Last journal bucket offset", Fact::Number(m.last_journal_bucket_offset.into()));
    if sb.version > crate::version::Version::WRITE {
        facts.add("Rotational", Fact::Switch(m.flags.rotational()));
        facts.add("Resize on mount", Fact::Switch(m.flags.resize_on_mount()));
        facts.add("Last device name", Fact::Text(text(&m.device_name)));
        facts.add("Last device model", Fact::Text(text(&m.device_model.0)));
        facts.add("Last device serial", Fact::Text(text(&m.device_serial.0)));
        facts.add("Failure domain", Fact::Text(text(&m.failure_domain)));
        facts.add("flush errors", Fact::Number(m.flush_errors));
    }
    facts
}

fn bytes(sectors: Sectors) -> Fact {
    Fact::Bytes(sectors.to_bytes().unwrap_or(u64::MAX))
}

fn add_journal(ring: &JournalV2, facts: &mut Facts) {
    facts.add("Nr buckets", Fact::Number(ring.len()));
    let range = |start: u64, nr: u64| Fact::Text(format!("{start}-{}", start.saturating_add(nr)));
    facts.add("Buckets", Fact::List(ring.0.iter().map(|r| range(r.start.0, r.nr)).collect()));
}

fn add_replicas(list: &[ReplicasEntry], facts: &mut Facts) {
    facts.add("Entries", Fact::List(list.iter().map(|e| Fact::Text(e.to_string())).collect()));
}

fn add_quota(quota: &Quota, facts: &mut Facts) {
    let counter = |facts: &mut Facts, name: &str, c: QuotaCounter| {
        facts.add(format!("{name} timelimit"), Fact::Number(c.timelimit_s.into()));
        facts.add(format!("{name} warnlimit"), Fact::Number(c.warnlimit.into()));
    };
    let describe_type = |ty: &QuotaType| {
        let mut facts = Facts::default();
        facts.add("flags", Fact::Number(ty.flags));
        counter(&mut facts, "space", ty.space);
        counter(&mut facts, "inodes", ty.inodes);
        Fact::Group(facts)
    };
    for (name, ty) in Quota::TYPE_NAMES.into_iter().zip(&quota.types) {
        facts.add(name, describe_type(ty));
    }
}

fn add_groups(groups: &DiskGroups, facts: &mut Facts) {
    for i in 0..groups.0.len() {
        facts.add(i.to_string(), Fact::Text(groups.path(i).unwrap_or_else(|| "(deleted)".to_owned())));
    }
}

fn add_clean(clean: &Clean, facts: &mut Facts) {
    facts.add("Flags", Fact::Number(clean.flags.into()));
    facts.add("Journal seq", Fact::Number(clean.journal_seq.0));
    let describe_entry = |entry| match entry {
        Ok(entry) => Fact::Text(format!("{entry:?}")),
        Err(why) => Fact::Damaged(format!("{why}")),
    };
    facts.add("Entries", Fact::List(clean.entries().map(describe_entry).collect()));
}

fn add_blacklist(list: &JournalSeqBlacklist, facts: &mut Facts) {
    let ranges = list.ranges().iter().map(|r| Fact::Text(format!("{}-{}", r.start, r.end)));
    facts.add("Ranges", Fact::List(ranges.collect()));
}

fn add_counters(counters: &Counters, facts: &mut Facts) {
    for (i, &value) in counters.0.iter().enumerate() {
        match Counters::name(i) {
            Some(name) => facts.add(name, Fact::Number(value)),
            None => facts.add(format!("(unknown counter {i})"), Fact::Number(value)),
        }
    }
}

fn add_errors(
    list: impl Iterator<Item = (crate::fsck_errors::FsckErrorId, u64, UnixSeconds, Option<UnixSeconds>)>,
    facts: &mut Facts,
) {
    for (id, count, last, first) in list {
        let mut error = Facts::default();
        error.add("Count", Fact::Number(count));
        if let Some(first) = first {
            error.add("First seen", Fact::Time(first));
        }
        error.add("Last seen", Fact::Time(last));
        facts.add(id.to_string(), Fact::Group(error));
    }
}

fn passes(set: PassSet) -> Fact {
    Fact::Names(set.iter().map(|p| p.to_string()).collect())
}

fn btrees(bitmap: u64) -> Fact {
    Fact::Names(Ext::btrees(bitmap).map(|b: BtreeId| b.to_string()).collect())
}

fn add_ext(ext: &Ext, facts: &mut Facts) {
    facts.add("Recovery passes required", passes(ext.recovery_passes_required));
    facts.add("Errors to silently fix", Fact::Names(ext.silent().map(|e| e.to_string()).collect()));
    facts.add("Btrees with missing data", btrees(ext.btrees_lost_data));
    facts.add("Btrees that have ever lost data", btrees(ext.btrees_lost_data_ever));
    facts.add("Btrees validated clean", btrees(ext.btrees_clean));
}

fn add_downgrade(list: &Downgrade, facts: &mut Facts) {
    for entry in &list.0 {
        let mut row = Facts::default();
        row.add("Recovery passes", passes(entry.recovery_passes));
        row.add("Errors", Fact::Names(entry.errors.iter().map(|e| e.to_string()).collect()));
        facts.add(entry.version.to_string(), Fact::Group(row));
    }
}

fn add_recovery_passes(list: &RecoveryPasses, facts: &mut Facts) {
    let ran = list.0.iter().enumerate().filter(|(_, run)| run.last_run != UnixSeconds(0));
    for (i, run) in ran {
        let mut row = Facts::default();
        row.add("Last run", Fact::Time(run.last_run));
        row.add("Last runtime", Fact::Number(run.last_runtime.into()));
        row.add("No rate limit", Fact::Switch(run.no_rate_limit()));
        facts.add(RecoveryPass(u8::try_from(i).unwrap_or(u8::MAX)).to_string(), Fact::Group(row));
    }
}
