//! How sizes, times and names look.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use frazil_posix::{FileType, Timestamp as FileTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// A size in bytes with three significant digits and a unit: `4.38 KiB`, `64.0 MiB`, `512 B`.
pub(crate) struct Size(pub(crate) u64);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let power = if self.0 == 0 { 0 } else { self.0.ilog2() / 10 };
        let unit = UNITS[power as usize];
        if power == 0 {
            return write!(f, "{} {unit}", self.0);
        }
        let value = self.0 as f64 / (1u64 << (10 * power)) as f64;
        let digits = match value {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Reads a size: a number with an optional unit, `64M`, `1.5 GiB`, `4096`. Units are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size; write for instance 64M or 1G");
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * 1024f64.powi(power);
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(bad()) }
}

/// A span of time in nanoseconds with three significant digits and a unit: `2.90 µs`, `13.0 ms`, `7 min 3 s`, `2 d 5 h`.
pub(crate) struct Span(pub(crate) u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1_000_000_000;
        let (scale, unit) = match self.0 {
            n if n < 1_000 => return write!(f, "{n} ns"),
            n if n < 1_000_000 => (1e3, "µs"),
            n if n < 1_000_000_000 => (1e6, "ms"),
            _ if secs < 60 => (1e9, "s"),
            _ if secs < 3600 => return write!(f, "{} min {} s", secs / 60, secs % 60),
            _ if secs < 86_400 => return write!(f, "{} h {} min", secs / 3600, secs % 3600 / 60),
            _ => return write!(f, "{} d {} h", secs / 86_400, secs % 86_400 / 3600),
        };
        let value = self.0 as f64 / scale;
        let digits = match value {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Reads a span of time: a number with an optional unit, `30`, `0.5`, `500ms`, `30s`, `5m`, `2h`. Without one it is in seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a time; write for instance 30s or 5m");
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let seconds: f64 = number.parse().map_err(|_| bad())?;
    let time = Duration::try_from_secs_f64(seconds * scale).map_err(|_| bad())?;
    if time.is_zero() || time > TIME_MAX { Err(bad()) } else { Ok(time) }
}

/// Nobody waits longer than ten years.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A moment in local time, as ctime(3) prints it: `Sun Nov 22 11:02:28 2026`.
pub(crate) fn ctime(unix_seconds: u64) -> String {
    let at = i64::try_from(unix_seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    match at {
        Some(at) => at.to_zoned_datetime(TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        // Beyond the year 9999.
        None => format!("@{unix_seconds}"),
    }
}

/// A moment in local time, to the minute: `2026-11-22 11:02`.
pub(crate) fn minute(at: FileTime) -> String {
    local(at).map_or_else(|| format!("@{}", at.secs), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// A moment in local time, to the nanosecond, with the zone: `2026-11-22 11:02:28.000000001 +0100`.
pub(crate) fn nanosecond(at: FileTime) -> String {
    match local(at) {
        Some(local) => local.strftime("%Y-%m-%d %H:%M:%S.%9f %z").to_string(),
        None => format!("@{}.{:09}", at.secs, at.nanos),
    }
}

/// `None` outside of the years -9999 to 9999.
fn local(at: FileTime) -> Option<ZonedDateTime> {
    let nanos = i32::try_from(at.nanos).ok()?;
    Some(Timestamp::new(at.secs, nanos).ok()?.to_zoned_datetime(TimeZone::system()))
}

/// Type and permissions as ls(1) prints them: `drwxr-xr-x`.
pub(crate) fn permissions(kind: FileType, perm: u16) -> String {
    let ty = match kind {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
    };
    let mut text = String::from(ty);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = perm >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (perm & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, false) => letter.to_ascii_uppercase(),
            (true, true) => letter,
        });
    }
    text
}

/// Bytes as text for people: UTF-8 stays, everything else and control characters are escaped.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (4096, "4.00 KiB"),
            (4485, "4.38 KiB"),
            (64 << 20, "64.0 MiB"),
            (128 << 10, "128 KiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [("4096", 4096), ("64M", 64 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2048)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "M", "1X", "-1", "1e3", "99999999P", "1.2.3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_have_a_unit_that_fits() {
        for (nanos, text) in [
            (0, "0 ns"),
            (2900, "2.90 µs"),
            (13_000_000, "13.0 ms"),
            (59_400_000_000, "59.4 s"),
            (423_000_000_000, "7 min 3 s"),
            (7_380_000_000_000, "2 h 3 min"),
            (190_800_000_000_000, "2 d 5 h"),
        ] {
            assert_eq!(Span(nanos).to_string(), text);
        }
    }

    #[test]
    fn spans_are_read_with_and_without_units() {
        for (text, millis) in
            [("30", 30_000), ("0.5", 500), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_seconds(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "0", "-1", "1e3", "5 days", "99999999h", "1.2.3"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(Shown("grün\n\\".as_bytes()).to_string(), "grün\\n\\\\");
        assert_eq!(Shown(b"a\xff\x1b[").to_string(), "a\\xff\\u{1b}[");
    }

    #[test]
    fn permissions_are_letters() {
        for (kind, perm, text) in [
            (FileType::Directory, 0o755, "drwxr-xr-x"),
            (FileType::Regular, 0o4755, "-rwsr-xr-x"),
            (FileType::Regular, 0o2644, "-rw-r-Sr--"),
            (FileType::Directory, 0o1777, "drwxrwxrwt"),
            (FileType::CharDevice, 0o1000, "c--------T"),
        ] {
            assert_eq!(permissions(kind, perm), text);
        }
    }

    #[test]
    fn times_of_files_may_be_anything() {
        let far = FileTime { secs: i64::MIN, nanos: 5 };
        assert_eq!(minute(far), format!("@{}", i64::MIN));
        assert_eq!(nanosecond(far), format!("@{}.000000005", i64::MIN));
        assert!(nanosecond(FileTime { secs: -1, nanos: 999_999_999 }).contains(".999999999 "));
    }

    #[test]
    fn times_out_of_range_are_numbers() {
        assert_eq!(ctime(u64::MAX), format!("@{}", u64::MAX));
    }
}
