//! Directory entries (spec 40 §5, spec 80 §5.9).
//!
//! A directory is a hash table: an entry's key lies at (directory inode, hash of the name), and the value is the target
//! and the name. A name's length is not stored but follows from the zero padding of the last word, so a name that fills the
//! word has no terminator. In a casefolding directory the value holds two names with explicit lengths: the one the user
//! gave, and the folded one that is hashed and compared.

use super::inode::FileType;
use super::problem::{Check, ensure};
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{Inum, SubvolId};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// Where a plain name starts.
const NAME_AT: usize = 9;
/// Where the name of a casefolded entry starts.
const CF_NAME_AT: usize = 15;
/// Bit of the type byte that says the entry holds a folded name.
const CASEFOLD: u8 = 0x80;

/// What an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DirentTarget {
    /// An inode in the same subvolume.
    Inode(Inum),
    /// The root directory of a subvolume; the entry is visible only through `parent` (spec 40 §5.3).
    Subvol {
        /// The subvolume it leads to.
        child: SubvolId,
        /// The subvolume that contains the entry.
        parent: SubvolId,
    },
}

/// A directory entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirent<'a> {
    /// What it leads to.
    pub target: DirentTarget,
    /// Kind of the target; [`FileType::SUBVOL`] exactly if the target is a subvolume.
    pub ty: FileType,
    /// The name as the user gave it.
    pub name: &'a [u8],
    /// In a casefolding directory, the folded name.
    pub folded: Option<&'a [u8]>,
}

impl<'a> Dirent<'a> {
    /// Decodes the value.
    ///
    /// # Errors
    /// If it is shorter than its fixed part or its name lengths lead out of it.
    pub fn decode(value: &'a [u8]) -> Result<Dirent<'a>> {
        let mut r = Reader::new("dirent", value);
        let word = r.u64()?;
        let type_byte = r.u8()?;
        let ty = FileType(type_byte & 0x1f);
        let target = if ty == FileType::SUBVOL {
            DirentTarget::Subvol { child: SubvolId(word as u32), parent: SubvolId((word >> 32) as u32) }
        } else {
            DirentTarget::Inode(Inum(word))
        };
        let (name, folded) = if type_byte & CASEFOLD != 0 {
            r.skip(2)?;
            let name_len = usize::from(r.u16()?);
            let folded_len = usize::from(r.u16()?);
            (r.bytes(name_len)?, Some(r.bytes(folded_len)?))
        } else {
            (strip_padding(value, NAME_AT), None)
        };
        Ok(Dirent { target, ty, name, folded })
    }

    /// The name that is hashed and compared: the folded one if there is one.
    pub fn lookup_name(&self) -> &'a [u8] {
        self.folded.unwrap_or(self.name)
    }

    /// Words of the encoded value.
    pub fn value_u64s(&self) -> usize {
        let bytes = match self.folded {
            None => NAME_AT + self.name.len(),
            Some(folded) => CF_NAME_AT + self.name.len() + folded.len(),
        };
        bytes.div_ceil(8)
    }

    /// Appends the value, a whole number of words.
    ///
    /// # Panics
    /// If a name of a casefolded entry is longer than 65535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.target {
            DirentTarget::Inode(inum) => out.put_u64(inum.0),
            DirentTarget::Subvol { child, parent } => {
                out.put_u32(child.0);
                out.put_u32(parent.0);
            }
        }
        match self.folded {
            None => {
                out.put_u8(self.ty.0);
                out.extend_from_slice(self.name);
            }
            Some(folded) => {
                out.put_u8(self.ty.0 | CASEFOLD);
                out.put_zeros(2);
                out.put_u16(u16::try_from(self.name.len()).expect("a name of at most 512 bytes"));
                out.put_u16(u16::try_from(folded.len()).expect("a name of at most 512 bytes"));
                out.extend_from_slice(self.name);
                out.extend_from_slice(folded);
            }
        }
        out.resize(start + self.value_u64s() * 8, 0);
    }

    /// Checks the entry against the rules of spec 40 §5.2; `value_bytes` is the length of the value it came from, and
    /// names may be too long unless the key is about to be written.
    pub fn validate(&self, k: &Bkey, value_bytes: usize, writing: bool) -> Check {
        let name = self.name;
        ensure(!name.is_empty(), E::DIRENT_EMPTY_NAME, || "the name is empty")?;
        ensure(value_bytes == self.value_u64s() * 8, E::DIRENT_VAL_TOO_BIG, || {
            format!("value of {value_bytes} bytes, the name needs {}", self.value_u64s() * 8)
        })?;
        ensure(!writing || name.len() <= NAME_BYTES_MAX, E::DIRENT_NAME_TOO_LONG, || {
            format!("name of {} bytes, at most {NAME_BYTES_MAX}", name.len())
        })?;
        ensure(!name.contains(&0), E::DIRENT_NAME_EMBEDDED_NUL, || "a NUL in the name")?;
        ensure(name != b"." && name != b"..", E::DIRENT_NAME_DOT_OR_DOTDOT, || "the name is . or ..")?;
        ensure(!name.contains(&b'/'), E::DIRENT_NAME_HAS_SLASH, || "a slash in the name")?;
        ensure(self.target != DirentTarget::Inode(Inum(k.pos.inode)), E::DIRENT_TO_ITSELF, || {
            format!("inode {} in itself", k.pos.inode)
        })?;
        let Some(folded) = self.folded else { return Ok(()) };
        ensure(!writing || folded.len() <= NAME_BYTES_MAX, E::DIRENT_CF_NAME_TOO_BIG, || {
            format!("folded name of {} bytes, at most {NAME_BYTES_MAX}", folded.len())
        })?;
        ensure(!folded.contains(&0), E::DIRENT_STRAY_DATA_AFTER_CF_NAME, || "a NUL in the folded name")
    }
}

/// The bytes from `at` up to the zero padding of the last word.
fn strip_padding(value: &[u8], at: usize) -> &[u8] {
    let last_word = value.len().saturating_sub(8).max(at).min(value.len());
    let zeros = value[last_word..].iter().rev().take_while(|b| **b == 0).count();
    &value[at.min(value.len())..value.len() - zeros]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpos::Bpos;
    use crate::key_type::KeyType;
    use proptest::prelude::*;

    fn key() -> Bkey {
        Bkey::new(KeyType::DIRENT, Bpos::new(4096, 7, u32::MAX), 0)
    }

    fn encoded(d: &Dirent<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        d.encode(&mut out);
        out
    }

    #[test]
    fn examples_of_the_specification() {
        let file = [0x66, 0x10, 0, 0, 0, 0, 0, 0, 0x08, b'i', b'n', b'5', 0, 0, 0, 0];
        let d = Dirent::decode(&file).unwrap();
        assert_eq!((d.target, d.ty, d.name), (DirentTarget::Inode(Inum(4198)), FileType::REG, &b"in5"[..]));
        assert_eq!(encoded(&d), file);
        let subvol = [4, 0, 0, 0, 1, 0, 0, 0, 0x10, b's', b'n', b'a', b'p', b'R', b'O', 0];
        let d = Dirent::decode(&subvol).unwrap();
        assert_eq!(d.target, DirentTarget::Subvol { child: SubvolId(4), parent: SubvolId(1) });
        assert_eq!((d.ty, d.name), (FileType::SUBVOL, &b"snapRO"[..]));
        assert_eq!(encoded(&d), subvol);
        assert_eq!(d.validate(&key(), 16, true), Ok(()));
    }

    #[test]
    fn casefolded_example_of_the_specification() {
        let mut value = vec![0xec, 0, 0, 0x80, 0, 0, 0, 0, 0x88, 0, 0, 7, 0, 7, 0];
        value.extend_from_slice("Straße".as_bytes());
        value.extend_from_slice(b"strasse\0\0\0");
        let d = Dirent::decode(&value).unwrap();
        assert_eq!((d.target, d.ty), (DirentTarget::Inode(Inum(0x8000_00ec)), FileType::REG));
        assert_eq!((d.name, d.folded), ("Straße".as_bytes(), Some(&b"strasse"[..])));
        assert_eq!(d.lookup_name(), b"strasse");
        assert_eq!(encoded(&d), value);
        assert_eq!(d.validate(&key(), value.len(), true), Ok(()));
    }

    #[test]
    fn a_name_that_fills_the_word_has_no_terminator() {
        let name = b"exactly 7 more byte";
        let name = &name[..15];
        let d = Dirent { target: DirentTarget::Inode(Inum(1)), ty: FileType::DIR, name, folded: None };
        assert_eq!(encoded(&d).len(), 24);
        assert_eq!(Dirent::decode(&encoded(&d)).unwrap(), d);
    }

    #[test]
    fn every_rule_has_its_error() {
        let ok =
            Dirent { target: DirentTarget::Inode(Inum(5000)), ty: FileType::REG, name: b"a", folded: None };
        let check = |d: Dirent<'_>, bytes: usize| d.validate(&key(), bytes, true).map_err(|p| p.id);
        assert_eq!(check(ok, 16), Ok(()));
        assert_eq!(check(Dirent { name: b"", ..ok }, 16), Err(E::DIRENT_EMPTY_NAME));
        assert_eq!(check(ok, 24), Err(E::DIRENT_VAL_TOO_BIG));
        let long = [b'x'; 513];
        assert_eq!(check(Dirent { name: &long, ..ok }, 528), Err(E::DIRENT_NAME_TOO_LONG));
        assert_eq!(Dirent { name: &long, ..ok }.validate(&key(), 528, false), Ok(()));
        assert_eq!(check(Dirent { name: b"a\0b", ..ok }, 16), Err(E::DIRENT_NAME_EMBEDDED_NUL));
        assert_eq!(check(Dirent { name: b"..", ..ok }, 16), Err(E::DIRENT_NAME_DOT_OR_DOTDOT));
        assert_eq!(check(Dirent { name: b"a/b", ..ok }, 16), Err(E::DIRENT_NAME_HAS_SLASH));
        let own = DirentTarget::Inode(Inum(4096));
        assert_eq!(check(Dirent { target: own, ..ok }, 16), Err(E::DIRENT_TO_ITSELF));
        let cf = Dirent { folded: Some(&long), ..ok };
        assert_eq!(check(cf, cf.value_u64s() * 8), Err(E::DIRENT_CF_NAME_TOO_BIG));
        let cf = Dirent { folded: Some(b"a\0"), ..ok };
        assert_eq!(check(cf, cf.value_u64s() * 8), Err(E::DIRENT_STRAY_DATA_AFTER_CF_NAME));
    }

    proptest! {
        #[test]
        fn names_round_trip(name in proptest::collection::vec(1u8.., 1..300),
                            folded in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
                            word: u64, ty in 0u8..32) {
            let ty = FileType(ty);
            let target = match ty {
                FileType::SUBVOL => {
                    DirentTarget::Subvol { child: SubvolId(word as u32), parent: SubvolId((word >> 32) as u32) }
                }
                _ => DirentTarget::Inode(Inum(word)),
            };
            let d = Dirent { target, ty, name: &name, folded: folded.as_deref() };
            let bytes = encoded(&d);
            prop_assert_eq!(bytes.len(), d.value_u64s() * 8);
            prop_assert_eq!(Dirent::decode(&bytes).unwrap(), d);
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(d) = Dirent::decode(&bytes) {
                let _ = d.validate(&key(), bytes.len(), true);
                prop_assert!(d.name.len() < bytes.len());
            }
        }
    }
}
