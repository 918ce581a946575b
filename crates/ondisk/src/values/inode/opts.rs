//! The options an inode can carry (spec 40 §2.7, spec 80 §7.9).
//!
//! Every field holds the option's value plus one; 0 means "not set here: the filesystem's option applies". Fields are
//! inherited by copying, and a bitmap in the inode says which were set explicitly.

/// An option of inodes; the number is its bit in [`super::Inode::fields_set`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum InodeOpt {
    /// Checksum of data: 0 none, 1 crc32c, 2 crc64, 3 xxhash.
    DataChecksum = 0,
    /// Compression of foreground writes, see [`crate::CompressionOption`].
    Compression = 1,
    /// Project id for quotas.
    Project = 2,
    /// Compression by background work.
    BackgroundCompression = 3,
    /// Copies of data.
    DataReplicas = 4,
    /// Target for cached copies of data that is read.
    PromoteTarget = 5,
    /// Target for foreground writes.
    ForegroundTarget = 6,
    /// Target for background moves.
    BackgroundTarget = 7,
    /// Erasure coding.
    ErasureCode = 8,
    /// Overwrite in place.
    Nocow = 9,
    /// Inode numbers below 2³¹ (1.18).
    Inodes32bit = 10,
    /// Case-insensitive names (1.24).
    Casefold = 11,
}

impl InodeOpt {
    /// Every option, in the order of the bits.
    pub const ALL: [InodeOpt; 12] = [
        InodeOpt::DataChecksum,
        InodeOpt::Compression,
        InodeOpt::Project,
        InodeOpt::BackgroundCompression,
        InodeOpt::DataReplicas,
        InodeOpt::PromoteTarget,
        InodeOpt::ForegroundTarget,
        InodeOpt::BackgroundTarget,
        InodeOpt::ErasureCode,
        InodeOpt::Nocow,
        InodeOpt::Inodes32bit,
        InodeOpt::Casefold,
    ];
    /// How many of [`InodeOpt::ALL`] version 1.13 knows.
    pub const COUNT_1_13: usize = 10;

    /// The option's name.
    pub const fn name(self) -> &'static str {
        match self {
            InodeOpt::DataChecksum => "data_checksum",
            InodeOpt::Compression => "compression",
            InodeOpt::Project => "project",
            InodeOpt::BackgroundCompression => "background_compression",
            InodeOpt::DataReplicas => "data_replicas",
            InodeOpt::PromoteTarget => "promote_target",
            InodeOpt::ForegroundTarget => "foreground_target",
            InodeOpt::BackgroundTarget => "background_target",
            InodeOpt::ErasureCode => "erasure_code",
            InodeOpt::Nocow => "nocow",
            InodeOpt::Inodes32bit => "inodes_32bit",
            InodeOpt::Casefold => "casefold",
        }
    }

    /// The option with that name.
    pub fn from_name(name: &str) -> Option<InodeOpt> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }

    /// Its bit in [`super::Inode::fields_set`].
    pub const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// Width of the stored field in bits.
    pub const fn width(self) -> u32 {
        match self {
            InodeOpt::Project => 32,
            InodeOpt::PromoteTarget
            | InodeOpt::ForegroundTarget
            | InodeOpt::BackgroundTarget
            | InodeOpt::ErasureCode => 16,
            _ => 8,
        }
    }
}

/// The option fields of an inode, as stored (value plus one, 0 = not set).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InodeOpts([u32; 12]);

impl InodeOpts {
    /// The option's value; `None` when the filesystem's applies.
    pub const fn get(&self, opt: InodeOpt) -> Option<u32> {
        self.0[opt as usize].checked_sub(1)
    }

    /// The stored field: the value plus one, or 0.
    pub const fn raw(&self, opt: InodeOpt) -> u32 {
        self.0[opt as usize]
    }

    /// Sets an option, or clears it with `None`.
    ///
    /// # Panics
    /// If the value plus one does not fit the option's field.
    pub fn set(&mut self, opt: InodeOpt, value: Option<u32>) {
        let raw = value.map_or(0, |v| v.checked_add(1).expect("option value fits its field"));
        self.set_raw(opt, raw);
    }

    /// Sets the stored field.
    ///
    /// # Panics
    /// If `raw` does not fit the option's field.
    pub fn set_raw(&mut self, opt: InodeOpt, raw: u32) {
        assert!(u64::from(raw) >> opt.width() == 0, "{}: {raw} does not fit its field", opt.name());
        self.0[opt as usize] = raw;
    }

    /// Some option is set here (inode flag `has_inode_opts` of 1.39).
    pub fn any(&self) -> bool {
        self.0 != [0; 12]
    }
}
