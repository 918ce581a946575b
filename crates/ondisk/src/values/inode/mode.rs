//! File types, permission bits and device numbers.

use std::fmt;

/// Kind of file: the top four bits of `st_mode`, which are also the `d_type` of dirents (spec 40 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileType(pub u8);

impl FileType {
    /// Unknown.
    pub const UNKNOWN: FileType = FileType(0);
    /// Named pipe.
    pub const FIFO: FileType = FileType(1);
    /// Character device.
    pub const CHR: FileType = FileType(2);
    /// Directory.
    pub const DIR: FileType = FileType(4);
    /// Block device.
    pub const BLK: FileType = FileType(6);
    /// Regular file.
    pub const REG: FileType = FileType(8);
    /// Symbolic link.
    pub const LNK: FileType = FileType(10);
    /// Socket.
    pub const SOCK: FileType = FileType(12);
    /// Dirents only: the root of a subvolume.
    pub const SUBVOL: FileType = FileType(16);

    /// The name used in listings.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            FileType::FIFO => "fifo",
            FileType::CHR => "chr",
            FileType::DIR => "dir",
            FileType::BLK => "blk",
            FileType::REG => "reg",
            FileType::LNK => "lnk",
            FileType::SOCK => "sock",
            FileType::SUBVOL => "subvol",
            _ => return None,
        })
    }

    /// The bits of `st_mode`; 0 for [`FileType::SUBVOL`], which no inode has.
    pub const fn mode_bits(self) -> u16 {
        ((self.0 & 15) as u16) << 12
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(bad d_type {})", self.0),
        }
    }
}

impl fmt::Debug for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `st_mode`: file type and permission bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode(pub u16);

impl Mode {
    /// A mode of this type with these permission bits (the low twelve).
    pub const fn new(ty: FileType, permissions: u16) -> Mode {
        Mode(ty.mode_bits() | permissions & 0o7777)
    }

    /// Kind of file.
    pub const fn file_type(self) -> FileType {
        FileType((self.0 >> 12) as u8)
    }

    /// Permission bits with set-user-id, set-group-id and sticky.
    pub const fn permissions(self) -> u16 {
        self.0 & 0o7777
    }
}

impl fmt::Display for Mode {
    /// Octal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

/// A device number as stored: `major << 20 | minor` (spec 40 §2.2, field 9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rdev(pub u32);

impl Rdev {
    /// The number of a device; `None` if the major needs more than 12 bits or the minor more than 20.
    pub const fn new(major: u32, minor: u32) -> Option<Rdev> {
        if major < 1 << 12 && minor < 1 << 20 { Some(Rdev(major << 20 | minor)) } else { None }
    }

    /// Major number.
    pub const fn major(self) -> u32 {
        self.0 >> 20
    }

    /// Minor number.
    pub const fn minor(self) -> u32 {
        self.0 & 0xf_ffff
    }
}
