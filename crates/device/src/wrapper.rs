//! Devices around another device.
//!
//! What stands in front of a device changes some of what it does and passes on the rest. A [`Wrapper`] says which device that is and names only
//! what it changes; everything else, sizes and hints and all, is that of the device below. It is a [`Device`] by that alone.
//!
//! A vectored call becomes plain ones of the wrapper itself, so that nothing gets past it; who has something better to do with it says so.
//!
//! Both traits have methods of the same names. So only [`Device`] is brought into scope, this one is named where it is implemented, and there
//! `self.inner()` and `Device::read_at(self, …)` say which is meant.

use std::fmt::Debug;
use std::io::IoSliceMut;
use std::sync::Arc;

use crate::device::read_each;
use crate::{Advice, Device, Result};

/// A device in front of another one. The methods are those of [`Device`] and do what the device below does, unless a wrapper says otherwise.
#[allow(missing_docs, reason = "they are documented there")]
pub trait Wrapper: Send + Sync + Debug {
    /// What is below.
    type Inner: Device + ?Sized;

    /// The device below.
    fn inner(&self) -> &Self::Inner;

    fn is_read_only(&self) -> bool {
        self.inner().is_read_only()
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.inner().read_at(offset_bytes, buf)
    }
    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        read_each(offset_bytes, bufs, |at, buf| Wrapper::read_at(self, at, buf))
    }
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.inner().write_at(offset_bytes, data)
    }
    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.inner().write_fua_at(offset_bytes, data)
    }
    fn flush(&self) -> Result<()> {
        self.inner().flush()
    }
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner().discard(offset_bytes, len_bytes)
    }
    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner().zero(offset_bytes, len_bytes)
    }
    fn advise(&self, offset_bytes: u64, len_bytes: u64, advice: Advice) {
        self.inner().advise(offset_bytes, len_bytes, advice);
    }
}

impl<W: Wrapper> Device for W {
    fn name(&self) -> &Arc<str> {
        self.inner().name()
    }
    fn size_bytes(&self) -> u64 {
        self.inner().size_bytes()
    }
    fn logical_block_bytes(&self) -> u32 {
        self.inner().logical_block_bytes()
    }
    fn physical_block_bytes(&self) -> u32 {
        self.inner().physical_block_bytes()
    }
    fn is_read_only(&self) -> bool {
        Wrapper::is_read_only(self)
    }
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        Wrapper::read_at(self, offset_bytes, buf)
    }
    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        Wrapper::read_vectored_at(self, offset_bytes, bufs)
    }
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        Wrapper::write_at(self, offset_bytes, data)
    }
    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        Wrapper::write_fua_at(self, offset_bytes, data)
    }
    fn flush(&self) -> Result<()> {
        Wrapper::flush(self)
    }
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        Wrapper::discard(self, offset_bytes, len_bytes)
    }
    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        Wrapper::zero(self, offset_bytes, len_bytes)
    }
    fn advise(&self, offset_bytes: u64, len_bytes: u64, advice: Advice) {
        Wrapper::advise(self, offset_bytes, len_bytes, advice);
    }
}

impl<D: Device + ?Sized> Wrapper for Arc<D> {
    type Inner = D;

    fn inner(&self) -> &D {
        self
    }

    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        (**self).read_vectored_at(offset_bytes, bufs)
    }
}
