//! Listings: every key of a b-tree as the reference implementation prints it.
//!
//! A key starts with a line
//!
//! ```text
//! u64s 7 type extent 4099:8:4294967287 len 8 ver 0: durability: 1 crc: …
//! ```
//!
//! The text of its value follows on that line and, for some types, on indented lines after it. Names and attribute
//! values are printed raw, so a value's text may itself contain line breaks. Between the keys stand messages of the
//! tool about its own progress (standard output and standard error were recorded together); they are recognised by
//! how they begin and set aside. The tool prints inline data as a meaningless pointer; see `tests/golden/README.md`
//! for what else not to expect.

/// All keys of one b-tree.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The keys in the order they were printed, which is the order of the b-tree.
    pub keys: Vec<ListedKey>,
    /// Whether the listing was made after an in-memory check, because the plain one hung: repairs are included.
    pub after_check: bool,
}

/// One key as printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedKey {
    /// Size of key and value in 8-byte words.
    pub u64s: u32,
    /// Name of the key type, e.g. `inode_v3`.
    pub key_type: String,
    /// Position: inode, offset, snapshot.
    pub pos: (u64, u64, u32),
    /// Size of the key in sectors.
    pub len: u32,
    /// Version: for accounting keys, the position of its last journal update.
    pub version: u64,
    /// Text of the value, without the line break at its end; empty for keys without a value.
    pub value: String,
}

/// How the reference's own messages begin.
const MESSAGES: [&str; 35] = [
    "starting version ",
    "recovering from ",
    "journal read done, ",
    "Journal keys: ",
    "accounting_read...",
    "alloc_read...",
    "stripes_read...",
    "snapshots_read...",
    "journal_replay...",
    "resume_logged_ops...",
    "delete_dead_inodes...",
    "going read-write",
    "shutdown complete, ",
    "unshutdown complete, ",
    "initializing new filesystem",
    "initializing freespace",
    "Using encoding defined by superblock",
    "requested incompat feature ",
    "unable to write journal to ",
    "insufficient writeable journal devices ",
    "rw journal devs:",
    "fatal error - emergency read only",
    "exit status ",
    "Error: ",
    "bch2_",
    "check_",
    "scan_for_btree_nodes...",
    "delete_dead_snapshots...",
    "presplit...",
    "set_fs_needs_rebalance...",
    "fs_journal_alloc...",
    "trans_mark_dev_sbs...",
    "set_may_go_rw...",
    "fs_freespace_init...",
    PLAIN_LISTING_HANGS,
];

/// First line of a listing that was made after an in-memory check.
const PLAIN_LISTING_HANGS: &str = "(the plain listing hangs";

impl Listing {
    /// Parses a listing.
    ///
    /// # Errors
    /// The first key line that does not read as one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<ListedKey> = Vec::new();
        for line in text.lines() {
            if line.starts_with("u64s ") {
                keys.push(parse_key(line).ok_or_else(|| format!("not a key: {line}"))?);
            } else if MESSAGES.iter().all(|message| !line.starts_with(message))
                && let Some(key) = keys.last_mut()
            {
                key.value.push('\n');
                key.value.push_str(line);
            }
        }
        for key in &mut keys {
            key.value.truncate(key.value.trim_end_matches('\n').len());
        }
        Ok(Listing { keys, after_check: text.starts_with(PLAIN_LISTING_HANGS) })
    }
}

/// Reads `u64s N type T POS len N ver N` and, after a colon and a space, the beginning of the value.
fn parse_key(line: &str) -> Option<ListedKey> {
    let rest = line.strip_prefix("u64s ")?;
    let (u64s, rest) = rest.split_once(" type ")?;
    let (key_type, rest) = rest.split_once(' ')?;
    let (pos, rest) = rest.split_once(" len ")?;
    let (len, rest) = rest.split_once(" ver ")?;
    let (version, value) = rest.split_once(':').unwrap_or((rest, ""));
    Some(ListedKey {
        u64s: u64s.parse().ok()?,
        key_type: key_type.to_owned(),
        pos: parse_pos(pos)?,
        len: len.parse().ok()?,
        version: version.trim_end().parse().ok()?,
        value: value.strip_prefix(' ').unwrap_or(value).to_owned(),
    })
}

/// Reads a position: `inode:offset:snapshot`, with names for the extreme values.
fn parse_pos(text: &str) -> Option<(u64, u64, u32)> {
    match text {
        "POS_MIN" => return Some((0, 0, 0)),
        "POS_MAX" => return Some((u64::MAX, u64::MAX, 0)),
        "SPOS_MAX" => return Some((u64::MAX, u64::MAX, u32::MAX)),
        _ => {}
    }
    let mut parts = text.split(':');
    let mut wide = || match parts.next()? {
        "U64_MAX" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let (inode, offset) = (wide()?, wide()?);
    let snapshot = match parts.next()? {
        "U32_MAX" => u32::MAX,
        number => number.parse().ok()?,
    };
    parts.next().is_none().then_some((inode, offset, snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn keys_values_and_messages_are_told_apart() {
        let text = "starting version 1.13: x\nu64s 16 type inode_v3 0:4096:U32_MAX len 0 ver 0: \n  mode=40755\n  \
                    flags=(0)\ngoing read-write\n\nu64s 5 type set 0:26:0 len 1 ver 0\nu64s 8 type dirent \
                    4096:7:1 len 0 ver 3: two\nlines -> 5 type reg\n";
        let listing = Listing::parse(text).unwrap();
        let values: Vec<_> = listing.keys.iter().map(|key| key.value.as_str()).collect();
        assert_eq!(values, ["\n  mode=40755\n  flags=(0)", "", "two\nlines -> 5 type reg"]);
        assert_eq!(listing.keys[0].pos, (0, 4096, u32::MAX));
        assert_eq!((listing.keys[1].len, listing.keys[2].version), (1, 3));
        assert!(!listing.after_check);
        assert!(Listing::parse("u64s 5 type set somewhere len 1 ver 0").is_err());
    }

    #[test]
    fn every_listing_parses_in_btree_order() {
        let btrees =
            ["extents", "inodes", "dirents", "xattrs", "alloc", "backpointers", "accounting", "snapshots"];
        let mut keys = 0;
        for image in golden::all() {
            for btree in btrees {
                let Some(listing) = image.listing(btree) else {
                    let elsewhere =
                        golden::LISTINGS_ELSEWHERE.contains(&(&image.name, &format!("list-{btree}")));
                    assert!(image.version.minor > 13 || elsewhere, "{}: no listing of {btree}", image.name);
                    continue;
                };
                keys += listing.keys.len();
                // Extents are at their end, so equal positions cannot be; a snapshot is the last word of a position.
                let sorted = listing.keys.windows(2).all(|pair| pair[0].pos < pair[1].pos);
                assert!(sorted, "{}: {btree} is out of order", image.name);
            }
        }
        assert!(keys > 50_000, "only {keys} keys in all listings");
    }
}
