//! Positions of keys in a b-tree (spec 30 §2).

use std::fmt;

use crate::bytes::{PutLe, Reader};
use crate::error::Result;

/// Position of a key: the tuple (inode, offset, snapshot), ordered as such. What the three mean depends on the b-tree;
/// in extent b-trees `offset` is the exclusive *end* of the range, in sectors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bpos {
    /// Most significant part, an inode number in the filesystem b-trees.
    pub inode: u64,
    /// Middle part.
    pub offset: u64,
    /// Least significant part, a snapshot id in b-trees with snapshots.
    pub snapshot: u32,
}

impl Bpos {
    /// Bytes of an encoded position.
    pub const BYTES: usize = 20;
    /// The smallest position.
    pub const MIN: Bpos = Bpos::new(0, 0, 0);
    /// The largest position with snapshot 0.
    pub const POS_MAX: Bpos = Bpos::new(u64::MAX, u64::MAX, 0);
    /// The largest position (`SPOS_MAX` in the specification).
    pub const MAX: Bpos = Bpos::new(u64::MAX, u64::MAX, u32::MAX);

    /// The position `inode:offset:snapshot`.
    pub const fn new(inode: u64, offset: u64, snapshot: u32) -> Self {
        Self { inode, offset, snapshot }
    }

    /// The next position in full order; `None` after [`Bpos::MAX`].
    pub fn successor(self) -> Option<Bpos> {
        let (snapshot, carry) = self.snapshot.overflowing_add(1);
        let (offset, carry) = self.offset.overflowing_add(u64::from(carry));
        let inode = self.inode.checked_add(u64::from(carry))?;
        Some(Bpos { inode, offset, snapshot })
    }

    /// The previous position in full order; `None` before [`Bpos::MIN`].
    pub fn predecessor(self) -> Option<Bpos> {
        let (snapshot, borrow) = self.snapshot.overflowing_sub(1);
        let (offset, borrow) = self.offset.overflowing_sub(u64::from(borrow));
        let inode = self.inode.checked_sub(u64::from(borrow))?;
        Some(Bpos { inode, offset, snapshot })
    }

    /// The smallest position (snapshot 0) whose (inode, offset) is larger; `None` at the end.
    pub fn nosnap_successor(self) -> Option<Bpos> {
        Bpos { snapshot: u32::MAX, ..self }.successor()
    }

    /// The same inode and offset in another snapshot.
    pub const fn with_snapshot(self, snapshot: u32) -> Bpos {
        Bpos { snapshot, ..self }
    }

    /// Decodes 20 bytes: snapshot, offset, inode.
    pub fn decode(r: &mut Reader<'_>) -> Result<Bpos> {
        let snapshot = r.u32()?;
        let offset = r.u64()?;
        let inode = r.u64()?;
        Ok(Bpos { inode, offset, snapshot })
    }

    /// Appends the 20 bytes [`Bpos::decode`] reads.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.snapshot);
        out.put_u64(self.offset);
        out.put_u64(self.inode);
    }
}

impl fmt::Display for Bpos {
    /// `inode:offset:snapshot`; `U32_MAX` and `U64_MAX` are written as such, as the reference's listings do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Bpos::MIN => return f.write_str("POS_MIN"),
            Bpos::POS_MAX => return f.write_str("POS_MAX"),
            Bpos::MAX => return f.write_str("SPOS_MAX"),
            _ => {}
        }
        match self.inode {
            u64::MAX => f.write_str("U64_MAX")?,
            n => write!(f, "{n}")?,
        }
        match self.offset {
            u64::MAX => f.write_str(":U64_MAX")?,
            n => write!(f, ":{n}")?,
        }
        match self.snapshot {
            u32::MAX => f.write_str(":U32_MAX"),
            n => write!(f, ":{n}"),
        }
    }
}

impl fmt::Debug for Bpos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_inode_offset_snapshot() {
        assert!(Bpos::new(1, 0, 0) > Bpos::new(0, u64::MAX, u32::MAX));
        assert!(Bpos::new(1, 2, 0) > Bpos::new(1, 1, u32::MAX));
    }

    #[test]
    fn successor_carries_and_predecessor_undoes_it() {
        let p = Bpos::new(3, u64::MAX, u32::MAX);
        assert_eq!(p.successor(), Some(Bpos::new(4, 0, 0)));
        assert_eq!(Bpos::new(4, 0, 0).predecessor(), Some(p));
        assert_eq!(Bpos::MAX.successor(), None);
        assert_eq!(Bpos::MIN.predecessor(), None);
    }

    #[test]
    fn encodes_snapshot_first() {
        let p = Bpos::new(0x0807_0605, 0x2020, 0x11);
        let mut out = Vec::new();
        p.encode(&mut out);
        assert_eq!(out.len(), Bpos::BYTES);
        assert_eq!(&out[..4], &[0x11, 0, 0, 0]);
        assert_eq!(Bpos::decode(&mut Reader::new("bpos", &out)).unwrap(), p);
    }
}
