//! `frazil list`: the keys of a volume's b-trees, as a reader sees them: unreplayed journal keys included.
//!
//! The text is that of the reference's listings, for the same volume the same lines. What cannot be read is reported with
//! its range and stepped over, and the exit code says that the listing has gaps.

use std::io::Write;
use std::ops::RangeInclusive;

use frazil_btree::{Cursor, KeyHandle, LEVEL_MAX, Root};
use frazil_ondisk::values::Value;
use frazil_ondisk::values::list::{self, ListContext};
use frazil_ondisk::{Bpos, BtreeId, Key};
use frazil_volume::Volume;
use serde::Serialize;

use super::{Out, json_line};
use crate::context::Context;
use crate::open::{Devices, OpenArgs};
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// List the keys of a volume's b-trees
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A position is INODE[:OFFSET[:SNAPSHOT]], as listings print it. Extents are at their end, in sectors.

Examples:
  frazil list -b inodes /dev/sdb1
  frazil list -b extents --from 4100 --to 4100 /dev/sdb1     the extents of inode 4100
  frazil list -b alloc --nodes disk.img                      the leaves of the alloc b-tree
  frazil list --json disk.img | jq -r .type | sort | uniq -c")]
pub(crate) struct Args {
    #[command(flatten)]
    devices: Devices,
    /// Only this b-tree (a name or number); may be given several times
    #[arg(short, long = "btree", value_name = "BTREE", value_parser = parse_btree)]
    btrees: Vec<BtreeId>,
    /// Begin at this position
    #[arg(long, value_name = "POS", value_parser = parse_from)]
    from: Option<Bpos>,
    /// End with this position
    #[arg(long, value_name = "POS", value_parser = parse_to)]
    to: Option<Bpos>,
    /// The level: leaves are 0 [default: 0, for nodes all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=i64::from(LEVEL_MAX)))]
    level: Option<u8>,
    /// At most so many keys of each b-tree
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<u64>,
    /// The nodes instead of keys: the pointers that lead to them, a parent behind its children
    #[arg(long)]
    nodes: bool,
    /// One JSON object per key
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

fn parse_btree(text: &str) -> Result<BtreeId, String> {
    let number = || text.parse().ok().filter(|&n| usize::from(n) < BtreeId::COUNT_MAX).map(BtreeId);
    BtreeId::from_name(text).or_else(number).ok_or_else(|| {
        let names: Vec<&str> = BtreeId::known().filter_map(BtreeId::name).collect();
        format!("there is no such b-tree; there are: {}", names.join(", "))
    })
}

fn parse_from(text: &str) -> Result<Bpos, String> {
    parse_pos(text, Bpos::MIN)
}

fn parse_to(text: &str) -> Result<Bpos, String> {
    parse_pos(text, Bpos::MAX)
}

/// Reads a position; what is not given is taken from `rest`.
fn parse_pos(text: &str, rest: Bpos) -> Result<Bpos, String> {
    match text {
        "POS_MIN" => return Ok(Bpos::MIN),
        "POS_MAX" => return Ok(Bpos::POS_MAX),
        "SPOS_MAX" => return Ok(Bpos::MAX),
        _ => {}
    }
    let bad = || format!("'{text}' is not a position; write INODE[:OFFSET[:SNAPSHOT]]");
    let wide = |part: &str| if part == "U64_MAX" { Some(u64::MAX) } else { part.parse().ok() };
    let snapshot = |part: &str| if part == "U32_MAX" { Some(u32::MAX) } else { part.parse().ok() };
    let parts: Vec<&str> = text.split(':').collect();
    let read = match parts[..] {
        [inode] => wide(inode).map(|inode| Bpos { inode, ..rest }),
        [inode, offset] => {
            wide(inode).zip(wide(offset)).map(|(inode, offset)| Bpos { inode, offset, ..rest })
        }
        [inode, offset, snap] => wide(inode)
            .zip(wide(offset))
            .zip(snapshot(snap))
            .map(|((inode, offset), snapshot)| Bpos { inode, offset, snapshot }),
        _ => None,
    };
    read.ok_or_else(bad)
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let volume = args.open.volume(&args.devices.paths())?;
    let context = Context::of_volume(&volume);
    let mut listing = Listing { args, volume: &volume, context, left: u64::MAX, gaps: false };
    let several = args.btrees.len() != 1;
    for btree in listing.btrees() {
        listing.left = args.count.unwrap_or(u64::MAX);
        listing.btree(btree, several, out)?;
    }
    Ok(Done::unless(listing.gaps))
}

/// A listing under way.
struct Listing<'a> {
    args: &'a Args,
    volume: &'a Volume,
    context: Context<'a>,
    /// How many more keys of this b-tree are wanted.
    left: u64,
    /// Something could not be read.
    gaps: bool,
}

impl Listing<'_> {
    /// The b-trees to list: those asked for, or all that are known or there.
    fn btrees(&self) -> Vec<BtreeId> {
        if !self.args.btrees.is_empty() {
            return self.args.btrees.clone();
        }
        let there = self.volume.btrees().roots().into_keys();
        let mut all: Vec<BtreeId> = BtreeId::known().chain(there).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Lists one b-tree, below its name if there are `several` and it is not empty.
    fn btree(&mut self, btree: BtreeId, several: bool, out: &mut Out) -> Result<(), Stop> {
        let name = list::btree_name(btree, self.context.version());
        let mut heading = (several && !self.args.json).then_some(name.as_str());
        if self.args.nodes {
            return self.nodes(btree, &name, &mut heading, out);
        }
        let level = self.args.level.unwrap_or(0);
        let mut cursor = self.volume.btrees().level_cursor(btree, level, self.range());
        while self.left > 0
            && let Some(key) = self.next(&mut cursor)
        {
            self.key(&name, level, key.key(), &mut heading, out)?;
        }
        Ok(())
    }

    fn range(&self) -> RangeInclusive<Bpos> {
        self.args.from.unwrap_or(Bpos::MIN)..=self.args.to.unwrap_or(Bpos::MAX)
    }

    /// Lists the nodes of a b-tree. The pointers to the nodes of one level are the keys of the level above; only that to the
    /// root stands elsewhere. Levels are merged by position, so that a parent comes behind its last child.
    fn nodes(
        &mut self,
        btree: BtreeId,
        name: &str,
        heading: &mut Option<&str>,
        out: &mut Out,
    ) -> Result<(), Stop> {
        let volume = self.volume;
        let Some(Root::At { level: top, key: root }) = volume.btrees().root(btree) else { return Ok(()) };
        let wanted = |level: u8| self.args.level.is_none_or(|only| only == level);
        let levels = (0..top).filter(|&level| wanted(level));
        let mut levels: Vec<_> = levels
            .map(|level| (level, volume.btrees().level_cursor(btree, level + 1, self.range())))
            .collect();
        let root_wanted = wanted(top) && self.range().contains(&root.k.pos);
        let mut next: Vec<Option<KeyHandle>> =
            levels.iter_mut().map(|(_, cursor)| self.next(cursor)).collect();
        while self.left > 0 {
            let first = (0..next.len()).filter(|&i| next[i].is_some());
            let first = first.min_by_key(|&i| next[i].as_ref().map(|key| (key.key().k.pos, i)));
            let Some(i) = first else { break };
            if let Some(key) = std::mem::take(&mut next[i]) {
                self.key(name, levels[i].0, key.key(), heading, out)?;
            }
            next[i] = self.next(&mut levels[i].1);
        }
        if root_wanted && self.left > 0 {
            self.key(name, top, root.as_key(), heading, out)?;
        }
        Ok(())
    }

    /// The next key; what cannot be read is reported and stepped over.
    fn next(&mut self, cursor: &mut Cursor<'_>) -> Option<KeyHandle> {
        loop {
            match cursor.step_next() {
                Ok(true) => return cursor.handle(),
                Ok(false) => return None,
                Err(error) => {
                    self.gaps = true;
                    say::error(error);
                    cursor.skip_bad_node()?;
                }
            }
        }
    }

    fn key(
        &mut self,
        btree: &str,
        level: u8,
        key: Key<'_>,
        heading: &mut Option<&str>,
        out: &mut Out,
    ) -> Result<(), Stop> {
        self.left -= 1;
        if self.args.json {
            return json_line(out, &KeyLine::new(btree, level, key, &self.context));
        }
        if let Some(name) = heading.take() {
            writeln!(out, "b-tree {name}:")?;
        }
        writeln!(out, "{}", list::key(key, &self.context))?;
        Ok(())
    }
}

/// A key as JSON.
#[derive(Serialize)]
pub(crate) struct KeyLine<'a> {
    btree: &'a str,
    level: u8,
    /// As `--from` takes it.
    pos: String,
    inode: u64,
    offset: u64,
    snapshot: u32,
    #[serde(rename = "type")]
    ty: String,
    /// Sectors an extent covers.
    size: u32,
    /// 96 bits, in decimal.
    version: String,
    /// Length in words, header included.
    u64s: usize,
    /// As the listing has it.
    value: String,
}

impl<'a> KeyLine<'a> {
    /// What there is to say about a key of `level`.
    pub(crate) fn new(btree: &'a str, level: u8, key: Key<'_>, context: &dyn ListContext) -> KeyLine<'a> {
        let value = match Value::decode(key) {
            Ok(value) => list::value(&value, &key.k, context).to_string(),
            Err(why) => format!("(undecodable: {why})"),
        };
        let pos = key.k.pos;
        let version = (u128::from(key.k.version.hi) << 64) | u128::from(key.k.version.lo);
        KeyLine {
            btree,
            level,
            pos: pos.to_string(),
            inode: pos.inode,
            offset: pos.offset,
            snapshot: pos.snapshot,
            ty: key.k.ty.to_string(),
            size: key.k.size,
            version: version.to_string(),
            u64s: key.u64s(),
            value: value.trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_printed() {
        for pos in [Bpos::MIN, Bpos::MAX, Bpos::POS_MAX, Bpos::new(1, u64::MAX, 3), Bpos::new(9, 8, u32::MAX)]
        {
            assert_eq!(parse_from(&pos.to_string()), Ok(pos));
        }
        assert_eq!(parse_from("7"), Ok(Bpos::new(7, 0, 0)));
        assert_eq!(parse_to("7"), Ok(Bpos::new(7, u64::MAX, u32::MAX)));
        assert_eq!(parse_to("7:1"), Ok(Bpos::new(7, 1, u32::MAX)));
        for bad in ["", ":", "1:2:3:4", "x", "1:2:4294967296", "-1"] {
            assert!(parse_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn btrees_have_names_and_numbers() {
        assert_eq!(parse_btree("dirents"), Ok(BtreeId::DIRENTS));
        assert_eq!(parse_btree("reconcile_work"), Ok(BtreeId::REBALANCE_WORK));
        assert_eq!(parse_btree("40"), Ok(BtreeId(40)));
        assert!(parse_btree("63").is_err() && parse_btree("inode").is_err());
    }
}
