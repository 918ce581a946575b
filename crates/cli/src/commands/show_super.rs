//! `frazil show-super`: what the superblock of a device says.
//!
//! One device is enough, whatever became of the others, and it may be in use: nothing is locked. Superblocks that break a rule
//! are shown all the same, with a warning.
//!
//! As text it looks as the reference's: names and values in two columns, sizes with units, times in local time. As JSON it is
//! an object per device that has everything: names in lower case with underscores, sizes in bytes, times in seconds since
//! 1970 (`null`: never), one name for a choice, an array for several.

use std::io::Write;
use std::path::Path;

use frazil_ondisk::superblock::describe::{Fact, Facts, describe};
use frazil_volume::open::read_superblock;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Out, json_line};
use crate::format::{Shown, Size, ctime};
use crate::open::{Devices, peek};
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// Column of the values.
const VALUE_COLUMN: usize = 43;
/// Sections shown when nothing else is asked for.
const SECTIONS_DEFAULT: [&str; 4] = ["members_v2", "errors", "errors_v2", "ext"];

/// Show what the superblock of a device says; it may be in use, and one of many
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  frazil show-super /dev/sdb1
  frazil show-super -f all --layout disk.img
  frazil show-super --json disk.img | jq .options.compression")]
pub(crate) struct Args {
    #[command(flatten)]
    devices: Devices,
    /// Also show where the copies of the superblock are
    #[arg(short, long)]
    layout: bool,
    /// Sections to show, with commas between; "all" for all there are [default: members, errors and what repair needs]
    #[arg(short = 'f', long = "sections", value_name = "NAMES", value_delimiter = ',')]
    sections: Option<Vec<String>>,
    /// One JSON object per device, with everything in it
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let paths = args.devices.paths();
    let mut failed = false;
    for (i, path) in paths.iter().enumerate() {
        match show(path, args, i > 0, out) {
            Err(Stop::Failed(why)) if paths.len() > 1 => {
                say::error(why);
                failed = true;
            }
            shown => shown?,
        }
    }
    Ok(Done::unless(failed))
}

fn show(path: &Path, args: &Args, separate: bool, out: &mut Out) -> Result<(), Stop> {
    let mut superblock = read_superblock(&peek(path)?).map_err(Stop::failed)?;
    superblock.fill_defaults();
    if let Err(why) = superblock.validate() {
        say::warning(format_args!("{}: {why}", path.display()));
    }
    let facts = describe(&superblock);
    if args.json {
        return json_line(out, &Device { path, facts: &facts });
    }
    if separate {
        writeln!(out)?;
    }
    line(out, 0, "Device", &path.display().to_string())?;
    Text { facts: &facts, args }.write(out)
}

/// A description as text.
struct Text<'a> {
    facts: &'a Facts,
    args: &'a Args,
}

impl Text<'_> {
    fn write(&self, out: &mut Out) -> Result<(), Stop> {
        for (name, fact) in &self.facts.0 {
            match (name.as_ref(), fact) {
                ("Superblock max size", _) => {}
                ("Superblock size", Fact::Bytes(size)) => {
                    let most = self.facts.get("Superblock max size").map(text).unwrap_or_default();
                    line(out, 0, name, &format!("{}/{most}", Size(*size)))?;
                }
                ("Layout", Fact::Group(_)) if !self.args.layout => {}
                ("Sections in detail", Fact::Group(sections)) => self.sections(sections, out)?,
                (name, Fact::Group(group)) => {
                    writeln!(out, "\n{name}:")?;
                    lines(out, 2, group)?;
                }
                (name, fact) => line(out, 0, name, &text(fact))?,
            }
        }
        Ok(())
    }

    fn sections(&self, sections: &Facts, out: &mut Out) -> Result<(), Stop> {
        if let Some(unknown) = self
            .args
            .sections
            .iter()
            .flatten()
            .find(|name| *name != "all" && !sections.0.iter().any(|(section, _)| is_named(section, name)))
        {
            let there: Vec<&str> = sections.0.iter().map(|(name, _)| name.as_ref()).collect();
            return Err(Stop::Usage(format!(
                "there is no section {unknown}; there are: {}",
                there.join(", ")
            )));
        }
        for (name, fact) in &sections.0 {
            if let Fact::Group(section) = fact
                && self.wants(name)
            {
                let size = section.get("Size").and_then(|size| match size {
                    Fact::Bytes(bytes) => Some(*bytes),
                    _ => None,
                });
                writeln!(out, "\n{name} (size {}):", size.unwrap_or(0))?;
                let rest = section.0.iter().filter(|(name, _)| name != "Size").cloned().collect();
                lines(out, 0, &Facts(rest))?;
            }
        }
        Ok(())
    }

    fn wants(&self, section: &str) -> bool {
        match &self.args.sections {
            None => SECTIONS_DEFAULT.contains(&section),
            Some(names) => names.iter().any(|name| name == "all" || is_named(section, name)),
        }
    }
}

/// Whether a person means this section: `members` is enough for `members_v2`.
fn is_named(section: &str, name: &str) -> bool {
    section == name || section.strip_suffix("_v2") == Some(name)
}

/// Named values, groups below their names.
fn lines(out: &mut Out, indent: usize, facts: &Facts) -> Result<(), Stop> {
    for (name, fact) in &facts.0 {
        match fact {
            Fact::Group(group) => {
                writeln!(out, "{:indent$}{name}:", "")?;
                lines(out, indent + 2, group)?;
            }
            fact => line(out, indent, name, &text(fact))?,
        }
    }
    Ok(())
}

fn line(out: &mut Out, indent: usize, name: &str, value: &str) -> Result<(), Stop> {
    let width = VALUE_COLUMN.saturating_sub(indent + 1);
    let line = format!("{:indent$}{:width$} {value}", "", format!("{name}:"));
    writeln!(out, "{}", line.trim_end())?;
    Ok(())
}

/// A value on one line.
fn text(fact: &Fact) -> String {
    match fact {
        Fact::Switch(on) => u8::from(*on).to_string(),
        Fact::Number(n) => n.to_string(),
        Fact::Bytes(bytes) => Size(*bytes).to_string(),
        Fact::Time(at) if at.0 == 0 => "(never)".to_owned(),
        Fact::Time(at) => ctime(at.0),
        Fact::Text(text) => Shown(text.as_bytes()).to_string(),
        Fact::Uuid(uuid) => uuid.to_string(),
        Fact::Choice { names, current } => {
            let name = |(i, name): (usize, &&str)| {
                if i == *current { format!("[{name}]") } else { (*name).to_owned() }
            };
            names.iter().enumerate().map(name).collect::<Vec<_>>().join(" ")
        }
        Fact::Names(names) => names.join(","),
        Fact::List(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        Fact::Group(group) => {
            let one = |(name, fact): &(_, Fact)| format!("{name}={}", text(fact));
            group.0.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Fact::Damaged(why) => format!("(damaged: {why})"),
    }
}

/// A device's superblock as JSON.
struct Device<'a> {
    path: &'a Path,
    facts: &'a Facts,
}

impl Serialize for Device<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("device", &self.path.to_string_lossy())?;
        entries(&mut map, self.facts)?;
        map.end()
    }
}

/// A value as JSON.
struct Json<'a>(&'a Fact);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Fact::Switch(on) => serializer.serialize_bool(*on),
            Fact::Number(n) | Fact::Bytes(n) => serializer.serialize_u64(*n),
            Fact::Time(at) if at.0 == 0 => serializer.serialize_none(),
            Fact::Time(at) => serializer.serialize_u64(at.0),
            // How descriptions write an empty text.
            Fact::Text(text) if text == "(none)" => serializer.serialize_none(),
            Fact::Text(text) => serializer.serialize_str(text),
            Fact::Uuid(uuid) => serializer.collect_str(uuid),
            Fact::Choice { names, current } => names.get(*current).serialize(serializer),
            Fact::Names(names) => names.serialize(serializer),
            Fact::List(list) => serializer.collect_seq(list.iter().map(Json)),
            Fact::Group(group) => {
                let mut map = serializer.serialize_map(Some(group.0.len()))?;
                entries(&mut map, group)?;
                map.end()
            }
            Fact::Damaged(why) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("damaged", why)?;
                map.end()
            }
        }
    }
}

fn entries<M: SerializeMap>(map: &mut M, facts: &Facts) -> Result<(), M::Error> {
    facts.0.iter().try_for_each(|(name, fact)| map.serialize_entry(&json_name(name), &Json(fact)))
}

/// A name for machines: `External UUID` becomes `external_uuid`.
fn json_name(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_bad_choices_are_values_too() {
        let out_of_range = Fact::Choice { names: &["a", "b"], current: 7 };
        assert_eq!(text(&out_of_range), "a b");
        assert_eq!(serde_json::to_string(&Json(&out_of_range)).unwrap(), "null");
        let damaged = Fact::List(vec![Fact::Damaged("torn".into()), Fact::Number(3)]);
        assert_eq!(text(&damaged), "(damaged: torn), 3");
        assert_eq!(serde_json::to_string(&Json(&damaged)).unwrap(), r#"[{"damaged":"torn"},3]"#);
    }
}
