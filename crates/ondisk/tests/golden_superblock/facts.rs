//! Compares a described superblock with the text the reference implementation printed about it.
//!
//! The text is read line by line into (path, value) pairs; each value is then compared with the fact of that name, printed
//! in the reference's way. The reference has two styles of sizes and versions, those of old and of new programs.

use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::describe::{Fact, Facts, describe};
use frazil_ondisk::superblock::options::{self, OptionSpec};
use frazil_ondisk::units::{SECTOR_BYTES, UnixSeconds};
use frazil_ondisk::version::Version;

/// Compares everything in `text`; returns how many values were compared.
///
/// # Panics
/// At the first difference, and at a line nothing is known about.
pub(crate) fn compare(what: &str, sb: &Superblock, text: &str) -> usize {
    let facts = describe(sb);
    let mut place = Place::Top;
    let mut compared = 0;
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            assert!(line.trim().is_empty() || line.starts_with("Device"), "{what}: line '{line}'");
            continue;
        };
        let (name, value, indented) = (name.trim(), value.trim(), line.starts_with(' '));
        if !indented && let Some(next) = Place::of(name, value) {
            if let Place::Section(section, size) = &next {
                assert_eq!(
                    section_facts(&facts, section).get("Size"),
                    Some(&Fact::Bytes(*size)),
                    "{what}: {name}"
                );
                compared += 1;
            }
            place = next;
            continue;
        }
        assert_eq!(place.check(sb, &facts, name, value), Ok(()), "{what}: {line}");
        compared += 1;
    }
    check_all_options_were_printed(what, sb, text);
    compared
}

/// What the lines being read are about.
enum Place {
    Top,
    Options,
    Layout,
    Section(String, u64),
    Member(String),
}

impl Place {
    /// The place a heading opens.
    fn of(name: &str, value: &str) -> Option<Place> {
        if let Some((section, size)) = name.split_once(" (size ") {
            return Some(Place::Section(section.to_owned(), size.trim_end_matches(')').parse().unwrap()));
        }
        match name {
            "Options" => Some(Place::Options),
            "layout" => Some(Place::Layout),
            "Device" => {
                Some(if value.starts_with('(') { Place::Top } else { Place::Member(value.to_owned()) })
            }
            _ => name.strip_prefix("Device ").filter(|n| *n != "index").map(|n| Place::Member(n.to_owned())),
        }
    }

    fn check(&self, sb: &Superblock, facts: &Facts, name: &str, value: &str) -> Result<(), String> {
        match self {
            Place::Top => check_top(facts, name, value),
            Place::Options => check_option(sb, facts, name, value),
            Place::Layout => check_layout(group(facts, "Layout"), name, value),
            Place::Section(section, _) => check_value(section_facts(facts, section), name, value),
            Place::Member(index) => {
                let Some(Fact::Group(member)) =
                    section_facts(facts, "members_v2").get(&format!("Device {index}"))
                else {
                    return Err(format!("no device {index}"));
                };
                check_member(sb, member, name, value)
            }
        }
    }
}

fn group<'a>(facts: &'a Facts, name: &str) -> &'a Facts {
    match facts.get(name) {
        Some(Fact::Group(group)) => group,
        other => panic!("{name} is {other:?}"),
    }
}

fn section_facts<'a>(facts: &'a Facts, section: &str) -> &'a Facts {
    group(group(facts, "Sections in detail"), section)
}

fn check_top(facts: &Facts, name: &str, value: &str) -> Result<(), String> {
    if name != "Superblock size" {
        return check_value(facts, name, value);
    }
    let (size, max) = value.split_once('/').ok_or("no slash")?;
    check_value(facts, name, size)?;
    check_value(facts, "Superblock max size", max)
}

fn check_option(sb: &Superblock, facts: &Facts, name: &str, value: &str) -> Result<(), String> {
    // Its name until reconcile replaced rebalance.
    let name = if name == "rebalance_on_ac_only" { "reconcile_on_ac_only" } else { name };
    let spec = OptionSpec::by_name(name).ok_or("unknown option")?;
    if spec.applies_to(sb.version) {
        return check_value(group(facts, "Options"), name, value);
    }
    // Between 1.13 and 1.39 the set of options changed step by step.
    same(&spec.format(sb.option(spec)), value)
}

fn check_all_options_were_printed(what: &str, sb: &Superblock, text: &str) {
    if sb.version != Version::WRITE && sb.version != Version::READ_MAX {
        return;
    }
    for spec in options::ALL.iter().filter(|o| o.applies_to(sb.version)) {
        assert!(text.contains(&format!("\n  {}:", spec.name)), "{what}: the reference does not print {spec}");
    }
}

fn check_layout(facts: &Facts, name: &str, value: &str) -> Result<(), String> {
    if name != "Offsets" {
        return check_value(facts, name, value);
    }
    let offsets = value.split(", ").map(|s| Fact::Number(s.parse().unwrap())).collect();
    if facts.get(name) == Some(&Fact::List(offsets)) { Ok(()) } else { Err(format!("{:?}", facts.get(name))) }
}

fn check_member(sb: &Superblock, facts: &Facts, name: &str, value: &str) -> Result<(), String> {
    match (name, facts.get(name)) {
        // Old programs print only the last component, with its index.
        ("Label", Some(Fact::Text(label))) if sb.version <= Version::WRITE && label != "(none)" => {
            let last = label.rsplit('.').next().unwrap();
            same(&format!("{last} ("), &value[..value.find('(').ok_or("no index")? + 1])
        }
        // It is in sectors, and printed as if it were in bytes.
        ("Btree allocated bitmap blocksize", Some(Fact::Bytes(bytes))) => {
            check_fact(&Fact::Bytes(bytes / SECTOR_BYTES), value)
        }
        _ => check_value(facts, name, value),
    }
}

fn check_value(facts: &Facts, name: &str, value: &str) -> Result<(), String> {
    check_fact(facts.get(name).ok_or("not described")?, value)
}

fn check_fact(fact: &Fact, value: &str) -> Result<(), String> {
    match fact {
        Fact::Switch(on) => same(if *on { "1" } else { "0" }, value),
        Fact::Number(n) => same(&n.to_string(), value),
        Fact::Bytes(bytes) => sizes(*bytes)
            .into_iter()
            .map(|size| same(&size, value))
            .reduce(|a, b| if a.is_ok() { a } else { b })
            .unwrap(),
        Fact::Time(at) => {
            same(&ctime(*at), if value == "(never)" { "Thu Jan  1 00:00:00 1970" } else { value })
        }
        Fact::Text(text) => same(&version_text(text), &version_text(value)),
        Fact::Uuid(uuid) => same(&uuid.to_string(), value),
        Fact::Choice { names, current } => {
            let one =
                |(i, n): (usize, &&str)| if i == *current { format!("[{n}]") } else { (*n).to_string() };
            let all: Vec<String> = names.iter().enumerate().map(one).collect();
            same(&all.join(" "), value)
        }
        Fact::Names(names) => same(&names.join(","), if value == "(none)" { "" } else { value }),
        Fact::List(_) | Fact::Group(_) | Fact::Damaged(_) => Err(format!("{fact:?}")),
    }
}

fn same(ours: &str, theirs: &str) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("ours is '{ours}'")) }
}

/// `1.13: name` and `name (1.13)` are the same, and so are the ways to say that there is no version.
fn version_text(text: &str) -> String {
    if text == "0.0: (unknown version)" || text.contains("(0.0)") {
        return "none".to_owned();
    }
    match text.split_once(" (") {
        Some((name, number)) if number.ends_with(')') => {
            format!("{}: {name}", number.trim_end_matches(')'))
        }
        _ => text.to_owned(),
    }
}

/// A size with three significant digits, in both styles; small ones are sometimes printed without a fraction.
fn sizes(bytes: u64) -> Vec<String> {
    let units = [("B", ""), ("KiB", "k"), ("MiB", "M"), ("GiB", "G")];
    let power = if bytes == 0 { 0 } else { (bytes.ilog2() / 10).min(3) };
    let (old, new) = units[power as usize];
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    let digits: usize = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let scale = 10f64.powi(digits as i32);
    let shown = format!("{:.digits$}", (value * scale + 0.5).floor() / scale);
    let mut all = vec![format!("{shown} {old}"), format!("{shown}{new}")];
    if power == 0 {
        all.extend([format!("{bytes} {old}"), bytes.to_string()]);
    }
    all
}

/// `Sun Nov 22 11:02:28 2026`, in UTC.
fn ctime(at: UnixSeconds) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (mut days, secs) = (at.0 / 86_400, at.0 % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{weekday} {} {:>2} {h:02}:{m:02}:{s:02} {year}", MONTHS[month], days + 1)
}
