//! The compressors, in exactly the form a reader expects (spec 40 §9.3).
//!
//! | algorithm | payload | level of the option |
//! |---|---|---|
//! | lz4 | one raw block; its length is stored nowhere | no meaning: the library has one speed |
//! | gzip | a raw DEFLATE stream, window 32 KiB | 1–9; 0 and more than 9 are brought into that range |
//! | zstd | length of the frame (u32), one frame with its content size and without checksum | half as much again; 0 is the default |
//!
//! Levels matter to nobody who reads.

use flate2::{Compress, Compression, FlushCompress, Status};
use frazil_ondisk::compression::{CompressionOption, CompressionType};

/// Bytes in front of a zstd frame.
const ZSTD_LENGTH_BYTES: usize = 4;
/// Level of gzip where the option has none.
const GZIP_LEVEL_DEFAULT: u32 = 6;

/// Compressors, whose tables are large enough to be kept; each for the level it was used with last.
#[derive(Default)]
pub(super) struct Compressors {
    deflate: Option<(u32, Compress)>,
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
    lz4: Option<lz4_flex::block::CompressTable>,
}

impl Compressors {
    /// Compresses `data` to the front of `out`, which grows as needed and may hold anything behind it, and returns the length;
    /// `None` if it does not become shorter.
    pub(super) fn compress(
        &mut self,
        option: CompressionOption,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        // Room for what any of them may need for data that does not compress: with less, the DEFLATE library may panic.
        let room = lz4_flex::block::get_maximum_output_size(data.len()) + data.len() / 4 + 64;
        if out.len() < room {
            out.resize(room, 0);
        }
        let len = match option.compression_type()? {
            CompressionType::LZ4 => {
                // Always the large table: what comes out depends on it, and must not depend on what came before.
                let table = self.lz4.get_or_insert_with(lz4_flex::block::CompressTable::large);
                lz4_flex::block::compress_into_with_table(data, out, table).ok()?
            }
            CompressionType::GZIP => self.deflate(option.level(), data, out)?,
            CompressionType::ZSTD => {
                let (length, frame) = out.split_first_chunk_mut::<ZSTD_LENGTH_BYTES>()?;
                let len = self.zstd(option.level(), data, &mut frame[..data.len()])?;
                *length = u32::try_from(len).ok()?.to_le_bytes();
                len + ZSTD_LENGTH_BYTES
            }
            _ => return None,
        };
        (len < data.len()).then_some(len)
    }

    /// `None` if the stream does not fit.
    fn deflate(&mut self, level: u8, data: &[u8], out: &mut [u8]) -> Option<usize> {
        let level = if level == 0 { GZIP_LEVEL_DEFAULT } else { u32::from(level).min(9) };
        let compress = match &mut self.deflate {
            Some((kept, compress)) if *kept == level => compress,
            slot => &mut slot.insert((level, Compress::new(Compression::new(level), false))).1,
        };
        compress.reset();
        match compress.compress(data, out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => usize::try_from(compress.total_out()).ok(),
            _ => None,
        }
    }

    /// `None` if the frame does not fit.
    fn zstd(&mut self, level: u8, data: &[u8], out: &mut [u8]) -> Option<usize> {
        // 0 is the library's default in both.
        let level = i32::from(level) * 3 / 2;
        let compressor = match &mut self.zstd {
            Some((kept, compressor)) if *kept == level => compressor,
            slot => &mut slot.insert((level, zstd::bulk::Compressor::new(level).ok()?)).1,
        };
        compressor.compress_to_buffer(data, out).ok()
    }
}
