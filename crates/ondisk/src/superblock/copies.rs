//! Which copy of one device's superblock counts (spec 10 §11.1).
//!
//! The primary copy at sector 8 counts if it can be accepted. Otherwise the layout at sector 7 names the others, and the first that can be
//! accepted counts. Copies are not compared with each other. A copy that was accepted but then breaks a rule is *not*
//! replaced by another: they all say the same.

use std::fmt;

use crate::error::{DecodeError, Result};
use crate::superblock::Superblock;
use crate::superblock::layout::{Layout, SUPERBLOCK_SECTOR};
use crate::units::Sectors;
use crate::version::Version;

/// Why no copy of a device's superblock can be used: what was wrong with each place looked at.
#[derive(Debug)]
pub struct NoSuperblock<E> {
    /// The sectors looked at, primary first, and what was found there.
    pub copies: Vec<(Sectors, E)>,
    /// Why the layout at sector 7 could not be used, in which case only the primary copy was looked at.
    pub layout: Option<E>,
}

impl<E: fmt::Display> fmt::Display for NoSuperblock<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (sector, why)) in self.copies.iter().enumerate() {
            write!(f, "{}superblock at sector {sector}: {why}", if i > 0 { "; " } else { "" })?;
        }
        match &self.layout {
            Some(why) => write!(f, "; layout at sector 7: {why}"),
            None => Ok(()),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> std::error::Error for NoSuperblock<E> {}

/// Finds the copy that counts. `read` reads and decodes the copy at a sector ([`Superblock::decode`]); `layout` reads and decodes
/// sector 7, and is only called when the primary copy failed.
///
/// # Errors
/// What was found everywhere, if nothing can be used.
pub fn find<E: From<DecodeError>>(
    mut read: impl FnMut(Sectors) -> std::result::Result<Superblock, E>,
    layout: impl FnOnce() -> std::result::Result<Layout, E>,
) -> std::result::Result<Superblock, NoSuperblock<E>> {
    let mut try_at = |sector: Sectors| {
        let sb = read(sector)?;
        sb.check_offset(sector)?;
        Ok::<_, E>(sb)
    };
    let primary = match try_at(SUPERBLOCK_SECTOR) {
        Ok(sb) => return Ok(sb),
        Err(why) => why,
    };
    let mut copies = vec![(SUPERBLOCK_SECTOR, primary)];
    let checked = layout().and_then(|l| match l.validate() {
        Ok(()) => Ok(l),
        Err(why) => Err(why.into()),
    });
    let layout = match checked {
        Ok(layout) => layout,
        Err(why) => return Err(NoSuperblock { copies, layout: Some(why) }),
    };
    for sector in layout.copies().filter(|&s| s != SUPERBLOCK_SECTOR) {
        match try_at(sector) {
            Ok(sb) => return Ok(sb),
            Err(why) => copies.push((sector, why)),
        }
    }
    Err(NoSuperblock { copies, layout: None })
}

impl Superblock {
    /// Checks that a copy stands where it says; programs up to 1.13 did not (spec 80 §6.1).
    ///
    /// # Errors
    /// If it says another sector.
    pub fn check_offset(&self, sector: Sectors) -> Result<()> {
        if self.version > Version::WRITE && self.offset != sector {
            return Err(DecodeError::invalid(
                "superblock",
                format!("found at sector {sector}, but made for sector {}", self.offset),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::tests::minimal;

    fn layout() -> Layout {
        Layout::new(11, &[Sectors(8), Sectors(2056), Sectors(129_024)]).unwrap()
    }

    fn bad(_: Sectors) -> Result<Superblock> {
        Err(DecodeError::invalid("superblock", "zeroes"))
    }

    #[test]
    fn primary_copy_is_enough() {
        let layout = || -> Result<Layout> { panic!("layout read although the primary copy is good") };
        assert_eq!(find(|_| Ok(minimal()), layout).unwrap(), minimal());
    }

    #[test]
    fn first_good_backup_counts() {
        let mut asked = Vec::new();
        let read = |sector: Sectors| {
            asked.push(sector.0);
            if sector.0 < 3000 { bad(sector) } else { Ok(minimal()) }
        };
        assert!(find(read, || Ok(layout())).is_ok());
        assert_eq!(asked, [8, 2056, 129_024]);
    }

    #[test]
    fn every_place_is_named_when_none_is_good() {
        let error = find(bad, || Ok(layout())).unwrap_err();
        assert_eq!(error.copies.len(), 3);
        assert!(error.to_string().contains("sector 129024"));
        let error = find(bad, || Layout::new(11, &[])).unwrap_err();
        assert_eq!(error.copies.len(), 1);
        assert!(error.to_string().contains("layout at sector 7"));
    }

    #[test]
    fn newer_copies_must_stand_where_they_say() {
        let mut sb = minimal();
        assert!(sb.check_offset(Sectors(9)).is_ok());
        sb.version = Version::READ_MAX;
        assert!(sb.check_offset(Sectors(9)).is_err());
        assert!(sb.check_offset(Sectors(8)).is_ok());
    }
}
