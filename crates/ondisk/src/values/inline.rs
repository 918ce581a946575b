//! File data inside the key (spec 40 §7.5).
//!
//! The value is the bytes, padded with zeros to whole words; the key covers whole blocks, and what is missing reads as
//! zeros. How many of the padding bytes belong to the file is told by its size.

use crate::bytes::PutLe;

/// Appends the data, padded to whole words.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(data);
    out.put_zeros(data.len().next_multiple_of(8) - data.len());
}

#[cfg(test)]
mod tests {
    #[test]
    fn data_is_padded_to_words() {
        for (len, padded) in [(0, 0), (1, 8), (8, 8), (9, 16)] {
            let mut out = Vec::new();
            super::encode(&[0xc6; 9][..len], &mut out);
            assert_eq!(out.len(), padded);
            assert!(out[len..].iter().all(|b| *b == 0));
        }
    }
}
