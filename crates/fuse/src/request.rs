//! Requests of the kernel: bytes to types.
//!
//! Every `read` of `/dev/fuse` delivers one request: a header of 40 bytes, arguments that depend on the operation, and
//! names that end with NUL; numbers in the machine's own byte order (linux/fuse.h, protocol 7.41). The kernel is trusted to
//! be well-meaning, but not to be of the version this was written for: arguments that have grown are read as far as
//! they are known, arguments that are too short make the request [`Op::Malformed`], and an unknown operation is
//! [`Op::Unknown`], which the kernel takes as "not supported".

use rustix::fs::OFlags;

use crate::change::Change;
use crate::node_ids::FuseId;

/// Bytes of the header of a request.
pub(crate) const HEADER_BYTES: usize = 40;

/// Bytes of header and arguments before the data of a write.
pub(crate) const WRITE_HEADERS_BYTES: usize = HEADER_BYTES + 40;

/// `FUSE_WRITE`.
pub(crate) const WRITE: u32 = 16;
/// `FUSE_STATFS`.
const STATFS: u32 = 17;

/// Whether a request asks for the room there is.
pub(crate) fn is_statfs(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&STATFS.to_ne_bytes()[..])
}

/// Identifies a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Unique(pub(crate) u64);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) unique: Unique,
    /// The object it is about.
    pub(crate) node: FuseId,
    /// The user who asks (the one that counts for files), and its group.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread that waits for it, in the mount's process namespace; 0 for none.
    pub(crate) pid: u32,
    pub(crate) op: Op<'a>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op<'a> {
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    /// Not to be answered.
    Forget {
        lookups: u64,
    },
    /// Not to be answered. Pairs of node id and lookups.
    BatchForget {
        pairs: &'a [u8],
    },
    Getattr,
    Statx,
    Readlink,
    Open {
        flags: OFlags,
    },
    OpenDir {
        flags: OFlags,
    },
    Read {
        offset: u64,
        size: u32,
        /// Those of the open file.
        flags: OFlags,
    },
    Readdir {
        offset: u64,
        size: u32,
        plus: bool,
    },
    /// End of an open file or directory.
    Release,
    Statfs,
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Seek {
        offset: u64,
        whence: u32,
    },
    Ioctl {
        command: u32,
        input: &'a [u8],
        out_size: u32,
    },
    /// To a mount that can be written.
    Change(Change<'a>),
    /// The thread that waits for this request has got a signal. Not to be answered.
    Interrupt {
        unique: Unique,
    },
    /// The mount is gone.
    Destroy,
    /// An operation that is not served.
    Unknown,
    /// Arguments are missing.
    Malformed,
}

impl<'a> Request<'a> {
    /// Decodes what one `read` delivered; `None` if not even the header is whole.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Request<'a>> {
        let mut header = Args(bytes);
        let len = header.u32()? as usize;
        let opcode = header.u32()?;
        let unique = Unique(header.u64()?);
        let node = FuseId(header.u64()?);
        let (uid, gid, pid) = (header.u32()?, header.u32()?, header.u32()?);
        let args = Args(bytes.get(HEADER_BYTES..len)?);
        let op = Op::decode(opcode, args).unwrap_or(Op::Malformed);
        Some(Request { unique, node, uid, gid, pid, op })
    }
}

impl<'a> Op<'a> {
    fn decode(opcode: u32, mut args: Args<'a>) -> Option<Op<'a>> {
        Some(match opcode {
            1 => Op::Lookup { name: args.name()? },
            2 => Op::Forget { lookups: args.u64()? },
            3 => Op::Getattr,
            5 => Op::Readlink,
            14 => Op::Open { flags: OFlags::from_bits_retain(args.u32()?) },
            15 => {
                let (_handle, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
                // Older kernels end here.
                let (_flags, _owner, open_flags) = (args.u32(), args.u64(), args.u32());
                Op::Read { offset, size, flags: OFlags::from_bits_retain(open_flags.unwrap_or(0)) }
            }
            STATFS => Op::Statfs,
            18 | 29 => Op::Release,
            22 => {
                let (size, _padding) = (args.u32()?, args.u32()?);
                Op::Getxattr { name: args.name()?, size }
            }
            23 => Op::Listxattr { size: args.u32()? },
            26 => {
                let (major, minor) = (args.u32()?, args.u32()?);
                let (max_readahead, low) = (args.u32()?, args.u32()?);
                // Older kernels end here.
                let high = args.u32().unwrap_or(0);
                let flags = u64::from(high) << 32 | u64::from(low);
                Op::Init { major, minor, max_readahead, flags }
            }
            27 => Op::OpenDir { flags: OFlags::from_bits_retain(args.u32()?) },
            28 | 44 => {
                let (_handle, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
                Op::Readdir { offset, size, plus: opcode == 44 }
            }
            36 => Op::Interrupt { unique: Unique(args.u64()?) },
            38 => Op::Destroy,
            39 => {
                let (_handle, _flags, command) = (args.u64()?, args.u32()?, args.u32()?);
                let (_arg, in_size, out_size) = (args.u64()?, args.u32()?, args.u32()?);
                Op::Ioctl { command, input: args.bytes(in_size)?, out_size }
            }
            42 => {
                let (count, _dummy) = (args.u32()?, args.u32()?);
                Op::BatchForget { pairs: args.0.get(..(count as usize).checked_mul(16)?)? }
            }
            46 => {
                let (_handle, offset, whence) = (args.u64()?, args.u64()?, args.u32()?);
                Op::Seek { offset, whence }
            }
            52 => Op::Statx,
            _ if Change::is(opcode) => Op::Change(Change::decode(opcode, args)?),
            _ => Op::Unknown,
        })
    }
}

/// The pairs of a [`Op::BatchForget`].
pub(crate) fn forget_pairs(pairs: &[u8]) -> impl Iterator<Item = (FuseId, u64)> {
    pairs.chunks_exact(16).filter_map(|pair| {
        let mut pair = Args(pair);
        Some((FuseId(pair.u64()?), pair.u64()?))
    })
}

/// What is left of the arguments.
pub(crate) struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    #[cfg(test)]
    pub(crate) fn of(bytes: &'a [u8]) -> Args<'a> {
        Args(bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*number))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Bytes up to a NUL.
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let name = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a request with these arguments.
    fn request(opcode: u32, args: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + args.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(4711u64.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(812u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(args);
        bytes
    }

    fn op(opcode: u32, args: &[u8]) -> Op<'static> {
        let bytes = request(opcode, args).leak();
        Request::decode(bytes).unwrap().op
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn decodes_header_and_arguments() {
        let bytes = request(1, b"name\0");
        let lookup = Request::decode(&bytes).unwrap();
        assert_eq!((lookup.unique, lookup.node, lookup.pid), (Unique(7), FuseId(4711), 812));
        assert_eq!(lookup.op, Op::Lookup { name: b"name" });
        let read = |flags| Op::Read { offset: 512 + (1 << 32), size: 4096, flags };
        assert_eq!(op(15, &words(&[9, 0, 512, 1, 4096, 0])), read(OFlags::empty()));
        let direct = OFlags::DIRECT;
        assert_eq!(op(15, &words(&[9, 0, 512, 1, 4096, 0, 0, 0, direct.bits(), 0])), read(direct));
        assert_eq!(op(14, &words(&[2, 0])), Op::Open { flags: OFlags::RDWR });
        assert_eq!(op(22, b"\x08\0\0\0\0\0\0\0user.x\0"), Op::Getxattr { name: b"user.x", size: 8 });
        let init = Op::Init { major: 7, minor: 41, max_readahead: 131072, flags: (3 << 32) | 5 };
        assert_eq!(op(26, &words(&[7, 41, 131072, 5, 3, 0])), init);
        assert_eq!(op(9999, b""), Op::Unknown);
    }

    #[test]
    fn every_truncation_is_an_answer() {
        let args = words(&[1; 16]);
        for opcode in 0..=60 {
            for len in 0..=args.len() {
                let whole = request(opcode, &args[..len]);
                assert!(Request::decode(&whole).is_some());
                assert!(Request::decode(&whole[..HEADER_BYTES - 1]).is_none());
                assert!(len == 0 || Request::decode(&whole[..whole.len() - 1]).is_none());
            }
        }
        assert_eq!(op(15, &words(&[1; 4])), Op::Malformed);
        assert_eq!(op(42, &words(&[2, 0, 1, 0, 1, 0])), Op::Malformed);
    }

    #[test]
    fn forgets_in_batches() {
        let args = words(&[2, 0, 10, 0, 1, 0, 11, 0, 5, 0]);
        let Op::BatchForget { pairs } = op(42, &args) else { panic!("not a batch") };
        assert_eq!(forget_pairs(pairs).collect::<Vec<_>>(), [(FuseId(10), 1), (FuseId(11), 5)]);
    }
}
