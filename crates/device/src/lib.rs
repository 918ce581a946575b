//! Where the blocks of a volume live.
//!
//! Everything above this crate sees storage as one trait, [`Device`]: a number of bytes that can be read, written,
//! flushed and discarded, and that names itself in every error. What stands behind it is one of
//!
//! * [`FileDevice`]: a regular file or block device, locked against other users of the same storage;
//! * [`MemDevice`]: sparse memory, with snapshots that cost nothing until written;
//! * [`ThinDevice`]: a device that promises more space than its pool has, like dm-thin,
//!
//! or a [`Wrapper`] around another device, in this crate
//!
//! * [`FaultyDevice`]: fails, tears, loses or corrupts chosen operations;
//! * [`RecordingDevice`]: remembers every write and flush, to build the images a [`Crash`] may leave; several with one clock
//!   are [`stamped`] devices.
//!
//! The devices of one volume, by member index, are a [`DeviceSet`].
//!
//! Beside them: who is mounted where ([`mounts`]), and how a thread says that it is about to wait ([`waiting`]).
//!
//! Opening for reading never writes a byte; see [`FileDevice`]. Errors are one enum, [`Error`].

mod aligned;
pub mod crash;
pub mod device;
mod error;
pub mod faulty;
pub mod file;
mod memory;
pub mod mounts;
pub mod recording;
mod rng;
mod set;
pub mod stamped;
pub mod thin;
pub mod waiting;
mod wrapper;

pub use aligned::AlignedBuf;
pub use crash::{Crash, Crashes};
pub use device::{Advice, Device, SECTOR_BYTES};
pub use error::{Errno, Error, Op, Result};
pub use faulty::{Fault, FaultyDevice};
pub use file::{Access, FileDevice, Holder, OpenOptions, Process};
pub use memory::MemDevice;
pub use recording::{Contents, Event, Log, RecordingDevice};
pub use set::DeviceSet;
pub use thin::{ThinDevice, ThinPool, WhenFull};
pub use wrapper::Wrapper;
