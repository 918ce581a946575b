//! Requests that change something: bytes to types, as in `request`.
//!
//! They come only to a mount that is writable. Who asks and what the kernel has checked already is told in `writer`.

use rustix::fs::OFlags;

use crate::node_ids::FuseId;
use crate::request::Args;

/// Bits of `Setattr::valid` (`FATTR_*`): which of the fields are given.
pub(crate) mod given {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const CTIME: u32 = 1 << 10;
    /// Set-id bits go (`FATTR_KILL_SUIDGID`).
    pub(crate) const KILL: u32 = 1 << 11;
}

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, u32);

/// Attributes as they are to be; `valid` says which of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setattr {
    pub(crate) valid: u32,
    pub(crate) size: u64,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A part of a file that is to be in another, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Copy {
    pub(crate) offset: u64,
    pub(crate) to: FuseId,
    pub(crate) to_offset: u64,
    pub(crate) len: u64,
}

/// What is to be changed. Names are those of entries in the directory that the request is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change<'a> {
    Setattr(Setattr),
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Mkdir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        to: FuseId,
        to_name: &'a [u8],
        flags: u32,
    },
    Link {
        of: FuseId,
        name: &'a [u8],
    },
    /// Make a file if there is none, and open it.
    Create {
        name: &'a [u8],
        flags: u32,
        mode: u32,
        umask: u32,
    },
    /// Make a file without a name, and open it.
    Tmpfile {
        flags: u32,
        mode: u32,
        umask: u32,
    },
    Write {
        offset: u64,
        /// `FUSE_WRITE_*`.
        flags: u32,
        /// Those of the open file.
        open_flags: OFlags,
        data: &'a [u8],
    },
    Setxattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Fallocate {
        offset: u64,
        len: u64,
        mode: u32,
    },
    Copy(Copy),
    /// What was done to a file or a directory is to be durable.
    Fsync,
    /// Everything is to be durable.
    Syncfs,
}

impl<'a> Change<'a> {
    /// Whether an operation of this number changes something.
    pub(crate) fn is(opcode: u32) -> bool {
        matches!(opcode, 4 | 6 | 8..=13 | 16 | 20 | 21 | 24 | 30 | 35 | 43 | 45 | 47 | 50 | 51)
    }

    /// Decodes the arguments of such an operation; `None` if some are missing.
    pub(crate) fn decode(opcode: u32, mut args: Args<'a>) -> Option<Change<'a>> {
        Some(match opcode {
            4 => Change::Setattr(setattr(args)?),
            6 => Change::Symlink { name: args.name()?, target: args.name()? },
            8 => {
                let (mode, rdev, umask, _padding) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
                Change::Mknod { name: args.name()?, mode, rdev, umask }
            }
            9 => {
                let (mode, umask) = (args.u32()?, args.u32()?);
                Change::Mkdir { name: args.name()?, mode, umask }
            }
            10 => Change::Unlink { name: args.name()? },
            11 => Change::Rmdir { name: args.name()? },
            12 | 45 => {
                let to = FuseId(args.u64()?);
                let flags = if opcode == 45 { (args.u32()?, args.u32()?).0 } else { 0 };
                Change::Rename { name: args.name()?, to, to_name: args.name()?, flags }
            }
            13 => Change::Link { of: FuseId(args.u64()?), name: args.name()? },
            16 => {
                let (_handle, offset, size, flags) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
                let (_owner, open_flags, _padding) = (args.u64()?, args.u32()?, args.u32()?);
                let open_flags = OFlags::from_bits_retain(open_flags);
                Change::Write { offset, flags, open_flags, data: args.bytes(size)? }
            }
            20 | 30 => Change::Fsync,
            21 => {
                let (size, flags) = (args.u32()?, args.u32()?);
                Change::Setxattr { name: args.name()?, value: args.bytes(size)?, flags }
            }
            24 => Change::Removexattr { name: args.name()? },
            35 | 51 => {
                let (flags, mode, umask, _open_flags) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
                match opcode {
                    35 => Change::Create { name: args.name()?, flags, mode, umask },
                    _ => Change::Tmpfile { flags, mode, umask },
                }
            }
            43 => {
                let (_handle, offset, len, mode) = (args.u64()?, args.u64()?, args.u64()?, args.u32()?);
                Change::Fallocate { offset, len, mode }
            }
            47 => {
                let (_handle, offset, to, _to_handle) =
                    (args.u64()?, args.u64()?, FuseId(args.u64()?), args.u64()?);
                Change::Copy(Copy { offset, to, to_offset: args.u64()?, len: args.u64()? })
            }
            _ => Change::Syncfs,
        })
    }
}

/// `fuse_setattr_in`
fn setattr(mut args: Args<'_>) -> Option<Setattr> {
    let (valid, _padding, _handle, size, _owner) =
        (args.u32()?, args.u32()?, args.u64()?, args.u64()?, args.u64()?);
    let seconds = [args.u64()? as i64, args.u64()? as i64, args.u64()? as i64];
    let nanos = [args.u32()?, args.u32()?, args.u32()?];
    let [atime, mtime, ctime] = std::array::from_fn(|i| (seconds[i], nanos[i]));
    let (mode, _unused, uid, gid) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
    Some(Setattr { valid, size, atime, mtime, ctime, mode, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(opcode: u32, args: &[u8]) -> Option<Change<'_>> {
        assert!(Change::is(opcode));
        Change::decode(opcode, Args::of(args))
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn arguments_are_where_the_kernel_puts_them() {
        let set = words(&[0x0b, 0, 1, 0, 70, 1, 2, 0, 3, 0, 4, 0, 5, 0, 6, 7, 8, 0o100_644, 0, 11, 12, 0]);
        let expected = Setattr {
            valid: given::MODE | given::UID | given::SIZE,
            size: 70 + (1 << 32),
            atime: (3, 6),
            mtime: (4, 7),
            ctime: (5, 8),
            mode: 0o100_644,
            uid: 11,
            gid: 12,
        };
        assert_eq!(decode(4, &set), Some(Change::Setattr(expected)));
        assert_eq!(decode(6, b"name\0to\0"), Some(Change::Symlink { name: b"name", target: b"to" }));
        let rename = [&words(&[9, 0, 2, 0])[..], b"old\0new\0"].concat();
        let to = Change::Rename { name: b"old", to: FuseId(9), to_name: b"new", flags: 2 };
        assert_eq!(decode(45, &rename), Some(to));
        let write = [&words(&[0, 0, 5, 0, 3, 4, 0, 0, 2, 0])[..], b"abc"].concat();
        let expected = Change::Write { offset: 5, flags: 4, open_flags: OFlags::RDWR, data: b"abc" };
        assert_eq!(decode(16, &write), Some(expected));
        assert_eq!(decode(16, &write[..write.len() - 1]), None);
        let xattr = [&words(&[2, 1])[..], b"user.a\0xy"].concat();
        assert_eq!(decode(21, &xattr), Some(Change::Setxattr { name: b"user.a", value: b"xy", flags: 1 }));
    }
}
