//! Direct I/O beside the kernel's cache.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod in_memory;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use frazil_fuse::control::{HoldReport, Request};

use in_memory::{LONG, freeze, mounted};

/// As much as a request that waits is, and whole pages.
const BYTES: usize = 128 << 10;

/// Memory for direct I/O.
#[repr(align(4096))]
struct Pages([u8; BYTES]);

/// `struct iocb` of linux/aio_abi.h, little endian.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

const PWRITE: u16 = 1;

/// A write that is under way without a thread.
struct Write<'p> {
    context: libc::c_ulong,
    control: Box<ControlBlock>,
    pages: &'p Pages,
}

impl<'p> Write<'p> {
    #[allow(unsafe_code)]
    fn begin(file: &File, pages: &'p Pages) -> Write<'p> {
        let mut write = Write { context: 0, control: Box::default(), pages };
        *write.control = ControlBlock {
            opcode: PWRITE,
            file: file.as_raw_fd() as u32,
            buffer: pages.0.as_ptr() as u64,
            bytes: pages.0.len() as u64,
            ..ControlBlock::default()
        };
        let blocks = [&raw mut *write.control];
        // SAFETY: the context is where the kernel puts it, and the block and the memory it names live until `end`.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_io_setup, 1, &raw mut write.context), 0);
            assert_eq!(libc::syscall(libc::SYS_io_submit, write.context, 1, blocks.as_ptr()), 1);
        }
        write
    }

    /// Waits; how many bytes were written, or a negative error.
    #[allow(unsafe_code)]
    fn end(self) -> i64 {
        // `struct io_event`: data, object, result, second result.
        let mut event = [0i64; 4];
        let no_limit = std::ptr::null::<libc::timespec>();
        // SAFETY: there is room for the one event that is asked for.
        unsafe {
            let got = libc::syscall(libc::SYS_io_getevents, self.context, 1, 1, event.as_mut_ptr(), no_limit);
            assert_eq!(got, 1);
            assert_eq!(libc::syscall(libc::SYS_io_destroy, self.context), 0);
        }
        assert_eq!(self.control.buffer, self.pages.0.as_ptr() as u64);
        event[2]
    }
}

#[test]
fn what_was_read_during_a_direct_write_is_read_again_after_it() {
    let m = mounted();
    let path = m.dir.join("file");
    fs::write(&path, vec![1; BYTES]).unwrap();
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let pages = Box::new(Pages([2; BYTES]));
    // What the kernel has cached of the file it has dropped when the write waits here, for the thaw; and reading goes on.
    let hold: HoldReport = m.client().ask(&freeze(LONG)).unwrap();
    let write = Write::begin(&file, &pages);
    let begin = Instant::now();
    while m.status().waiting_count == 0 && begin.elapsed() < LONG {}
    let read_meanwhile = fs::read(&path).unwrap();
    m.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
    assert_eq!(write.end(), BYTES as i64);
    assert_eq!(read_meanwhile, vec![1; BYTES]);
    assert_eq!(fs::read(&path).unwrap(), vec![2; BYTES]);
    drop(file);
    m.end();
}
