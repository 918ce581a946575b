//! Memory that a disk can fetch from and deliver to by itself.
//!
//! Direct I/O demands that memory begins at a multiple of some power of two, mostly 512, at most a page. An [`AlignedBuf`] always begins at
//! a page. Memory that is not so aligned costs a copy, nothing else.

use std::ops::{Deref, DerefMut};

/// Bytes of a page: what every [`AlignedBuf`] begins at a multiple of.
pub(crate) const PAGE_BYTES: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A buffer that begins at a page.
#[derive(Default)]
pub struct AlignedBuf {
    /// At least `len` bytes; all of them initialised, so that a later and larger use need not be zeroed.
    pages: Vec<Page>,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` zeros.
    pub fn new(len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::default();
        buf.set_len(len);
        buf
    }

    /// Makes it longer or shorter. What comes to it is anything that was in it before, or zeros.
    pub fn set_len(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE_BYTES);
        if self.pages.len() < pages {
            self.pages.resize(pages, Page([0; PAGE_BYTES]));
        }
        self.len = len;
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.set_len(start + bytes.len());
        self[start..].copy_from_slice(bytes);
    }

    /// Bytes of the memory that it has.
    pub fn room(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes: &[[u8; PAGE_BYTES]] = Page::bytes(&self.pages);
        &bytes.as_flattened()[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut Page::bytes_mut(&mut self.pages).as_flattened_mut()[..self.len]
    }
}

#[allow(unsafe_code)]
impl Page {
    fn bytes(pages: &[Page]) -> &[[u8; PAGE_BYTES]] {
        // SAFETY: a page is `repr(C)` around this array and as large, and its alignment is a multiple of the array's.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), pages.len()) }
    }

    fn bytes_mut(pages: &mut [Page]) -> &mut [[u8; PAGE_BYTES]] {
        // SAFETY: as above, and every array of bytes is a page.
        unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), pages.len()) }
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// Buffers that are not in use, so that their memory need not be taken again.
#[derive(Debug)]
pub(crate) struct Spare {
    buffers: parking_lot::Mutex<Vec<AlignedBuf>>,
    /// More are given back to the system.
    most: usize,
}

impl Spare {
    /// Keeps at most so many.
    pub(crate) fn new(most: usize) -> Spare {
        Spare { buffers: parking_lot::Mutex::new(Vec::new()), most }
    }

    /// A buffer of `len` bytes, which hold anything.
    pub(crate) fn take(&self, len: usize) -> AlignedBuf {
        let mut buf = self.buffers.lock().pop().unwrap_or_default();
        buf.set_len(len);
        buf
    }

    /// Keeps a buffer for later.
    pub(crate) fn keep(&self, buf: AlignedBuf) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < self.most {
            buffers.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_page_and_keeps_what_is_in_it() {
        let mut buf = AlignedBuf::new(3);
        assert_eq!((buf.as_ptr() as usize % PAGE_BYTES, &*buf), (0, &[0; 3][..]));
        buf.extend_from_slice(&[7; 10_000]);
        assert_eq!((buf.len(), buf.room(), buf.as_ptr() as usize % PAGE_BYTES), (10_003, 3 * PAGE_BYTES, 0));
        assert_eq!((buf[2], buf[3], buf[10_002]), (0, 7, 7));
        buf.set_len(5);
        assert_eq!(&*buf, &[0, 0, 0, 7, 7]);
        buf.set_len(0);
        assert!(buf.is_empty() && buf.room() == 3 * PAGE_BYTES);
    }

    #[test]
    fn spare_memory_is_used_again_and_bounded() {
        let spare = Spare::new(1);
        let (first, second) = (spare.take(5000), spare.take(1));
        let address = first.as_ptr();
        spare.keep(first);
        spare.keep(second);
        assert_eq!((spare.take(8000).as_ptr(), spare.buffers.lock().len()), (address, 0));
    }
}
