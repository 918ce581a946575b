//! Freezing, thawing and stopping by `ioctl` on an open file or directory of the mount: the second way (spec 70 §7.1 R10).
//!
//! It needs no socket, so it also works from another network namespace, and for programs in languages without either library. The numbers are
//! our own, for the kernel refuses the usual ones (`FIFREEZE`) for FUSE by itself, or passes no argument on (`XFS_IOC_GOINGDOWN`). They
//! are listed in docs/freeze.md.
//!
//! A hold made like this belongs to nobody: its time is bounded.

use std::time::Duration;

use frazil_volume::lifecycle::{FreezeRequest, HolderId, Lifecycle, LifecycleError, ShutdownMode};
use rustix::io::Errno as Code;

use super::freeze::errno;
use crate::errno::Errno;

/// `_IOWR(0xFA, 0x40, u64[3])`: milliseconds to hold, milliseconds to drain; out: the hold.
const FREEZE: u32 = 0xc018_fa40;
/// `_IOW(0xFA, 0x41, u64)`: the hold; 0 for all.
const THAW: u32 = 0x4008_fa41;
/// `_IOW(0xFA, 0x42, u32)`: the mode.
const SHUTDOWN: u32 = 0x4004_fa42;

/// Where 0 was given.
const TIME_DEFAULT: Duration = Duration::from_secs(30);

/// Whether a control is one of these.
pub(crate) fn is_one(command: u32) -> bool {
    matches!(command, FREEZE | THAW | SHUTDOWN)
}

/// Does what a control asks for: what it delivers. May wait.
pub(crate) fn run(
    lifecycle: &Lifecycle,
    (command, input): (u32, &[u8]),
    (uid, pid): (u32, u32),
) -> Result<Vec<u8>, Errno> {
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(Code::PERM.into());
    }
    let done = match command {
        FREEZE => {
            let [hold, drain, _] = words(input).ok_or(Errno::INVAL)?;
            let time = |millis: u64| if millis == 0 { TIME_DEFAULT } else { Duration::from_millis(millis) };
            let request = FreezeRequest {
                who: format!("ioctl, process {pid} of user {uid}"),
                share: true,
                hold_for: Some(time(hold)),
                give_up_after: Some(time(drain)),
            };
            lifecycle.freeze(request).map(|holder| [hold, drain, holder.0].map(u64::to_ne_bytes).concat())
        }
        THAW => match words(input).ok_or(Errno::INVAL)? {
            [0] => lifecycle.thaw_all().map(|()| Vec::new()),
            [holder] => lifecycle.thaw(HolderId(holder)).map(|()| Vec::new()),
        },
        _ => {
            let mode = match input.try_into().map(u32::from_ne_bytes) {
                Ok(0) => ShutdownMode::Default,
                Ok(1) => ShutdownMode::LogFlush,
                Ok(2) => ShutdownMode::NoLogFlush,
                _ => return Err(Errno::INVAL),
            };
            lifecycle.shutdown(mode).map(|()| Vec::new())
        }
    };
    done.map_err(|error: LifecycleError| errno(&error).into())
}

/// The input as numbers.
fn words<const N: usize>(input: &[u8]) -> Option<[u64; N]> {
    let mut words = [0; N];
    if input.len() != N * 8 {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(input.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}
