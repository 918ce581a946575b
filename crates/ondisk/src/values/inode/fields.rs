//! The field stream of an inode: its order, widths and codings (spec 40 §2.2, §2.6, spec 80 §7.9).

use super::{Inode, InodeOpt, Rdev};
use crate::bytes::Reader;
use crate::error::Result;
use crate::units::{Inum, Sectors, SubvolId};
use crate::varint;

/// One field of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Atime,
    Ctime,
    Mtime,
    Otime,
    /// Legacy forms only: the current one has it in the header.
    Size,
    /// Legacy forms only.
    Sectors,
    Uid,
    Gid,
    Nlink,
    Generation,
    Dev,
    Opt(InodeOpt),
    FieldsSet,
    Dir,
    DirOffset,
    Subvol,
    ParentSubvol,
    Depth,
    Unused,
}

/// Order of the current form. Fields 25 and later exist since 1.17.
const ORDER_V3: [Field; 28] = [
    Field::Atime,
    Field::Ctime,
    Field::Mtime,
    Field::Otime,
    Field::Uid,
    Field::Gid,
    Field::Nlink,
    Field::Generation,
    Field::Dev,
    Field::Opt(InodeOpt::DataChecksum),
    Field::Opt(InodeOpt::Compression),
    Field::Opt(InodeOpt::Project),
    Field::Opt(InodeOpt::BackgroundCompression),
    Field::Opt(InodeOpt::DataReplicas),
    Field::Opt(InodeOpt::PromoteTarget),
    Field::Opt(InodeOpt::ForegroundTarget),
    Field::Opt(InodeOpt::BackgroundTarget),
    Field::Opt(InodeOpt::ErasureCode),
    Field::FieldsSet,
    Field::Dir,
    Field::DirOffset,
    Field::Subvol,
    Field::ParentSubvol,
    Field::Opt(InodeOpt::Nocow),
    Field::Depth,
    Field::Opt(InodeOpt::Inodes32bit),
    Field::Opt(InodeOpt::Casefold),
    Field::Unused,
];

/// How many fields at the start of either order are 96 bits wide and take two integers in the new coding.
const NR_TIMES: usize = 4;

/// Order of the legacy forms (spec 40 §2.6).
const ORDER_LEGACY: [Field; 25] = [
    Field::Atime,
    Field::Ctime,
    Field::Mtime,
    Field::Otime,
    Field::Size,
    Field::Sectors,
    Field::Uid,
    Field::Gid,
    Field::Nlink,
    Field::Generation,
    Field::Dev,
    Field::Opt(InodeOpt::DataChecksum),
    Field::Opt(InodeOpt::Compression),
    Field::Opt(InodeOpt::Project),
    Field::Opt(InodeOpt::BackgroundCompression),
    Field::Opt(InodeOpt::DataReplicas),
    Field::Opt(InodeOpt::PromoteTarget),
    Field::Opt(InodeOpt::ForegroundTarget),
    Field::Opt(InodeOpt::BackgroundTarget),
    Field::Opt(InodeOpt::ErasureCode),
    Field::FieldsSet,
    Field::Dir,
    Field::DirOffset,
    Field::Subvol,
    Field::ParentSubvol,
];

/// How a legacy stream codes integers.
#[derive(Clone, Copy)]
pub(super) enum Coding {
    /// [`varint::decode`], two per 96-bit field.
    New,
    /// [`varint::decode_old`], one per field.
    Old,
}

impl Field {
    /// Width in bits. The times are 96 bits wide, of which only the low 64 are ever used.
    fn width(self) -> u32 {
        match self {
            Field::Atime | Field::Ctime | Field::Mtime | Field::Otime => 96,
            Field::Size | Field::Sectors | Field::Dir | Field::DirOffset => 64,
            Field::FieldsSet => 16,
            Field::Opt(opt) => opt.width(),
            Field::Unused => 8,
            _ => 32,
        }
    }

    fn get(self, inode: &Inode) -> u64 {
        match self {
            Field::Atime => inode.atime as u64,
            Field::Ctime => inode.ctime as u64,
            Field::Mtime => inode.mtime as u64,
            Field::Otime => inode.otime as u64,
            Field::Size => inode.size,
            Field::Sectors => inode.sectors.0,
            Field::Uid => inode.uid.into(),
            Field::Gid => inode.gid.into(),
            Field::Nlink => inode.nlink_raw.into(),
            Field::Generation => inode.generation.into(),
            Field::Dev => inode.rdev.0.into(),
            Field::Opt(opt) => inode.opts.raw(opt).into(),
            Field::FieldsSet => inode.fields_set.into(),
            Field::Dir => inode.dir.0,
            Field::DirOffset => inode.dir_offset,
            Field::Subvol => inode.subvol.0.into(),
            Field::ParentSubvol => inode.parent_subvol.0.into(),
            Field::Depth => inode.depth.into(),
            Field::Unused => inode.unused.into(),
        }
    }

    /// Stores a value that fits the field's width.
    fn set(self, inode: &mut Inode, v: u64) {
        match self {
            Field::Atime => inode.atime = v as i64,
            Field::Ctime => inode.ctime = v as i64,
            Field::Mtime => inode.mtime = v as i64,
            Field::Otime => inode.otime = v as i64,
            Field::Size => inode.size = v,
            Field::Sectors => inode.sectors = Sectors(v),
            Field::Uid => inode.uid = v as u32,
            Field::Gid => inode.gid = v as u32,
            Field::Nlink => inode.nlink_raw = v as u32,
            Field::Generation => inode.generation = v as u32,
            Field::Dev => inode.rdev = Rdev(v as u32),
            Field::Opt(opt) => inode.opts.set_raw(opt, v as u32),
            Field::FieldsSet => inode.fields_set = v as u16,
            Field::Dir => inode.dir = Inum(v),
            Field::DirOffset => inode.dir_offset = v,
            Field::Subvol => inode.subvol = SubvolId(v as u32),
            Field::ParentSubvol => inode.parent_subvol = SubvolId(v as u32),
            Field::Depth => inode.depth = v as u32,
            Field::Unused => inode.unused = v as u8,
        }
    }
}

/// Reads the stream of the current form; fields after the known ones are ignored.
pub(super) fn read_v3(r: &mut Reader<'_>, nr_fields: usize, inode: &mut Inode) -> Result<()> {
    read_new(r, &ORDER_V3[..nr_fields.min(ORDER_V3.len())], inode)
}

/// Reads the stream of a legacy form.
pub(super) fn read_legacy(
    r: &mut Reader<'_>,
    nr_fields: usize,
    coding: Coding,
    inode: &mut Inode,
) -> Result<()> {
    let order = &ORDER_LEGACY[..nr_fields.min(ORDER_LEGACY.len())];
    match coding {
        Coding::New => read_new(r, order, inode),
        Coding::Old => order.iter().try_for_each(|&field| read_old(r, field, inode)),
    }
}

fn read_new(r: &mut Reader<'_>, order: &[Field], inode: &mut Inode) -> Result<()> {
    for (i, field) in order.iter().enumerate() {
        let v = varint::decode(r)?;
        // The times come first in every order.
        let high = if i < NR_TIMES { varint::decode(r)? } else { 0 };
        if v == 0 && high == 0 {
            continue; // What the inode was made with.
        }
        if high != 0 || field.width() < 64 && v >> field.width() != 0 {
            return Err(r.invalid("a field is larger than its width"));
        }
        field.set(inode, v);
    }
    Ok(())
}

fn read_old(r: &mut Reader<'_>, field: Field, inode: &mut Inode) -> Result<()> {
    let v = varint::decode_old(r)?;
    if v >> field.width().min(64) != 0 {
        return Err(r.invalid("a field is larger than its width"));
    }
    field.set(inode, v as u64);
    Ok(())
}

/// Longest possible stream: every field at its longest, and the high parts of four.
const STREAM_BYTES_MAX: usize = ORDER_V3.len() * varint::ENCODED_BYTES_MAX + 4;

/// Appends the stream of the current form, cut after the last field that is not zero, and returns how many fields
/// that is.
pub(super) fn write_v3(inode: &Inode, out: &mut Vec<u8>) -> usize {
    let nr_fields = nr_fields(inode);
    let mut buf = [0; STREAM_BYTES_MAX];
    let mut at = 0;
    for (i, field) in ORDER_V3[..nr_fields].iter().enumerate() {
        match field.get(inode) {
            0 => buf[at] = 0, // The integer before may have left something here.
            v => at += varint::encode_to(v, &mut buf[at..]) - 1,
        }
        at += 1;
        if i < NR_TIMES {
            buf[at] = 0;
            at += 1;
        }
    }
    out.extend_from_slice(&buf[..at]);
    nr_fields
}

/// How many fields the stream of the current form has.
pub(super) fn nr_fields(inode: &Inode) -> usize {
    ORDER_V3.iter().rposition(|field| field.get(inode) != 0).map_or(0, |i| i + 1)
}

/// The name the reference's listings give each field of the stream, with its stored value.
pub(super) fn named(inode: &Inode) -> impl Iterator<Item = (&'static str, u64)> {
    ORDER_V3.iter().map(move |&field| {
        let name = match field {
            Field::Atime => "atime",
            Field::Ctime => "ctime",
            Field::Mtime => "mtime",
            Field::Otime => "otime",
            Field::Size => "size",
            Field::Sectors => "sectors",
            Field::Uid => "uid",
            Field::Gid => "gid",
            Field::Nlink => "nlink",
            Field::Generation => "generation",
            Field::Dev => "dev",
            Field::Opt(opt) => opt.name(),
            Field::FieldsSet => "fields_set",
            Field::Dir => "dir",
            Field::DirOffset => "dir_offset",
            Field::Subvol => "subvol",
            Field::ParentSubvol => "parent_subvol",
            Field::Depth => "depth",
            Field::Unused => "unused_ec_max_data_blocks",
        };
        (name, field.get(inode))
    })
}
