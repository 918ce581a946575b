//! The members of a tar archive, one after the other.
//!
//! The crate tar takes headers apart; what stands between them is read here, because that crate takes a line for a record of a pax
//! header, and an attribute with a line feed in it would be lost.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::records::Records;

/// Unit of an archive.
pub(super) const BLOCK_BYTES: u64 = 512;
/// Records and names longer than this are not believed.
const EXTENDED_BYTES_MAX: u64 = 16 << 20;
/// Most that is read behind the end of an archive: far more than the rest of a record of any tar (10 KiB unless told otherwise), and soon over
/// if the archive stands on a disk.
const BEHIND_END_BYTES_MAX: u64 = 16 << 20;

/// A member: what its headers say.
pub(super) struct Member {
    pub(super) header: Header,
    pub(super) records: Records,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// The map in the header of an old GNU sparse file: offsets and lengths.
    pub(super) old_map: Vec<(u64, u64)>,
}

/// Reads an archive.
pub(super) struct Members<R> {
    reader: R,
    /// Bytes read so far.
    pub(super) position: u64,
    /// Bytes of the current member that have not been read, and padding behind them.
    rest: u64,
    padding: u64,
    global: Records,
}

/// What is wrong with an archive.
pub(super) fn malformed(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> Members<R> {
    pub(super) fn new(reader: R) -> Members<R> {
        Members { reader, position: 0, rest: 0, padding: 0, global: Records::default() }
    }

    /// The next member; `None` at the end. What was not read of the last one is passed over, and so is what fills up the last record of the archive: who
    /// writes it into a pipe would be told by a signal that nobody reads that.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut records = Records::default();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else {
                io::copy(&mut (&mut self.reader).take(BEHIND_END_BYTES_MAX), &mut io::sink())?;
                return Ok(None);
            };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => records.parse(&self.extended(size)?).ok_or_else(bad_records)?,
                EntryType::XGlobalHeader => {
                    let bytes = self.extended(size)?;
                    self.global.parse(&bytes).ok_or_else(bad_records)?;
                }
                EntryType::GNULongName => long_path = Some(self.long(size)?),
                EntryType::GNULongLink => long_link = Some(self.long(size)?),
                _ => {
                    let records = self.global.followed_by(records);
                    let size = records.number("size").map_err(|bad| malformed(bad.0))?.unwrap_or(size);
                    let old_map = self.old_map(&header)?;
                    self.set_rest(size);
                    let given = |key| records.get(key).map(<[u8]>::to_vec);
                    let path =
                        given("path").or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
                    let plain_link = || header.link_name_bytes().map(|name| name.into_owned());
                    let link = given("linkpath").or(long_link).or_else(plain_link).unwrap_or_default();
                    return Ok(Some(Member { header, path, link, old_map, records }));
                }
            }
        }
    }

    /// Bytes of the current member that have not been read.
    pub(super) fn rest(&self) -> u64 {
        self.rest
    }

    /// Reads exactly so much of the current member.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<()> {
        if room.len() as u64 > self.rest {
            return Err(malformed("the member is shorter than it says"));
        }
        self.rest -= room.len() as u64;
        self.read_exact(room)
    }

    fn read_exact(&mut self, room: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(room).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("the archive ends early"),
            _ => error,
        })?;
        self.position += room.len() as u64;
        Ok(())
    }

    fn set_rest(&mut self, size: u64) {
        self.rest = size;
        self.padding = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
    }

    /// Passes over what is left of the current member.
    fn pass_over(&mut self) -> io::Result<()> {
        let len = self.rest.saturating_add(self.padding);
        (self.rest, self.padding) = (0, 0);
        let passed = io::copy(&mut (&mut self.reader).take(len), &mut io::sink())?;
        self.position += passed;
        if passed < len { Err(malformed("the archive ends early")) } else { Ok(()) }
    }

    /// The next header; `None` at the end of the archive, which is a block of zeros or the end of the file.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK_BYTES as usize {
            match self.reader.read(&mut header.as_mut_bytes()[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("the archive ends inside a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK_BYTES;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The field itself counts as spaces.
        let of_field = |at: usize| (148..156).contains(&at);
        let sum: u32 =
            (0..).zip(bytes).map(|(at, &byte)| if of_field(at) { 32 } else { u32::from(byte) }).sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(malformed(no_header(header.as_bytes()))),
        }
    }

    /// The content of a header that describes another.
    fn extended(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENDED_BYTES_MAX {
            return Err(malformed("an extended header is too long"));
        }
        self.set_rest(size);
        let mut bytes = vec![0; size as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// A long name, which ends at its first zero.
    fn long(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.extended(size)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// The map of an old GNU sparse file: part of it in the header, more in blocks behind it.
    fn old_map(&mut self, header: &Header) -> io::Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let gnu = match header.as_gnu() {
            Some(gnu) if header.entry_type().is_gnu_sparse() => gnu,
            _ => return Ok(map),
        };
        let mut add = |entries: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for entry in entries.iter().filter(|entry| !entry.is_empty()) {
                map.push((entry.offset()?, entry.length()?));
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut goes_on = gnu.is_extended();
        while goes_on {
            let mut more = GnuExtSparseHeader::new();
            self.read_exact(more.as_mut_bytes())?;
            add(&more.sparse)?;
            goes_on = more.is_extended();
        }
        Ok(map)
    }
}

fn bad_records() -> io::Error {
    malformed("an extended header is malformed")
}

/// What to say of something that is no header.
fn no_header(bytes: &[u8]) -> String {
    let known = [
        (&b"\x28\xb5\x2f\xfd"[..], "zstd -dc"),
        (b"\x1f\x8b", "gzip -dc"),
        (b"\xfd7zXZ", "xz -dc"),
        (b"BZh", "bzip2 -dc"),
    ];
    match known.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, command)) => format!("it is compressed; give it uncompressed: {command} FILE | frazil … -"),
        None => "no header of a tar archive".to_owned(),
    }
}
