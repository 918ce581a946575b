//! The content of a file as a tar archive stores it: the stretches of data one after the other.
//!
//! The length of a member stands in front of it, so once it is announced every byte of it must come. What cannot be read becomes zeros,
//! is reported, and spoils the result but not the archive.

use std::io::{self, Read};
use std::ops::Range;

use frazil_posix::{Fs, NodeId};

use crate::say;
use crate::target::PIECE_BYTES;

/// Delivers stretches of a file.
pub(super) struct Content<'f> {
    fs: &'f Fs,
    node: NodeId,
    /// For messages.
    name: &'f str,
    /// What is still to be read, the next one last.
    ahead: Vec<Range<u64>>,
    /// A piece read, and how much of it has been delivered.
    piece: Vec<u8>,
    delivered: usize,
    /// Bytes replaced by zeros.
    lost: u64,
}

impl<'f> Content<'f> {
    /// The content of these stretches.
    pub(super) fn new(fs: &'f Fs, node: NodeId, name: &'f str, stretches: &[Range<u64>]) -> Content<'f> {
        let ahead = stretches.iter().rev().filter(|stretch| !stretch.is_empty()).cloned().collect();
        Content { fs, node, name, ahead, piece: Vec::new(), delivered: 0, lost: 0 }
    }

    /// Whether something had to be replaced by zeros.
    pub(super) fn is_damaged(&self) -> bool {
        self.lost > 0
    }

    /// Reads the next piece; empty at the end.
    fn fill(&mut self) {
        self.delivered = 0;
        self.piece.clear();
        let Some(next) = self.ahead.last_mut() else { return };
        let wanted = PIECE_BYTES.min(usize::try_from(next.end - next.start).unwrap_or(PIECE_BYTES));
        self.piece.resize(wanted, 0);
        let at = next.start;
        match self.fs.read(self.node, at, &mut self.piece) {
            Ok(read) if read > 0 => self.piece.truncate(read),
            // Up to the next block, from where it may go on.
            bad => {
                let len = LOST_BYTES - at % LOST_BYTES;
                self.piece.truncate(usize::try_from(len).unwrap_or(wanted).min(wanted));
                self.piece.fill(0);
                if self.lost == 0 {
                    let why =
                        bad.err().map_or_else(|| "the file ends early".to_owned(), |error| error.to_string());
                    say::error(format_args!("{}: {why}; zeros instead", self.name));
                }
                self.lost += self.piece.len() as u64;
            }
        }
        next.start += self.piece.len() as u64;
        if next.is_empty() {
            self.ahead.pop();
        }
    }
}

/// What is given up at once where reading fails.
const LOST_BYTES: u64 = 4096;

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.delivered == self.piece.len() {
            self.fill();
        }
        let rest = &self.piece[self.delivered..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.delivered += len;
        Ok(len)
    }
}
