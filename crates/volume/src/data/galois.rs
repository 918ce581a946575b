//! The arithmetic of RAID-6: bytes as elements of GF(2⁸) with the polynomial x⁸+x⁴+x³+x²+1 (0x11d) and generator 2.
//!
//! Addition is XOR. Of data blocks D₀ … Dₙ₋₁ the first parity block is P = Σ Dᵢ and the second Q = Σ 2ⁱ·Dᵢ. Two
//! unknowns in these two equations can be solved for; with one parity block it is RAID-5 and plain XOR.

/// The field's polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1d;

/// Powers of the generator (255 of them, then again from the start).
const EXP: [u8; 510] = {
    let mut exp = [0; 510];
    let (mut i, mut power) = (0, 1u8);
    while i < 510 {
        exp[i] = power;
        power = (power << 1) ^ if power & 0x80 != 0 { POLYNOMIAL } else { 0 };
        i += 1;
    }
    exp
};

/// Logarithms; that of 0 is never used.
const LOG: [u8; 256] = {
    let mut log = [0; 256];
    let mut i = 0;
    while i < 255 {
        log[EXP[i] as usize] = i as u8;
        i += 1;
    }
    log
};

/// The generator to that power.
pub(super) fn power(exponent: u8) -> u8 {
    EXP[usize::from(exponent)]
}

fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    EXP[usize::from(LOG[usize::from(a)]) + usize::from(LOG[usize::from(b)])]
}

/// The reciprocal of `a`, which is not 0.
pub(super) fn inverse(a: u8) -> u8 {
    debug_assert_ne!(a, 0, "0 has no inverse");
    EXP[255 - usize::from(LOG[usize::from(a)])]
}

/// `sum += block`. Both have the same length.
pub(super) fn add(sum: &mut [u8], block: &[u8]) {
    for (s, b) in sum.iter_mut().zip(block) {
        *s ^= b;
    }
}

/// `sum += factor · block`. Both have the same length.
pub(super) fn add_multiple(sum: &mut [u8], factor: u8, block: &[u8]) {
    let products: [u8; 256] = std::array::from_fn(|b| mul(factor, b as u8));
    for (s, b) in sum.iter_mut().zip(block) {
        *s ^= products[usize::from(*b)];
    }
}

/// `block *= factor`.
pub(super) fn scale(block: &mut [u8], factor: u8) {
    let products: [u8; 256] = std::array::from_fn(|b| mul(factor, b as u8));
    for b in block {
        *b = products[usize::from(*b)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication by its definition: shift and reduce.
    fn slow_mul(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            a = (a << 1) ^ if a & 0x80 != 0 { 0x1d } else { 0 };
            b >>= 1;
        }
        product
    }

    #[test]
    fn the_tables_agree_with_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(mul(a, b), slow_mul(a, b));
            }
            if a != 0 {
                assert_eq!(mul(a, inverse(a)), 1);
            }
        }
        assert_eq!([0, 1, 7, 8].map(power), [1, 2, 0x80, 0x1d]);
    }

    #[test]
    fn blocks() {
        let block = [1, 2, 0, 255];
        let mut sum = [5; 4];
        add_multiple(&mut sum, 3, &block);
        assert_eq!(sum, block.map(|b| 5 ^ slow_mul(3, b)));
        add(&mut sum, &[5; 4]);
        scale(&mut sum, inverse(3));
        assert_eq!(sum, block);
    }
}
