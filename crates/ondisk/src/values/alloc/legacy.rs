//! The three older forms of alloc keys, read only (spec 50 §2.1).

use super::Alloc;
use crate::bytes::Reader;
use crate::data_type::DataType;
use crate::error::Result;
use crate::units::{Gen, Seq};
use crate::varint;

/// Widths of the fields of the first form, in bytes, in the order of the bits of its `fields` byte.
const V1_WIDTHS: [usize; 8] = [2, 2, 1, 2, 2, 1, 4, 1];

/// The first form: a bitmap of fields, each at a fixed width.
pub(super) fn decode_v1(value: &[u8]) -> Result<Alloc> {
    let mut r = Reader::new("alloc", value);
    let fields = r.u8()?;
    let generation = Gen(r.u8()?);
    let mut v = [0u64; 8];
    for (i, width) in V1_WIDTHS.into_iter().enumerate() {
        if fields >> i & 1 != 0 {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(r.bytes(width)?);
            v[i] = u64::from_le_bytes(bytes);
        }
    }
    let [read_time, write_time, data_type, dirty, cached, oldest_gen, stripe, redundancy] = v;
    Ok(Alloc {
        generation,
        oldest_gen: Gen(oldest_gen as u8),
        data_type: DataType(data_type as u8),
        io_time: [read_time, write_time],
        dirty_sectors: dirty as u32,
        cached_sectors: cached as u32,
        stripe: stripe as u32,
        stripe_redundancy: redundancy as u8,
        ..Alloc::default()
    })
}

/// The second form: counted variable-length fields.
pub(super) fn decode_v2(value: &[u8]) -> Result<Alloc> {
    decode_fields(&mut Reader::new("alloc_v2", value), Alloc::default())
}

/// The third form: the second behind a journal sequence and flags, of which only `need_discard` is carried on.
pub(super) fn decode_v3(value: &[u8]) -> Result<Alloc> {
    let mut r = Reader::new("alloc_v3", value);
    let journal_seq_nonempty = Seq(r.u64()?);
    let need_discard = r.u32()? & 1 != 0;
    decode_fields(&mut r, Alloc { journal_seq_nonempty, need_discard, ..Alloc::default() })
}

fn decode_fields(r: &mut Reader<'_>, head: Alloc) -> Result<Alloc> {
    let nr_fields = usize::from(r.u8()?);
    let generation = Gen(r.u8()?);
    let oldest_gen = Gen(r.u8()?);
    let data_type = DataType(r.u8()?);
    let mut v = [0u64; 6];
    for (field, max) in v.iter_mut().take(nr_fields).zip([64, 64, 32, 32, 32, 8]) {
        *field = varint::decode(r)?;
        if max < 64 && *field >> max != 0 {
            return Err(r.invalid("a field is larger than its width"));
        }
    }
    let [read_time, write_time, dirty, cached, stripe, redundancy] = v;
    Ok(Alloc {
        generation,
        oldest_gen,
        data_type,
        io_time: [read_time, write_time],
        dirty_sectors: dirty as u32,
        cached_sectors: cached as u32,
        stripe: stripe as u32,
        stripe_redundancy: redundancy as u8,
        ..head
    })
}
