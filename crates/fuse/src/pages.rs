//! Memory for requests and replies, in which data begin at a page.
//!
//! File data make the way between here and a device without being copied if they begin where a page begins, and a request or reply goes from or to the kernel in
//! one piece if its header is in front of them. So there is a page for headers, and after it the body.

use std::ops::{Deref, DerefMut};

/// Bytes of a page, for what devices ask for.
const PAGE_BYTES: usize = 4096;

/// Where the body begins: before it there is room for headers.
pub(crate) const BODY: usize = PAGE_BYTES;

/// A page for headers, and a body that begins at a page. Where it is in memory it stays, also if it is moved. What is not touched needs no memory.
pub(crate) struct Pages {
    /// Never changes its length.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    /// Of zeros, with room for this many bytes of body.
    pub(crate) fn new(body_bytes: usize) -> Pages {
        let len = BODY + body_bytes;
        let bytes = vec![0; len + PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Pages { bytes, start, len }
    }

    /// Bytes for which the body has room.
    pub(crate) fn body_bytes(&self) -> usize {
        self.len - BODY
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_begins_at_a_page() {
        for body_bytes in [0, 1, 4096, 1 << 20] {
            let mut pages = Pages::new(body_bytes);
            assert_eq!((pages.len(), pages.body_bytes()), (BODY + body_bytes, body_bytes));
            assert_eq!(pages[BODY..].as_ptr().addr() % PAGE_BYTES, 0);
            pages.fill(7);
        }
    }
}
