//! Where the data of a sparse member belong.
//!
//! GNU tar has written sparse files in four forms: a map in the header and blocks behind it; pairs of pax records; one pax record with all
//! numbers; and, today, a map as text in front of the data. In all of them the data of the stretches follow each
//! other without the holes.

use std::io::{self, Read};

use super::members::{BLOCK_BYTES, Member, Members, malformed};
use super::records::number;

/// More stretches than this are not believed: a map of so many would take 16 MiB.
const STRETCHES_MAX: u64 = 1 << 20;
/// Longest line of a map.
const LINE_BYTES_MAX: usize = 32;

/// The map of a sparse member.
pub(super) struct Map {
    /// Length of the file with its holes.
    pub(super) size: u64,
    /// Its real name, if its header has another.
    pub(super) name: Option<Vec<u8>>,
    /// Offset and length of all data, ascending, within the size.
    pub(super) stretches: Vec<(u64, u64)>,
}

impl Map {
    /// The map of a member, which may stand in front of its data; `None` if it is not sparse.
    pub(super) fn of<R: Read>(member: &Member, members: &mut Members<R>) -> io::Result<Option<Map>> {
        let records = &member.records;
        let get = |key: &str| records.number(key).map_err(|bad| malformed(String::from(bad)));
        let name = || records.get("GNU.sparse.name").map(<[u8]>::to_vec);
        let (size, name, stretches) = if member.header.entry_type().is_gnu_sparse() {
            let gnu = member.header.as_gnu().ok_or_else(|| malformed("a sparse member without a map"))?;
            (gnu.real_size()?, None, member.old_map.clone())
        } else if get("GNU.sparse.major")? == Some(1) {
            let size =
                get("GNU.sparse.realsize")?.ok_or_else(|| malformed("a sparse member without a size"))?;
            (size, name(), in_front_of_the_data(members)?)
        } else if let Some(size) = get("GNU.sparse.size")? {
            let numbers: Vec<&[u8]> = match records.get("GNU.sparse.map") {
                Some(map) => map.split(|&byte| byte == b',').collect(),
                None => {
                    let offsets = records.all("GNU.sparse.offset");
                    offsets.zip(records.all("GNU.sparse.numbytes")).flat_map(|(a, b)| [a, b]).collect()
                }
            };
            let numbers: Option<Vec<u64>> = numbers.into_iter().map(number).collect();
            let numbers = numbers.filter(|all| all.len().is_multiple_of(2)).ok_or_else(bad_map)?;
            (size, name(), numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
        } else {
            return Ok(None);
        };
        let mut end = 0u64;
        for &(offset, len) in &stretches {
            let ends = offset.checked_add(len).filter(|ends| *ends <= size && offset >= end);
            end = ends.ok_or_else(bad_map)?;
        }
        Ok(Some(Map { size, name, stretches }))
    }
}

fn bad_map() -> io::Error {
    malformed("the map of a sparse member is malformed")
}

/// A map as text: how many stretches, then offset and length of each, one number a line, padded to a block.
fn in_front_of_the_data<R: Read>(members: &mut Members<R>) -> io::Result<Vec<(u64, u64)>> {
    let before = members.rest();
    let mut line = || {
        let mut digits = [0; LINE_BYTES_MAX];
        for at in 0..LINE_BYTES_MAX {
            members.read(&mut digits[at..=at])?;
            if digits[at] == b'\n' {
                return number(&digits[..at]).ok_or_else(bad_map);
            }
        }
        Err(bad_map())
    };
    let count = line()?;
    if count > STRETCHES_MAX {
        return Err(bad_map());
    }
    let mut stretches = Vec::new();
    for _ in 0..count {
        stretches.push((line()?, line()?));
    }
    let used = before - members.rest();
    let padding = used.next_multiple_of(BLOCK_BYTES) - used;
    members.read(&mut [0; BLOCK_BYTES as usize][..padding as usize])?;
    Ok(stretches)
}
