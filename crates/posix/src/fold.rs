//! Folded names of casefolding directories (spec 80 §5.9).
//!
//! A directory may be told not to distinguish upper and lower case. Its entries then lie at the hash of the *folded* name, and
//! two names are the same if they fold to the same bytes. Which bytes those are is part of the on-disk format, and so is
//! the version of Unicode behind them, 12.1: a character that a later version added is not folded, because whoever wrote the
//! entry did not know it.
//!
//! Folding takes every character by itself: default-ignorable ones vanish, the others are case-folded (full folding, so that
//! `ß` becomes `ss`) and decomposed canonically. Then the combining marks of each base character are put into canonical
//! order. The tables come from libraries that know a later Unicode; what that version added is listed in [`ADDED_LATER`]
//! and passed over. A test compares the whole with Unicode 12.1, so a library that moves on is noticed.

use std::iter;

use caseless::Caseless;
use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

/// Folds `name` into `out`, which is cleared first. `false` if the name is not UTF-8: no entry can have it.
pub(crate) fn fold(name: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if name.is_ascii() {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        return true;
    }
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let mut chars = Vec::with_capacity(name.len());
    for c in name.chars() {
        fold_char(c, &mut chars);
    }
    reorder_marks(&mut chars);
    let mut utf8 = [0; 4];
    for c in chars {
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
    true
}

/// Appends what one character folds to.
fn fold_char(c: char, out: &mut Vec<char>) {
    if is_in(DEFAULT_IGNORABLE, c) {
        return;
    }
    if is_in(ADDED_LATER, c) {
        out.push(c);
        return;
    }
    for folded in iter::once(c).default_case_fold() {
        decompose_canonical(folded, |part| {
            if !is_in(DEFAULT_IGNORABLE, part) {
                out.push(part);
            }
        });
    }
}

/// The combining class of Unicode 12.1; 0 for characters that are not marks.
fn combining_class(c: char) -> u8 {
    if is_in(ADDED_LATER, c) { 0 } else { canonical_combining_class(c) }
}

/// Sorts every run of combining marks by their classes, keeping the order within a class.
fn reorder_marks(chars: &mut [char]) {
    for run in chars.chunk_by_mut(|a, b| combining_class(*a) != 0 && combining_class(*b) != 0) {
        if run.len() > 1 {
            run.sort_by_key(|c| combining_class(*c));
        }
    }
}

/// Whether `c` lies in one of the ascending ranges.
fn is_in(ranges: &[(char, char)], c: char) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= c);
    behind > 0 && c <= ranges[behind - 1].1
}

/// The characters that Unicode 12.1 calls default-ignorable.
const DEFAULT_IGNORABLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// The characters added after Unicode 12.1 that the libraries fold, decompose or reorder.
const ADDED_LATER: &[(char, char)] = &[
    ('\u{5c8}', '\u{5c9}'),
    ('\u{897}', '\u{89f}'),
    ('\u{8ca}', '\u{8d2}'),
    ('\u{c3c}', '\u{c3c}'),
    ('\u{1715}', '\u{1715}'),
    ('\u{1abf}', '\u{1af0}'),
    ('\u{1c89}', '\u{1c89}'),
    ('\u{1dfa}', '\u{1dfa}'),
    ('\u{2c2f}', '\u{2c2f}'),
    ('\u{a7c0}', '\u{a7c0}'),
    ('\u{a7c7}', '\u{a7c7}'),
    ('\u{a7c9}', '\u{a7c9}'),
    ('\u{a7cb}', '\u{a7cc}'),
    ('\u{a7d0}', '\u{a7d0}'),
    ('\u{a7d6}', '\u{a7d6}'),
    ('\u{a7d8}', '\u{a7d8}'),
    ('\u{a7da}', '\u{a7da}'),
    ('\u{a7dc}', '\u{a7dc}'),
    ('\u{a7f5}', '\u{a7f5}'),
    ('\u{a82c}', '\u{a82c}'),
    ('\u{10570}', '\u{1057a}'),
    ('\u{1057c}', '\u{1058a}'),
    ('\u{1058c}', '\u{10592}'),
    ('\u{10594}', '\u{10595}'),
    ('\u{105c9}', '\u{105c9}'),
    ('\u{105e4}', '\u{105e4}'),
    ('\u{10d50}', '\u{10d65}'),
    ('\u{10d69}', '\u{10d6d}'),
    ('\u{10eab}', '\u{10eac}'),
    ('\u{10ecb}', '\u{10ecf}'),
    ('\u{10ef0}', '\u{10efb}'),
    ('\u{10efd}', '\u{10eff}'),
    ('\u{10f82}', '\u{10f85}'),
    ('\u{11070}', '\u{11070}'),
    ('\u{11383}', '\u{11383}'),
    ('\u{11385}', '\u{11385}'),
    ('\u{1138e}', '\u{1138e}'),
    ('\u{11391}', '\u{11391}'),
    ('\u{113c5}', '\u{113c5}'),
    ('\u{113c7}', '\u{113c8}'),
    ('\u{113ce}', '\u{113d0}'),
    ('\u{11938}', '\u{11938}'),
    ('\u{1193d}', '\u{1193e}'),
    ('\u{11943}', '\u{11943}'),
    ('\u{11f41}', '\u{11f42}'),
    ('\u{16121}', '\u{16128}'),
    ('\u{1612f}', '\u{1612f}'),
    ('\u{16d68}', '\u{16d6a}'),
    ('\u{16ff0}', '\u{16ff1}'),
    ('\u{1d127}', '\u{1d128}'),
    ('\u{1d250}', '\u{1d252}'),
    ('\u{1d25b}', '\u{1d25c}'),
    ('\u{1d25f}', '\u{1d25f}'),
    ('\u{1d280}', '\u{1d281}'),
    ('\u{1e08f}', '\u{1e08f}'),
    ('\u{1e2ae}', '\u{1e2ae}'),
    ('\u{1e4ec}', '\u{1e4ef}'),
    ('\u{1e5ee}', '\u{1e5ef}'),
    ('\u{1e6e3}', '\u{1e6e3}'),
    ('\u{1e6e6}', '\u{1e6e6}'),
    ('\u{1e6ee}', '\u{1e6ef}'),
    ('\u{1e6f5}', '\u{1e6f5}'),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn folded(name: &str) -> String {
        let mut out = vec![b'x'];
        assert!(fold(name.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    /// The examples of spec 80 §5.9, all from an image.
    #[test]
    fn examples_of_the_specification() {
        assert_eq!(folded("Straße"), "strasse");
        assert_eq!(folded("ünïcödé"), "u\u{308}ni\u{308}co\u{308}de\u{301}");
        assert_eq!(folded("É"), "e\u{301}");
        assert_eq!(folded("İstanbul"), "i\u{307}stanbul");
        assert_eq!(folded("\u{212b}"), "a\u{30a}");
        assert_eq!(folded("\u{212a}"), "k");
        assert_eq!(folded("ſ"), "s");
        assert_eq!(folded("ﬁ"), "fi");
        assert_eq!(folded("Ｆ"), "ｆ");
    }

    #[test]
    fn ignorable_characters_vanish_and_marks_are_ordered() {
        assert_eq!(folded("a\u{ad}b\u{200d}c\u{fe0f}"), "abc");
        assert_eq!(folded("q\u{307}\u{323}"), "q\u{323}\u{307}");
        assert_eq!(folded("q\u{323}\u{307}"), "q\u{323}\u{307}");
        assert_eq!(folded("한"), "\u{1112}\u{1161}\u{11ab}");
        assert!(!fold(b"\xff", &mut Vec::new()));
    }

    /// Every character that folds to something else or is a mark, in one hash, which was computed from the tables of
    /// Unicode 12.1.0.
    #[test]
    fn every_character_folds_as_in_unicode_12_1() {
        let mut hash = Sha256::new();
        let mut count = 0;
        for c in '\0'..=char::MAX {
            let mut to = Vec::new();
            fold_char(c, &mut to);
            let class = combining_class(c);
            if to != [c] || class != 0 {
                count += 1;
                let to: Vec<String> = to.iter().map(|c| format!("{:x}", u32::from(*c))).collect();
                hash.update(format!("{:x} {} {class}\n", u32::from(c), to.join(" ")));
            }
        }
        let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            (count, &*hash),
            (19308, "31575ce085d10ba259b00f70486f6dd788551131e046d7dc082581c6f012692c")
        );
    }

    #[test]
    fn tables_ascend() {
        for table in [DEFAULT_IGNORABLE, ADDED_LATER] {
            assert!(table.iter().all(|(first, last)| first <= last));
            assert!(table.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(name in "\\PC{0,30}|[a\u{301}\u{323}\u{345}\u{308}ßİ\u{ad}]{0,12}") {
            let once = folded(&name);
            prop_assert_eq!(folded(&once), once);
        }

        #[test]
        fn case_does_not_matter(name in "[a-zäöüéñçA-ZÄÖÜÉÑÇ]{0,30}") {
            prop_assert_eq!(folded(&name.to_uppercase()), folded(&name.to_lowercase()));
        }
    }
}
