//! Why a tree cannot be copied in.

use std::io;

use frazil_ondisk::DecodeError;

use crate::make::Unfit;

/// Why a tree cannot be copied in. Each message is one line that names what is to blame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// Something in the source cannot be read.
    #[error("{}: {why}", shown(path))]
    Unreadable {
        /// Where, as the user would name it.
        path: Vec<u8>,
        /// Why.
        why: io::Error,
    },
    /// Something in the source cannot be stored.
    #[error("{}: {why}", shown(path))]
    Unfit {
        /// Where, as the user would name it.
        path: Vec<u8>,
        /// Why.
        why: Unfit,
    },
    /// A volume in use does not take something.
    #[error("{}: {why}", shown(path))]
    Refused {
        /// Where, as the user would name it.
        path: Vec<u8>,
        /// Why.
        why: crate::Error,
    },
    /// An attribute of something in the source cannot be stored.
    #[error("{}: attribute {}: {why}", shown(path), shown(name))]
    UnfitAttribute {
        /// Where, as the user would name it.
        path: Vec<u8>,
        /// Name of the attribute.
        name: Vec<u8>,
        /// Why.
        why: Unfit,
    },
    /// Something in the source changed while it was copied.
    #[error("{}: it changed while it was copied", shown(path))]
    Changed {
        /// Where, as the user would name it.
        path: Vec<u8>,
    },
    /// The archive is damaged, or means something that cannot be done.
    #[error("the archive is not usable at {}: {why}", shown(at))]
    Archive {
        /// The member, or where in the archive.
        at: Vec<u8>,
        /// What is wrong.
        why: String,
    },
    /// The volume cannot be made.
    #[error(transparent)]
    Build(#[from] frazil_volume::build::BuildError),
    /// The new volume's own superblock makes no sense.
    #[error(transparent)]
    Format(#[from] DecodeError),
}

/// A path for people: what is not text is escaped.
fn shown(path: &[u8]) -> String {
    path.utf8_chunks().map(|chunk| format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii())).collect()
}
