//! Where a raw LZ4 block ends.
//!
//! The format stores an LZ4 payload without its compressed length, padded with zeros to whole blocks (spec 40 §9.3). The
//! decoder of the library takes the input's end for the block's end and fails on the padding, so the end must be found
//! first. That is cheap: the block is a chain of sequences whose lengths are in plain sight, so walking it touches a
//! few bytes of each and copies nothing.

/// Length of the shortest front part of `input` that decodes to exactly `decoded_len` bytes; `None` if there is none.
///
/// A block ends behind the literals of a sequence (a match always has another sequence behind it, if only an empty one).
pub(super) fn block_len(input: &[u8], decoded_len: usize) -> Option<usize> {
    /// Shortest match; the token counts from there.
    const MATCH_MIN: usize = 4;
    let mut at = 0;
    let mut decoded = 0usize;
    loop {
        let token = usize::from(*input.get(at)?);
        at += 1;
        let literals = length(input, &mut at, token >> 4)?;
        at = at.checked_add(literals)?;
        decoded = decoded.checked_add(literals)?;
        if at > input.len() || decoded > decoded_len {
            return None;
        }
        if decoded == decoded_len {
            return Some(at);
        }
        // The offset of the match; the decoder checks it.
        at += 2;
        decoded = decoded.checked_add(length(input, &mut at, token & 15)?)?.checked_add(MATCH_MIN)?;
    }
}

/// A length whose first four bits are `nibble`; 15 means that bytes follow, each added, up to one below 255.
#[inline]
fn length(input: &[u8], at: &mut usize, nibble: usize) -> Option<usize> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let byte = *input.get(*at)?;
            *at += 1;
            length += usize::from(byte);
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn padding_is_told_from_the_block(
            words in proptest::collection::vec((any::<u8>(), 1usize..40), 1..200),
            padding in 0usize..600,
        ) {
            let data: Vec<u8> = words.iter().flat_map(|&(byte, n)| std::iter::repeat_n(byte, n)).collect();
            let block = lz4_flex::block::compress(&data);
            let padded = [&block[..], &vec![0; padding]].concat();
            prop_assert_eq!(block_len(&padded, data.len()), Some(block.len()));
            prop_assert_eq!(block_len(&block[..block.len() - 1], data.len()), None);
        }

        #[test]
        fn any_bytes_end(input in proptest::collection::vec(any::<u8>(), 0..300), len in 0usize..5000) {
            prop_assert!(block_len(&input, len).is_none_or(|n| 0 < n && n <= input.len()));
        }
    }
}
